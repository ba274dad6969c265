"""What a search has of machines, and what a trial gets of it."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from search import machine
from search.request.options import Numbers


@dataclass(frozen=True)
class Resources:
    """What a search has, and what a trial gets of it.

    Args:
        cpus: of this machine, for an own local Ray; likewise `gpus`.
        cpus_per_trial: likewise `gpus_per_trial`; fractions allowed.
        max_concurrent: trials at a time; `None`: as many as there is room for.
        address: of a Ray cluster; `None`: an own local Ray.
    """

    cpus: int
    gpus: int
    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None = None
    address: str | None = None

    @property
    def bundle(self) -> dict[str, float]:
        """What a trial gets, by Ray's names."""
        return {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}

    def room(self, node: Mapping[str, float]) -> int:
        """How many trials a node has room for, whose resources Ray names; fractions are those of one GPU."""
        places = int(node.get("CPU", 0) / self.cpus_per_trial)
        if not self.gpus_per_trial:
            return places
        gpus, share = node.get("GPU", 0), self.gpus_per_trial
        return min(places, int(gpus) * int(1 / share) if share < 1 else int(gpus / share))


def read(options: argparse.Namespace, numbers: Numbers, faults: list[str]) -> Resources:
    """What the options say; by default a trial gets one GPU, where there are any, and its share of CPUs.

    Args:
        faults: get what is wrong beside the numbers.
    """
    cpus, gpus = machine.cpus(), machine.gpus()
    cpus_per_trial, gpus_per_trial = numbers.amount("cpus_per_trial"), numbers.amount("gpus_per_trial", zero=True)
    if not options.address:
        for kind, wanted, there in (("cpus", cpus_per_trial, cpus), ("gpus", gpus_per_trial, gpus)):
            if wanted and wanted > there:
                faults.append(f"--{kind}-per-trial {wanted:g}: this machine has {there}")
    if gpus_per_trial is None:
        gpus_per_trial = min(1, gpus)
    share = int(cpus * gpus_per_trial / gpus) if gpus else 1
    return Resources(
        cpus=cpus,
        gpus=gpus,
        cpus_per_trial=cpus_per_trial or max(1, share),
        gpus_per_trial=gpus_per_trial,
        max_concurrent=numbers.whole("max_concurrent", 1),
        address=options.address,
    )
