"""Finds images that look nearly the same, by difference hashes: copies that were saved anew, resized or brightened.

A hash has one bit for each pair of neighbours in a row of a thumbnail of 9 x 8 greys: whether the right one is lighter
(N. Krawetz, "Kind of Like That", 2013, https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html). Hashes
that differ in 3 of 64 bits or fewer are found by sorting (Manku, Jain and Das Sarma, "Detecting Near-Duplicates for Web
Crawling", WWW 2007): of 6 blocks of bits at least 3 are equal, so that only those need to be compared for which some 3
are.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.data.reading import Pixels

Looks = NDArray[np.uint64]

SMALLEST = 32  # pixels, of the shorter side; smaller images look alike at once
NONE = 0  # the hash of an image that has none: it is small or flat
_APART = 3
_BLOCKS = (11, 11, 11, 11, 10, 10)  # bits
_STEP, _STEPS = 4, 16  # greys, and how many pairs of neighbours must differ by so many, or the image is flat


def look(pixels: Pixels) -> int:
    """The difference hash of an image, 64 bits; `NONE` if it is flat.

    Args:
        pixels: (side, side, 3), uint8.
    """
    small = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    steps = np.diff(np.asarray(small).astype(np.int16), axis=1)
    if (np.abs(steps) >= _STEP).sum() < _STEPS:
        return NONE
    return int.from_bytes(np.packbits(steps > 0).tobytes(), "big")


def alike(looks: Looks, others: Looks) -> dict[int, int]:
    """Row of `looks` → a row of `others` that looks nearly the same, for the rows that have one.

    Args:
        looks: (n,), hashes of images.
        others: (m,), the same of the images they are compared with.
    """
    ours, first = np.unique(looks, return_inverse=True)
    theirs, row = np.unique(others, return_index=True)
    ours_known, theirs_known = ours[ours != NONE], theirs[theirs != NONE]
    row = row[theirs != NONE]
    partner = np.full(len(ours_known), -1)
    for mask in _masks():
        left = np.flatnonzero(partner < 0)
        order = np.argsort(theirs_known & mask, kind="stable")
        keys = (theirs_known & mask)[order]
        asked = ours_known[left] & mask
        start, end = np.searchsorted(keys, asked, "left"), np.searchsorted(keys, asked, "right")
        for step in range(int((end - start).max(initial=0))):
            some = np.flatnonzero((start + step < end) & (partner[left] < 0))
            found = order[start[some] + step]
            near = np.bitwise_count(ours_known[left[some]] ^ theirs_known[found]) <= _APART
            partner[left[some[near]]] = found[near]
    of = dict(zip(ours_known.tolist(), partner.tolist(), strict=True))
    return {
        index: int(row[match])
        for index, place in enumerate(first.tolist())
        if (match := of.get(int(ours[place]), -1)) >= 0
    }


def _masks() -> list[np.uint64]:
    """The bits of each 3 of the 6 blocks."""
    ends = np.cumsum(_BLOCKS).tolist()
    blocks = [((1 << width) - 1) << (end - width) for width, end in zip(_BLOCKS, ends, strict=True)]
    return [np.uint64(sum(some)) for some in combinations(blocks, len(blocks) - _APART)]
