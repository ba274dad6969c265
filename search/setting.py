"""One setting (its meaning, default and range), and the values that settings have."""

import math
from dataclasses import dataclass
from typing import Any

from search.errors import unknown

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Setting:
    """One setting: what it means, its default (which determines its type) and the allowed values.

    The range includes `low` and `high`; if `above` is set, it excludes `low`.
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
        """Convert `text` to this setting's type; text that is not a number stays text, so that `fault` reports it."""
        if self.choices or isinstance(self.default, str) or self.default is None:
            return text
        try:
            return int(text) if isinstance(self.default, int) else float(text)
        except ValueError:
            return text


class Values(dict[str, Value]):
    """The values of settings, by name; each method returns one as a certain type.

    Raises:
        TypeError: from all methods: the value has another type. `Setting.fault` should have found that before.
    """

    def whole(self, name: str) -> int:
        """The value of a setting that is a whole number."""
        return int(self._of(name, int))

    def number(self, name: str) -> float:
        """The value of a setting that is a number."""
        return float(self._of(name, int | float))

    def text(self, name: str) -> str:
        """The value of a setting that is text."""
        return str(self._of(name, str))

    def _of(self, name: str, kind: Any) -> Any:
        value = self[name]
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        raise TypeError(f"{name} is {value!r}")
