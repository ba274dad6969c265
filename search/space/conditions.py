"""Parameters that exist only under a condition: where another one, their parent, has certain values."""

import math
from collections.abc import Mapping, Sequence

from search.parameters import Parameter, count, values
from search.setting import Value


class Conditions:
    """The conditions of a space.

    Args:
        search: parameter → what it may be.
        when: parameter → its parent, and the parent's value, or values, under which it exists.
    """

    def __init__(
        self, search: Mapping[str, Parameter], when: Mapping[str, tuple[str, Value | Sequence[Value]]]
    ) -> None:
        self._search, self._when = search, when

    def of(self, name: str) -> tuple[str, tuple[Value, ...]]:
        """The parent of a parameter, and those of the parent's values under which the parameter exists."""
        parent, value = self._when[name]
        return parent, (value,) if value is None or isinstance(value, bool | int | float | str) else tuple(value)

    def level(self, name: str) -> int:
        """How many conditions lie above a parameter; more than there are parameters where they go in a circle."""
        level = 0
        while name in self._when and level <= len(self._search):
            name, level = self._when[name][0], level + 1
        return level

    def met(self, name: str, configuration: Mapping[str, Value]) -> bool:
        """Whether a parameter exists in a configuration."""
        if name not in self._when:
            return True
        parent, wanted = self.of(name)
        return configuration.get(parent) in wanted

    @property
    def ordered(self) -> list[str]:
        """The parameters, each after its parent."""
        return sorted(self._search, key=self.level)

    @property
    def size(self) -> float:
        """How many configurations there are; infinite where a number has no steps. A `Depth` must be resolved."""
        return math.prod(self._ways(name) for name in self._search if name not in self._when)

    def _ways(self, name: str) -> float:
        """How many ways there are to choose a parameter and those that depend on it."""
        below = [(child, wanted) for child in self._when for parent, wanted in [self.of(child)] if parent == name]
        if not below:
            return count(self._search[name])
        options = set(values(self._search[name]))
        return sum(math.prod(self._ways(child) for child, wanted in below if option in wanted) for option in options)
