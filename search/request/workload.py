"""What the trials of a search work on; it is known once the backbone and the images are known."""

from collections.abc import Mapping
from dataclasses import dataclass

from search.data.store import Dataset
from search.features import Place


@dataclass(frozen=True)
class Workload:
    """What the trials of a search work on.

    Args:
        place: the images, and where their features are stored.
        cuts: the cuts at which features are kept.
        limit: bytes that all features of a node may take.
        trained: unfreeze depth → how many parameters a trial trains.
    """

    place: Place
    cuts: tuple[int, ...]
    limit: int
    trained: Mapping[int, int]

    @property
    def images(self) -> Dataset:
        """The dataset."""
        return self.place.dataset
