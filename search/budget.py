"""How much a search may spend, and the epochs at which stopping rules decide."""

from dataclasses import dataclass

from search.parameters import is_whole


@dataclass(frozen=True)
class Budget:
    """How much a search may spend.

    `trials` trials of at most `epochs` epochs each, at most `time_s` seconds in all (`None`: no limit). ASHA decides at
    the epochs `first_rung`, `first_rung * reduction_factor`, … and lets about one in `reduction_factor` go on.
    """

    trials: int
    epochs: int
    time_s: float | None = None
    first_rung: int = 1
    reduction_factor: int = 3

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which ASHA decides, and the last one."""
        rungs, rung = [], self.first_rung
        while rung < self.epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return (*rungs, self.epochs)

    def faults(self) -> list[str]:
        """What is wrong with this budget, one sentence per fault."""
        whole = {"trials": 1, "epochs": 1, "first_rung": 1, "reduction_factor": 2}
        found = [
            f"budget: {name} must be a whole number, {low} or more; got {value!r}"
            for name, low in whole.items()
            if not is_whole(value := getattr(self, name)) or value < low
        ]
        number = isinstance(self.time_s, int | float) and not isinstance(self.time_s, bool)
        if self.time_s is not None and not (number and self.time_s > 0):
            found.append(f"budget: time_s must be more than 0 seconds; got {self.time_s!r}")
        return found
