"""Reads the options that are numbers, and reports all their faults."""

import argparse
import math
from typing import TypeVar

Number = TypeVar("Number", int, float)


class Numbers:
    """Reads the options that are numbers, and collects their faults."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.faults: list[str] = []

    def whole(self, option: str, low: int, high: float = math.inf) -> int | None:
        """The whole number of an option, from `low` to `high`; `None` if it is not given, or wrong."""
        text = getattr(self._options, option)
        number = _read(int, text)
        if text is None or (number is not None and low <= number <= high):
            return number
        self._fault(option, f"a whole number, {low} or more" + ("" if high == math.inf else f", at most {high}"), text)
        return None

    def amount(self, option: str, zero: bool = False) -> float | None:
        """The positive number of an option (0 only if `zero`); `None` if it is not given, or wrong."""
        text = getattr(self._options, option)
        number = _read(float, text)
        if text is None or (number is not None and math.isfinite(number) and (number > 0 or (zero and number == 0))):
            return number
        self._fault(option, "a number, 0 or more" if zero else "a number above 0", text)
        return None

    def _fault(self, option: str, allowed: str, given: str) -> None:
        self.faults.append(f"--{option.replace('_', '-')} must be {allowed}; got '{given}'")


def _read(kind: type[Number], text: str | None) -> Number | None:
    """Convert text to a number; `None` if it is not one."""
    try:
        return None if text is None else kind(text)
    except ValueError:
        return None
