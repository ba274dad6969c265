"""Divides images into splits group by group: the images of one patient, scene or film stay together.

Greedy, after two ideas: the rarest class is dealt out first (Sechidis, Tsoumakas and Vlahavas, "On the Stratification
of Multi-Label Data", ECML PKDD 2011), and then the largest groups first, each to where the classes come nearest to
their shares (scikit-learn's `StratifiedGroupKFold`, for folds of equal size).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from search.data.folders import SPLITS, printable
from search.data.scan import Found

_LISTED = 8
ANY = ""  # of the parts of a range of numbers


@dataclass(frozen=True)
class Unit:
    """Images that must stay together: those of one group, and of all groups that have copies of the same image.

    Args:
        names: the groups, sorted; none for an image without a group.
        rows: the images, as indices.
        classes: class → how many of the images are of it.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    classes: Mapping[str, int]

    @property
    def told(self) -> str:
        """The groups' names and how many images they have, for people."""
        more = f" and {len(self.names) - _LISTED} more" if len(self.names) > _LISTED else ""
        named = f"'{printable(', '.join(self.names[:_LISTED]))}'{more}" if self.names else "one without a group"
        return f"{named} ({len(self.rows)})"


def assign(images: Sequence[Found], seed: int, shares: Mapping[str, float]) -> list[Found]:
    """Give every unit of images a split, so that each class has about its share in each split.

    First each split gets a unit of every class, where there are enough: the class with the fewest units first, and of
    its units the one that fits best. Where classes are parts of a range of numbers, each split gets one unit. Then the
    others, the largest first, each go to the split where the sum over its classes of (images - wanted)² / wanted grows
    least.

    Args:
        images: with or without a group.
        seed: determines the order of units of equal size.
        shares: of all splits but train, which has the rest; in (0, 1).
    """
    found = _shuffled(units(images), seed)
    totals = Counter(name for image in images for name in image.strata)
    wanted = {**shares, "train": 1 - sum(shares.values())}
    have: dict[str, Counter[str]] = {split: Counter() for split in wanted}
    left, chosen = dict(enumerate(found)), dict[int, str]()

    def growth(split: str, unit: Unit) -> float:
        aims = {name: wanted[split] * totals[name] for name in unit.classes}
        return sum(n * (n + 2 * (have[split][name] - aims[name])) / aims[name] for name, n in unit.classes.items())

    def put(number: int, split: str) -> None:
        have[split].update(left[number].classes)
        chosen.update(dict.fromkeys(left.pop(number).rows, split))

    holding = defaultdict[str, list[int]](list)
    for number, unit in enumerate(found):
        for name in [ANY] if _of_numbers(images) else unit.classes:
            holding[name].append(number)
    for name in sorted(holding, key=lambda one: (len(holding[one]), one)):
        for split in wanted:
            fitting = [number for number in holding[name] if number in left]
            if fitting and not (have[split].total() if name == ANY else have[split][name]):
                put(min(fitting, key=lambda number: growth(split, found[number])), split)
    for number in sorted(left, key=lambda number: -len(found[number].rows)):
        put(number, min(wanted, key=lambda split: growth(split, found[number])))
    return [replace(image, split=chosen[row]) for row, image in enumerate(images)]


def faults(images: Sequence[Found], shares: Mapping[str, float]) -> list[str]:
    """Why these images cannot be divided by their groups: one is larger than train, or a class has too few of them."""
    if not any(image.group for image in images):
        return []
    found, most = units(images), 1 - sum(shares.values())
    large = [unit for unit in found if unit.names and len(unit.rows) > most * len(images)]
    said = [
        f"the group {unit.told[:-1]} of {len(images)} images) is larger than any split, of which train has {most:.0%}: "
        "divide it, or do without groups"
        for unit in large
    ]
    held = defaultdict[str, list[Unit]](list)
    for unit in [] if _of_numbers(images) else found:
        for name in unit.classes:
            held[name].append(unit)
    for name, inside in sorted(held.items()):
        if any(unit.names for unit in inside) and len(inside) <= len(shares):
            told = ", ".join(unit.told for unit in inside)
            said.append(
                f"the images of class '{printable(name)}' are in {len(inside)} groups alone, and {len(shares) + 1} "
                f"splits need one each: {told}"
            )
    return said


def _of_numbers(images: Sequence[Found]) -> bool:
    """Whether the classes are parts of a range of numbers, of which no split must have each."""
    return any(image.label and image.label.numbers for image in images)


def torn(images: Iterable[Found]) -> list[str]:
    """A fault if the splits that are given tear groups apart; it names the groups."""
    splits = defaultdict[str, Counter[str]](Counter)
    for image in images:
        if image.group:
            splits[image.group][image.split] += 1
    apart = {group: held for group, held in sorted(splits.items()) if len(held) > 1}
    if not apart:
        return []
    told = [
        f"'{printable(group)}' ({', '.join(f'{split} {held[split]}' for split in SPLITS if held[split])})"
        for group, held in list(apart.items())[:_LISTED]
    ]
    more = f" and {len(apart) - _LISTED} more" if len(apart) > _LISTED else ""
    advice = "give each group one split, or leave the splits out to have them made"
    return [f"groups whose images are in more than one split: {', '.join(told)}{more}; {advice}"]


def units(images: Sequence[Found]) -> list[Unit]:
    """The images that must stay together, in the order of their first images."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for image in images:
        if image.group:
            parent[root(("digest", image.digest))] = root(("group", image.group))
    members = defaultdict[tuple[str, str], list[int]](list)
    for row, image in enumerate(images):
        members[root(("digest", image.digest))].append(row)
    return [
        Unit(
            tuple(sorted({images[row].group for row in rows} - {""})),
            tuple(rows),
            Counter(name for row in rows for name in images[row].strata),
        )
        for rows in members.values()
    ]


def _shuffled(found: Sequence[Unit], seed: int) -> list[Unit]:
    return [found[number] for number in np.random.default_rng(seed).permutation(len(found))]
