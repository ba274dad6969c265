"""What is done about images that look nearly the same as images of a split that is more held out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from search.data.duplicates import Looks, alike
from search.data.folders import printable
from search.data.splits import Dataset

_MORE_HELD_OUT = {"train": ("test", "val"), "val": ("test",)}


def about_near(dataset: Dataset, looks: Mapping[str, Looks]) -> list[str]:
    """A note on the images of train and val that look nearly as an image of a more held-out split does.

    Args:
        looks: split → the difference hashes of its images, (n,).
    """
    found = {split: _pairs(dataset, looks, split) for split in _MORE_HELD_OUT}
    counted = " and ".join(f"{len(pairs)} of {split}" for split, pairs in found.items() if pairs)
    if not counted:
        return []
    (item, other), *_ = [pair for pairs in found.values() for pair in pairs.items()]
    advice = "; --set near_duplicates=skip leaves those of train out" if found["train"] else ""
    return [
        f"images that look nearly the same as one of a more held-out split: {counted}, {_pair(item, other)}{advice}"
    ]


def apart(dataset: Dataset, looks: Mapping[str, Looks]) -> Dataset:
    """The dataset without the training images that look nearly as a validation or test image does.

    If there are any, it is another dataset, with a fingerprint of its own.

    Args:
        looks: as for `about_near`.
    """
    pairs = _pairs(dataset, looks, "train")
    if not pairs:
        return dataset
    kept = [row for row, item in enumerate(dataset.items["train"]) if item not in pairs]
    (item, other), *_ = pairs.items()
    note = f"training images left out because they look nearly the same as one of val or test: {len(pairs)}"
    content = [dataset.fingerprint, sorted(pairs)]
    return replace(
        dataset,
        items={**dataset.items, "train": tuple(dataset.items["train"][row] for row in kept)},
        labels={**dataset.labels, "train": tuple(dataset.labels["train"][row] for row in kept)},
        digests={**dataset.digests, "train": tuple(dataset.digests["train"][row] for row in kept)},
        notes=(*dataset.notes, f"{note}, {_pair(item, other)}"),
        fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        scanned=dataset.fingerprint,
    )


def _pairs(dataset: Dataset, looks: Mapping[str, Looks], split: str) -> dict[str, str]:
    """Image of a split → an image of a more held-out split that looks nearly the same."""
    others = _MORE_HELD_OUT[split]
    names = [item for other in others for item in dataset.items[other]]
    found = alike(looks[split], np.concatenate([looks[other] for other in others]))
    return {dataset.items[split][row]: names[match] for row, match in found.items()}


def _pair(item: str, other: str) -> str:
    return f"such as {printable(item)} and {printable(other)}"
