"""The settings: every name that a space may fix and `--set` may change, with its meaning, default and range.

Those marked searchable may be a space's parameters as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.errors import unknown

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Setting:
    """One setting: what it means, its default (which gives its type) and what is allowed.

    `low` and `high` are allowed themselves unless `above` is set, which leaves `low` out.
    """

    meaning: str
    default: Value
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    choices: tuple[str, ...] = ()
    searchable: bool = False

    def fault(self, name: str, value: Value) -> str | None:
        """What is wrong with `value`, as one sentence; `None` when nothing is."""
        if self.choices:
            return None if value in self.choices else f"{name}: {unknown('value', str(value), self.choices)}"
        if isinstance(self.default, str) or self.default is None:
            good = value is self.default is None or (isinstance(value, str) and value != "")
            return None if good else f"{name} must be {self.allowed()}; got {value!r}"
        kinds = int if isinstance(self.default, int) else int | float
        good = isinstance(value, kinds) and not isinstance(value, bool)
        if good and self.low <= value <= self.high and not (self.above and value == self.low):  # type: ignore[operator]
            return None
        return f"{name} must be {self.allowed()}; got {value!r}"

    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if isinstance(self.default, str) or self.default is None:
            return "text, and not empty"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        bottom = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"{kind}, {bottom}" + ("" if self.high == math.inf else f" and at most {self.high:g}")

    def read(self, text: str) -> Value:
        """The value that `text` stands for; text that is no number stays text, for `fault` to name."""
        if self.choices or isinstance(self.default, str) or self.default is None:
            return text
        try:
            return int(text) if isinstance(self.default, int) else float(text)
        except ValueError:
            return text


class Values(dict[str, Value]):
    """What settings are set to, by name, each as the kind of value that it is.

    Raises:
        TypeError: from all methods: it is not of that kind, which `Setting.fault` had to find.
    """

    def whole(self, name: str) -> int:
        """A whole number."""
        return int(self._of(name, int))

    def number(self, name: str) -> float:
        """A number."""
        return float(self._of(name, int | float))

    def text(self, name: str) -> str:
        """A text, which is not empty."""
        return str(self._of(name, str))

    def _of(self, name: str, kind: Any) -> Any:
        value = self[name]
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        raise TypeError(f"{name} is {value!r}")


SETTINGS: Mapping[str, Setting] = {
    "data": Setting("a folder of images, or the name of a built-in set", "digits"),
    "backbone": Setting("a keras.applications name, tiny, or a .keras file", "tiny"),
    "weights": Setting("imagenet, none or a file; nothing: the backbone's own", None),
    "image_size": Setting("side of the images, in pixels; 0: what the backbone was made for", 0, low=0, high=4096),
    "max_bad_files": Setting("share of unreadable image files that is skipped; more is an error", 0.01, low=0, high=1),
    "folders": Setting(
        "what the folders of the data are; auto: classes, or splits where they are called so",
        "auto",
        choices=("auto", "classes"),
    ),
    "augmented_views": Setting(
        "views of each training image, taken in turn by epoch: itself, and fixed random transforms", 1, low=1, high=1000
    ),
    "precision": Setting("of the network; mixed_float16 is for GPUs", "float32", choices=("float32", "mixed_float16")),
    "head_start": Setting("what the head starts from", "probe", choices=("probe", "random")),
    "cache_gib": Setting("GiB of features kept on a node, at most half of its free disk", 50.0, low=0, high=1e6),
    "max_failures": Setting("times that a trial whose process dies goes on from its checkpoint", 3, low=0, high=100),
    "confirm": Setting(
        "best configurations that are run again with other seeds at the end; 0: none", 0, low=0, high=100
    ),
    "soup": Setting(
        "best trials of whose weights the model may be the mean, where that is better; 0: the winner's alone",
        0,
        low=0,
        high=100,
    ),
    "sampler": Setting("who proposes configurations", "tpe", choices=("tpe", "random", "qmc", "gp")),
    "stopping": Setting("which trials stop for the sake of others", "trend", choices=("trend", "asha", "none")),
    "finish_epochs": Setting(
        "epochs that the best trials may run in all while they get better; 0: as many as all others", 0, low=0, high=1e6
    ),
    "unfreeze_depth": Setting("blocks trained, counted from the top; 0: the head alone", 0, low=0, searchable=True),
    "learning_rate": Setting("the optimizer's first rate", 1e-3, low=0, high=100, above=True, searchable=True),
    "optimizer": Setting("what takes the steps", "adam", choices=("adam", "sgd"), searchable=True),
    "warmup_epochs": Setting(
        "epochs over which the rate rises to its first value", 0.0, low=0, high=1000, searchable=True
    ),
    "momentum": Setting("of sgd", 0.9, low=0, high=1, searchable=True),
    "weight_decay": Setting("decoupled, per step and unit of rate; kernels only", 0.0, low=0, high=1, searchable=True),
    "dropout": Setting("share of features dropped before the head", 0.0, low=0, high=0.95, searchable=True),
    "batch_size": Setting("images per step", 32, low=1, high=65536, searchable=True),
    "plateau_patience": Setting("epochs without a better objective until the rate falls", 3, low=1, searchable=True),
    "plateau_factor": Setting("what the rate is multiplied by then", 0.3, low=0, high=1, above=True, searchable=True),
    "stop_patience": Setting(
        "epochs without a better objective, of those after the warm-up, until the trial ends", 7, low=1, searchable=True
    ),
}


def read_assignments(assignments: Sequence[str]) -> tuple[dict[str, Value], list[str]]:
    """The settings that `KEY=VALUE` texts ask for, and a sentence for each one that is wrong."""
    values: dict[str, Value] = {}
    faults = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            faults.append(f"--set {assignment}: write KEY=VALUE")
        elif name not in SETTINGS:
            faults.append(f"--set {assignment}: {unknown('setting', name, SETTINGS)}")
        elif fault := SETTINGS[name].fault(name, SETTINGS[name].read(text)):
            faults.append(f"--set {assignment}: {fault}")
        else:
            values[name] = SETTINGS[name].read(text)
    return values, faults
