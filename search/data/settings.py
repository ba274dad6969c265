"""The settings that say how a data set is read, as one value that travels to every node."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import platformdirs

from search.setting import Value

COLUMNS = ("path_column", "label_column", "split_column", "group_column")


def user_cache() -> Path:
    """The cache of this user on this node, where none is asked for."""
    return platformdirs.user_cache_path("finetune-search")


@dataclass(frozen=True)
class DataSettings:
    """How a data set is read; every field but `cache` is the setting of its name.

    Args:
        folders: `classes` if folders are classes, whatever they look like; else `auto`.
        path_column: the column of a table that holds the images' paths; `None`: found by its name, as the next three.
        label_column: the column that holds the label of each image; several, with commas between, for several labels
            in columns of 0 and 1, or for several numbers.
        split_column: the column that holds the split of each image.
        group_column: the column that says which images belong together, in one split.
        label_separator: stands between the labels of an image; `None`: it is found.
        task: what is predicted, a key of `TASKS`.
        cache: a folder of this node; archives are unpacked in it.
    """

    folders: str = "auto"
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    label_separator: str | None = None
    task: str = "classification"
    cache: Path = field(default_factory=user_cache)

    @classmethod
    def of(cls, settings: Mapping[str, Value], cache: Path) -> Self:
        """Those of all settings that say how a data set is read."""
        names = ("folders", "task", "label_separator", *COLUMNS)
        asked = {name: str(settings[name]) for name in names if settings[name] is not None}
        return cls(**asked, cache=cache)

    @property
    def columns(self) -> dict[str, str]:
        """Setting → column, for the columns that were asked for."""
        return {name: column for name in COLUMNS if (column := getattr(self, name)) is not None}
