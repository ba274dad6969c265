"""Three disjoint splits of the images that were found, and the rules a dataset must keep."""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from search.errors import DataError
from search.scan import LAYOUTS, SPLITS, Found

_MOST_HELD_OUT_FIRST = ("test", "val", "train")
_LISTED = 20


@dataclass(frozen=True)
class Dataset:
    """What was found: plain and picklable. The mappings go from a split to one value per image."""

    source: str  # the folder's absolute path, or the built-in name
    classes: tuple[str, ...]
    items: Mapping[str, tuple[str, ...]]  # paths relative to the folder (posix); in a built-in set the index
    labels: Mapping[str, tuple[int, ...]]  # index into classes
    skipped: tuple[tuple[str, str], ...]  # (relative path, reason)
    notes: tuple[str, ...]  # what else was left out, such as empty classes
    fingerprint: str  # SHA-256 in hex over names, contents, labels and split
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # SHA-256 in hex of each content


def assign(images: Sequence[Found], seed: int, shares: Mapping[str, float]) -> list[Found]:
    """Give every image a split, class by class: test and val their rounded shares but at least one, train the rest."""
    members = defaultdict(list)
    for index, image in enumerate(images):
        members[image.class_name].append(index)
    generator = np.random.default_rng(seed)
    chosen = ["train"] * len(images)
    for _, indices in sorted(members.items()):
        order = iter(generator.permutation(indices))
        for split, share in shares.items():
            for index in islice(order, max(1, round(share * len(indices)))):
                chosen[index] = split
    return [replace(image, split=split) for image, split in zip(images, chosen, strict=True)]


def gather(
    source: str, classes: Sequence[str], images: Sequence[Found], bad: Sequence[tuple[str, str]], notes: Sequence[str]
) -> Dataset:
    """The dataset of images that each have a split; copies of a more held-out split's images are skipped."""
    numbers = {name: number for number, name in enumerate(classes)}
    parts = {split: [image for image in images if image.split == split] for split in SPLITS}
    dataset = Dataset(
        source=source,
        classes=tuple(classes),
        items={split: tuple(image.path for image in part) for split, part in parts.items()},
        labels={split: tuple(numbers[image.class_name] for image in part) for split, part in parts.items()},
        skipped=tuple(bad),
        notes=tuple(notes),
        fingerprint="",
        digests={split: tuple(image.digest for image in part) for split, part in parts.items()},
    )
    dataset = without(dataset, _copies(dataset))
    content = json.dumps([dataset.classes, dataset.items, dataset.labels, dataset.digests])
    return replace(dataset, fingerprint=hashlib.sha256(content.encode()).hexdigest())


def _copies(dataset: Dataset) -> list[tuple[str, str]]:
    """The images that are also in a more held-out split, which would make its figures too good; with the reason."""
    first: dict[str, tuple[str, str]] = {}
    copies = []
    for split in _MOST_HELD_OUT_FIRST:
        for item, digest in zip(dataset.items[split], dataset.digests[split], strict=True):
            kept_in, kept = first.setdefault(digest, (split, item))
            if kept_in != split:
                copies.append((item, f"a copy of {kept}, which is in {kept_in}"))
    return copies


def without(dataset: Dataset, bad: Iterable[tuple[str, str]]) -> Dataset:
    """The dataset with those of its images skipped; the fingerprint stays, for it tells what was asked."""
    reasons = dict(bad)
    kept = {split: [row for row, item in enumerate(dataset.items[split]) if item not in reasons] for split in SPLITS}
    skipped = [(item, reasons[item]) for split in SPLITS for item in dataset.items[split] if item in reasons]
    return replace(
        dataset,
        items={split: tuple(dataset.items[split][row] for row in rows) for split, rows in kept.items()},
        labels={split: tuple(dataset.labels[split][row] for row in rows) for split, rows in kept.items()},
        digests={split: tuple(dataset.digests[split][row] for row in rows) for split, rows in kept.items()},
        skipped=tuple(sorted([*dataset.skipped, *skipped])),
    )


def demand_usable(dataset: Dataset, max_bad_files: float) -> None:
    """Check that few enough files are bad, and that what remains are two classes or more, each in every split.

    Args:
        dataset: all that was found.
        max_bad_files: share in [0, 1] of the image files that may be skipped, rounded up to whole files.

    Raises:
        DataError: names every fault, and the bad files where these are the fault.
    """
    usable, bad = sum(map(len, dataset.items.values())), len(dataset.skipped)
    allowed = math.ceil(round(max_bad_files * (usable + bad), 9))
    listed = listing(dataset.skipped)
    faults = []
    if not usable + bad:
        notes = f" ({'; '.join(dataset.notes)})" if dataset.notes else ""
        faults = [f"no images in it; expected {LAYOUTS}{notes}"]
    elif not usable:
        faults = [f"none of its image files can be used, {bad} in all:{listed}"]
    else:
        if bad > allowed:
            enough = math.ceil(100 * bad / (usable + bad)) / 100
            limit = f"max_bad_files={max_bad_files:g} allows {allowed}"
            advice = f"remove them, or allow them with --set max_bad_files={enough:g}"
            faults += [f"{bad} of its {usable + bad} image files cannot be used, {limit}; {advice}:{listed}"]
        if len(dataset.classes) < 2:
            faults += [f"only one class, '{dataset.classes[0]}', holds usable images; at least two are needed"]
        faults += _gaps(dataset)
    if faults:
        raise DataError(faults, subject=dataset.source)


def _gaps(dataset: Dataset) -> list[str]:
    """A fault for every class that has no image in some split."""
    counts = {split: Counter(dataset.labels[split]) for split in SPLITS}
    faults = []
    for number, name in enumerate(dataset.classes):
        missing = [split for split in SPLITS if not counts[split][number]]
        if missing:
            total = sum(counts[split][number] for split in SPLITS)
            rule = f"each of {', '.join(SPLITS)} needs at least one of every class"
            none = f"{total} in all, none in {' and '.join(missing)}"
            faults.append(f"class '{name}' has too few images for a split: {none}; {rule}")
    return faults


def listing(bad: Sequence[tuple[str, str]]) -> str:
    """The first of the bad files with their reasons, each on a line of its own, and how many more there are."""
    lines = [f"{path}: {reason}" for path, reason in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"and {len(bad) - _LISTED} more")
    return "".join(f"\n    {line}" for line in lines)
