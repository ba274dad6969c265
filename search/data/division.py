"""Makes a dataset of the images that were found: without contradictions, and split where no splits are given."""

from collections.abc import Collection
from dataclasses import replace

from search.data import groups
from search.data.labels import bins
from search.data.scan import Found, Scan
from search.data.splits import Dataset, assign, contradictions, gather

BINS = 5  # of numbers, each of which has its share in each split
_SHARES = {"test": 0.15, "val": 0.15}  # of each class; train has the rest


def divided(source: str, found: Scan, seed: int) -> Dataset:
    """The dataset of what was found, without contradictions, and with all splits."""
    contrary = dict(contradictions(found.images))
    images = _binned([image for image in found.images if image.path not in contrary])
    dataset = gather(
        source,
        found.classes,
        _split(images, found.splits, seed),
        bad=sorted([*found.bad, *contrary.items()]),
        notes=(*found.notes, *_about_split(images, found.splits)),
        advice=found.advice,
        kind=found.kind,
    )
    wrong = groups.torn(images) if found.splits else []
    parted = [image for image in images if image.split in ("", "train")]
    wrong += [] if "val" in found.splits else groups.faults(parted, _shares(found.splits))
    return replace(dataset, faults=tuple(wrong))


def _binned(images: list[Found]) -> list[Found]:
    """The images, of which those with numbers also have a stratum, by the first number."""
    known = [image.label.numbers[0] for image in images if image.label and image.label.numbers]
    part = bins(known, BINS)
    return [
        replace(image, label=replace(image.label, names=(part[image.label.numbers[0]],)))
        if image.label and image.label.numbers
        else image
        for image in images
    ]


def _shares(given: Collection[str]) -> dict[str, float]:
    """The share of each split that is to be made; train has the rest."""
    return {split: share for split, share in _SHARES.items() if split not in given}


def _split(images: list[Found], given: Collection[str], seed: int) -> list[Found]:
    """The images with their splits.

    Args:
        given: the splits that the data set gives itself; where val is missing, it is taken from train.
    """
    if "val" in given:
        return images
    divide = groups.assign if any(image.group or image.label for image in images) else assign
    parted = divide([image for image in images if image.split in ("", "train")], seed, _shares(given))
    chosen = {image.path: image for image in parted}
    return [chosen.get(image.path, image) for image in images]


def _about_split(images: list[Found], given: Collection[str]) -> list[str]:
    """Notes on how the splits are made."""
    named = len({image.group for image in images if image.group})
    notes = [f"groups of images: {named}; all images of a group are in one split"] * bool(named)
    if "val" in given:
        return notes
    if given:
        share = f"{_SHARES['val']:.0%}"
        return [*notes, f"no images are given for val: {share} of the training images of each class are taken for it"]
    copies = len(images) - len({(image.class_name, image.digest) for image in images})
    note = f"files that are copies of others: {copies}; all copies of an image are in one split"
    return [*notes, *[note] * bool(copies)]
