"""The images that a search used, found again: those that an exported model is compared on, and calibrated by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.best import Best
from search.data import sources, store
from search.data.reading import Pixels
from search.data.scan import Progress, in_threads, silent
from search.data.settings import DataSettings, user_cache
from search.data.sources import Decoded, Unread
from search.data.splits import Dataset
from search.errors import DataError, RequestError
from search.space.settings import SETTINGS
from search.task.task import Array

DEFAULTS = {name: setting.default for name, setting in SETTINGS.items()}


@dataclass(frozen=True)
class Samples:
    """The images of a search, where they lie now.

    Args:
        source: as for `--data`.
        dataset: as the search found it.
        image_size: side in pixels.
    """

    source: str
    dataset: Dataset
    image_size: int

    def first(self) -> Pixels:
        """The first test image that can be read, (image_size, image_size, 3), uint8.

        Raises:
            RequestError: none can be read.
        """
        for images, _ in self.test(1, silent):
            pixels: Pixels = images[0]
            return pixels
        raise RequestError([f"{self.source}: none of the test images can be read"])

    def test(self, size: int, progress: Progress) -> Iterator[tuple[Pixels, Array]]:
        """The test images that can be read, `size` at a time.

        Yields:
            Images (n, image_size, image_size, 3), uint8, and labels (n, …).
        """
        labels = self.dataset.targets("test")
        batch: list[tuple[Pixels, Array]] = []
        for read, label in zip(self._read("test", slice(None), "comparing", progress), labels, strict=True):
            if not isinstance(read, Unread):
                batch.append((read.pixels, label))
            if len(batch) == size:
                yield _stacked(batch)
                batch = []
        if batch:
            yield _stacked(batch)

    def training(self, count: int, progress: Progress) -> Iterator[NDArray[np.float32]]:
        """At most `count` training images (image_size, image_size, 3) that can be read, taken evenly from all."""
        step = max(1, len(self.dataset.items["train"]) // count)
        found = self._read("train", slice(0, step * count, step), "calibrating", progress)
        return (read.pixels.astype(np.float32) for read in found if not isinstance(read, Unread))

    def _read(self, split: str, taken: slice, what: str, progress: Progress) -> Iterator[Decoded | Unread]:
        items: Sequence[tuple[str, str]] = list(
            zip(self.dataset.items[split], self.dataset.digests[split], strict=True)
        )
        read = sources.of(self.source).reader(self.source, user_cache(), self.image_size, self.dataset.greys)
        return in_threads(read, items[taken], what, progress)


def find(best: Best, given: str | None, progress: Progress) -> Samples:
    """Find the images of a search again.

    Args:
        given: where they lie now; `None`: where they lay then.

    Raises:
        RequestError: they are gone, or have changed.
    """
    settings, known = best.about["settings"], best.about["data"]
    source = given or str(settings["data"])
    hint = "say where they lie now with --data"
    if faults := store.faults(source):
        raise RequestError([f"the images of the search: {fault}; {hint}" for fault in faults])
    try:
        found = store.find(
            source,
            seed=int(best.about["seed"]),
            max_bad_files=1,
            settings=DataSettings.of({**DEFAULTS, **settings}, user_cache()),
            progress=progress,
        )
    except DataError as error:
        raise RequestError([f"{fault}; {hint}" for fault in error.faults], subject=source) from error
    if found.fingerprint != known["fingerprint"]:
        counts = "/".join(str(len(items)) for items in found.items.values())
        then = "/".join(str(count) for count in known["images"].values())
        raise RequestError(
            [
                f"{source} does not hold the images that the search used: {counts} images for training, validation and "
                f"test, then {then}; or their names, contents or classes differ. {hint[0].upper()}{hint[1:]}"
            ]
        )
    return Samples(source, found, best.image_size)


def _stacked(batch: Sequence[tuple[Pixels, Array]]) -> tuple[Pixels, Array]:
    return np.stack([pixels for pixels, _ in batch]), np.stack([label for _, label in batch])
