"""Divides the images into three disjoint splits, and checks the rules that a dataset must fulfil."""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import PurePath
from typing import Any

import numpy as np

from search.data.folders import LAYOUTS, SPLITS, printable
from search.data.labels import Label
from search.data.reading import ALL_GREYS, Greys, Header, together
from search.data.scan import Found
from search.errors import DataError
from search.task.task import Array, Target
from search.task.tasks import TASKS

_MOST_HELD_OUT_FIRST = ("test", "val", "train")
_LISTED, _KINDS = 20, 8
FEW_GREYS = 0.1


@dataclass(frozen=True)
class Dataset:
    """The images that were found, as plain, picklable data. Most mappings go from a split to one value per image."""

    source: str  # the folder's absolute path, or the built-in name
    classes: tuple[str, ...]  # the names of the outputs: classes, labels or numbers
    items: Mapping[str, tuple[str, ...]]  # paths relative to the folder (posix); in a built-in set the index
    labels: Mapping[str, tuple[Any, ...]]  # index into classes; or indices, of several labels; or numbers
    skipped: tuple[tuple[str, str], ...]  # (relative path, reason)
    notes: tuple[str, ...]  # what else was left out, such as empty classes
    fingerprint: str  # SHA-256 in hex over names, contents, labels, split, and how images are read
    digests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # SHA-256 in hex of each content
    greys: Greys = ALL_GREYS  # the range by which images with more than 8 bits of grey are scaled
    advice: tuple[str, ...] = ()  # what to do if the dataset cannot be used, one line each
    kind: str = "classification"  # of the task, a key of `TASKS`
    faults: tuple[str, ...] = ()  # why it cannot be used, whichever of its images are read
    scanned: str = ""  # the fingerprint before near-duplicates were left out; empty: none were

    @property
    def target(self) -> Target:
        """What is predicted of each image."""
        task = TASKS[self.kind]
        if not task.scaled:
            return Target(task, len(self.classes))
        known = np.array(self.labels["train"], float)
        spread = known.std(axis=0)
        return Target(task, len(self.classes), tuple(known.mean(axis=0)), tuple(np.where(spread > 0, spread, 1.0)))

    @property
    def counts(self) -> dict[str, int]:
        """Class or label → how many images it has in all splits; none where labels are numbers."""
        return self.counted(*SPLITS)

    def counted(self, *splits: str) -> dict[str, int]:
        """The same of some splits."""
        task = TASKS[self.kind]
        if task.scaled:
            return {}
        every = [label for split in splits for label in self.labels[split]]
        found = Counter(one for label in every for one in label) if task.vector else Counter(every)
        return {name: found[number] for number, name in enumerate(self.classes)}

    def targets(self, split: str) -> Array:
        """The labels of a split's images: (n,), the index of the class; (n, labels), 0 or 1; or (n, numbers)."""
        task, labels = TASKS[self.kind], self.labels[split]
        if not task.vector or task.scaled:
            return np.asarray(labels, task.label_dtype).reshape(len(labels), *([len(self.classes)] * task.vector))
        found = np.zeros((len(labels), len(self.classes)), task.label_dtype)
        for row, label in enumerate(labels):
            found[row, list(label)] = 1
        return found


def assign(images: Sequence[Found], seed: int, shares: Mapping[str, float]) -> list[Found]:
    """Give every image a split, class by class: each split of `shares` gets its rounded share, but at least one image.

    The other images go to train. Shares count different images: all copies of an image go to the same split.
    """
    members: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, image in enumerate(images):
        members[image.class_name][image.digest].append(index)
    generator = np.random.default_rng(seed)
    chosen = ["train"] * len(images)
    for _, copies in sorted(members.items()):
        groups = {indices[0]: indices for indices in copies.values()}
        order = iter(generator.permutation(list(groups)))
        for split, share in shares.items():
            for first in islice(order, max(1, round(share * len(groups)))):
                for index in groups[first]:
                    chosen[index] = split
    return [replace(image, split=split) for image, split in zip(images, chosen, strict=True)]


def contradictions(images: Iterable[Found]) -> list[tuple[str, str]]:
    """The images that are also in another class, with the reason: it is unknown which class is right."""
    same: defaultdict[str, list[Found]] = defaultdict(list)
    for image in images:
        same[image.digest].append(image)
    found = []
    for copies in same.values():
        first = {image.class_name: image.path for image in reversed(copies)}
        if len(first) > 1:
            for image in copies:
                name, path = next((name, path) for name, path in sorted(first.items()) if name != image.class_name)
                reason = f"a contradiction: the same image as {path}, of class '{name}'"
                found.append((image.path, printable(reason)))
    return sorted(found)


def gather(
    source: str,
    classes: Sequence[str],
    images: Sequence[Found],
    *,
    bad: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    advice: Sequence[str] = (),
    kind: str = "classification",
) -> Dataset:
    """Build the dataset from images that have a split; copies of images in a more held-out split are skipped.

    The range of greys comes only from the training images: no information of val and test images may reach training.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    parts = {split: [image for image in images if image.split == split] for split in SPLITS}
    dataset = Dataset(
        source=source,
        classes=tuple(classes),
        items={split: tuple(image.path for image in part) for split, part in parts.items()},
        labels={split: tuple(_label(image, kind, numbers) for image in part) for split, part in parts.items()},
        skipped=tuple(bad),
        notes=tuple(map(printable, notes)),
        fingerprint="",
        digests={split: tuple(image.digest for image in part) for split, part in parts.items()},
        advice=tuple(map(printable, advice)),
        kind=kind,
    )
    dataset = without(dataset, _copies(dataset))
    kept = set(dataset.items["train"])
    training = [image.header for image in parts["train"] if image.path in kept]
    dataset = replace(dataset, greys=together(header.greys for header in training))
    turned = [image.path for image in images if image.header.turned]
    deep = sum(image.header.greys is not None for image in images)
    content: list[object] = [dataset.classes, dataset.items, dataset.labels, dataset.digests]
    content += [turned] * bool(turned) + [dataset.greys] * bool(deep)  # nothing where images are read unchanged
    scaled = _about_greys(dataset.greys, deep, training) if deep else []
    return replace(
        dataset,
        notes=(*dataset.notes, *scaled),
        fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    )


def _label(image: Found, kind: str, numbers: Mapping[str, int]) -> Any:
    """As `Dataset.labels` has it."""
    if not TASKS[kind].vector:
        return numbers[image.class_name]
    label = image.label or Label("")
    return label.numbers if TASKS[kind].scaled else tuple(numbers[name] for name in label.names)


def _about_greys(greys: Greys, deep: int, training: Sequence[Header]) -> list[str]:
    """Notes on images with more than 8 bits of grey: how they are scaled, and why few greys may be left.

    Args:
        greys: the range by which they are scaled.
        deep: how many such images there are.
        training: the headers of all training images.
    """
    black, white = greys
    notes = [f"images with more than 8 bits of grey: {deep}; {black:g} becomes 0, {white:g} becomes 255"]
    bulk = together(header.bulk for header in training)
    if bulk.white - bulk.black < FEW_GREYS * (white - black):
        notes.append(
            f"but nearly all of their values lie between {bulk.black:g} and {bulk.white:g}, and share few greys: "
            "look for the few values outside, and mend or remove their images"
        )
    if len({header.fractions for header in training if header.greys}) > 1:
        notes.append("but some hold whole numbers and some fractions, and share one range: convert them to one kind")
    return notes


def _copies(dataset: Dataset) -> list[tuple[str, str]]:
    """The images that are also in a more held-out split, with the reason; they would make its metrics too good."""
    first: dict[str, tuple[str, str]] = {}
    copies = []
    for split in _MOST_HELD_OUT_FIRST:
        for item, digest in zip(dataset.items[split], dataset.digests[split], strict=True):
            kept_in, kept = first.setdefault(digest, (split, item))
            if kept_in != split:
                copies.append((item, f"a copy of {kept}, which is in {kept_in}"))
    return copies


def without(dataset: Dataset, bad: Iterable[tuple[str, str]]) -> Dataset:
    """The dataset with the bad images skipped; the fingerprint stays, because it identifies the data before decoding.

    Args:
        bad: the images to skip, as (relative path, reason).
    """
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
    """Check that few enough files are bad, and that at least two classes remain, each in every split.

    Args:
        dataset: as `find` or `decode` of `store` built it.
        max_bad_files: share in [0, 1] of the image files that may be skipped, rounded up to whole files.

    Raises:
        DataError: names every fault, and the bad files if they are the fault.
    """
    usable, bad = sum(map(len, dataset.items.values())), len(dataset.skipped)
    allowed = math.ceil(round(max_bad_files * (usable + bad), 9))
    faults = []
    if not usable + bad:
        notes = f" ({'; '.join(dataset.notes)})" if dataset.notes else ""
        faults = [f"no images in it; expected {LAYOUTS}{notes}"]
    elif not usable:
        faults = [f"none of its image files can be used, {bad} in all:{listing(dataset.skipped)}"]
    else:
        if bad > allowed:
            enough = math.ceil(100 * bad / (usable + bad)) / 100
            limit = f"max_bad_files={max_bad_files:g} allows {allowed}"
            advice = f"remove them, or allow them with --set max_bad_files={enough:g}"
            listed = listing(dataset.skipped)
            faults += [f"{bad} of its {usable + bad} image files cannot be used, {limit}; {advice}:{listed}"]
        faults += _too_few(dataset)
        gaps = _gaps(dataset)
        told = f"\n  skipped:{listing(dataset.skipped)}" if gaps and 0 < bad <= allowed else ""
        faults += [*gaps[:-1], *(gap + told for gap in gaps[-1:])]
    faults += map(printable, dataset.faults)
    if faults:
        faults[-1] += "".join(f"\n    {line}" for line in dataset.advice)
        raise DataError(faults, subject=dataset.source)


def _too_few(dataset: Dataset) -> list[str]:
    """Faults if there is nothing to tell apart."""
    task, names = TASKS[dataset.kind], dataset.classes
    if task.scaled:
        empty = [split for split in SPLITS if not dataset.items[split]]
        same = [
            f"all numbers of '{printable(name)}' in {split} are the same; there is nothing to learn, or to compare by"
            for place, name in enumerate(names)
            for split in SPLITS
            if split not in empty and len({label[place] for label in dataset.labels[split]}) < 2
        ]
        return [f"no image is in {split}; each of {', '.join(SPLITS)} needs some" for split in empty] + same
    used = [name for name, count in dataset.counts.items() if count]
    if task.vector:
        return [] if used else ["no image has a label; at least one is needed"]
    if len(used) < 2:
        return [f"only one class, '{printable(used[0])}', holds usable images; at least two are needed"]
    return []


def _gaps(dataset: Dataset) -> list[str]:
    """A fault for every class that has no image in some split; after the first 20, only how many more there are."""
    task = TASKS[dataset.kind]
    if task.scaled:
        return []
    held: defaultdict[int, dict[str, str]] = defaultdict(dict)  # class → digest → split
    for split in SPLITS:
        for label, digest in zip(dataset.labels[split], dataset.digests[split], strict=True):
            for one in label if task.vector else (label,):
                held[one][digest] = split
    rule = f"each of {', '.join(SPLITS)} needs at least one of every {task.singular}"
    faults, counts = [], dataset.counts
    for number, name in enumerate(dataset.classes):
        if missing := [split for split in SPLITS if split not in held[number].values()]:
            different, total = len(held[number]), counts[name]
            counted = f"{total} in all" + (f", {different} without copies" if different < total else "")
            none = f"{counted}, none in {' and '.join(missing)}"
            faults.append(f"{task.singular} '{printable(name)}' has too few images for a split: {none}; {rule}")
    more = len(faults) - _LISTED
    return faults if more <= 0 else [*faults[:_LISTED], f"{more} more {task.outputs} have too few images for a split"]


def listing(bad: Sequence[tuple[str, str]]) -> str:
    """The first bad files with their reasons, one per line, and how many more there are by folder and ending."""
    lines = [f"{path}: {reason}" for path, reason in bad[:_LISTED]]
    if rest := bad[_LISTED:]:
        kinds = Counter(f"{PurePath(path).parent}/*{PurePath(path).suffix}" for path, _ in rest).most_common(_KINDS)
        lines.append(f"and {len(rest)} more: {', '.join(f'{count} {kind}' for kind, count in kinds)}")
    return "".join(f"\n    {line}" for line in lines)
