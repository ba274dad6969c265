"""What all components have in common. A component is one named way to do one part of the work.

There are optimizers, schedules, losses, heads, samplers and stopping rules. Each kind has a table in its own file, with
one row per component; a space file may declare more rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search.setting import Setting


def nothing_missing() -> list[str]:
    """Return no fault: the component needs only what the project installs."""
    return []


@dataclass(frozen=True)
class Component:
    """One component.

    Args:
        meaning: one line for the user.
        parameters: name → its setting. They are ordinary settings: a space may fix them or search them. Components
            that share a parameter share its `Setting`.
        missing: returns what this machine lacks for the component, one sentence each.
        file: the space file that declares it; empty for the project's own components.
        source: the text of that file; empty for the project's own components.
    """

    meaning: str
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    missing: Callable[[], list[str]] = nothing_missing
    file: str = ""
    source: str = ""
