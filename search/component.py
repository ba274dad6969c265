"""What all tables of components have in common. A component is one way to do a part of the work, by its name.

There are optimizers, schedules, losses, heads, samplers and stopping rules. Each table is a file of its own, one row
each; a space file may declare further rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search.setting import Setting


def nothing_missing() -> list[str]:
    """No fault: the component needs nothing but the project."""
    return []


@dataclass(frozen=True)
class Component:
    """One component.

    Args:
        meaning: for people, in a line.
        parameters: name → what it may be. They are settings as all others: a space may fix or search them. Components
            that mean the same by a parameter share its `Setting`.
        missing: gives what this machine lacks for it, as sentences.
        file: of the space that declares it, and `source` the text of that file; empty for those of the project.
    """

    meaning: str
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    missing: Callable[[], list[str]] = nothing_missing
    file: str = ""
    source: str = ""
