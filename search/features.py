"""What a trial's fit reads: the images of one split, batch by batch, from the memory-mapped arrays.

Batches are (images_BHWC, labels_B): uint8 in [0, 255], int32 in [0, classes).
"""

import math

import keras
import numpy as np
from numpy.typing import NDArray


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one split, in an order that depends on nothing but the seed and the epoch.

    So a trial that was interrupted reads on in the order it would have read.

    Args:
        images: (n, size, size, 3) uint8, read batch by batch and never whole.
        labels: (n,) int32.
        batch_size: images per batch; the last one may be smaller.
        seed: of the order; `None` keeps the order of the arrays.
        epoch: the first epoch, counted from 0.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int32],
        batch_size: int,
        seed: int | None = None,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self._images, self._labels = images, labels
        self._batch_size, self._seed, self._epoch = batch_size, seed, epoch
        self._order = self._shuffled()

    def __len__(self) -> int:
        return math.ceil(len(self._labels) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._images[rows], self._labels[rows]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.int64]:
        if self._seed is None:
            return np.arange(len(self._labels))
        return np.random.default_rng((self._seed, self._epoch)).permutation(len(self._labels))
