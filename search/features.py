"""The frozen prefix's outputs, computed once per dataset and backbone and shared by every trial on the node.

Cuts are counted from the images: `c` blocks come before cut `c`, so a trial of unfreeze depth `d` starts at cut
`blocks - d`. One pass over the images writes the features at several cuts. A trial starts from its own cut if that is
kept, else from the nearest kept cut before it, and runs the frozen blocks between the two itself. Cut 0 is the images.
At the last cut the pooled features are kept, because a head needs no feature map.

The idea is that of Nautilus (Nakandala and Kumar 2022, https://doi.org/10.1145/3514221.3517846): the output of frozen
layers is a view over the data, and is stored where reading it costs less than computing it again.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock

from search import cache
from search.backbone import backbones
from search.backbone.backbones import Backbone
from search.cache import Array, Rows
from search.data import augmentation, store
from search.data.store import Dataset

IMAGES = 0
WHAT = "computing features"
BATCH = 32
# Multiplications that each byte read must save: about as many as the device computes while it reads one byte.
WORTH = {"cpu": 30, "gpu": 2500}

Read = Callable[[Any], Array]  # from row indices to the values of these rows


@dataclass(frozen=True)
class Place:
    """Identifies features: everything that determines their values, and the node's cache that holds them.

    Args:
        identity: of the backbone, as `backbones.describe` returns it.
        shapes: of one image's features at cut 1, 2, …
        precision: a Keras dtype policy.
        views: how many views each training image has; view 0 is the image itself.
        seed: of the other views.
    """

    cache: Path
    dataset: Dataset
    image_size: int
    identity: str
    shapes: tuple[tuple[int, ...], ...]
    precision: str = "float32"
    views: int = 1
    seed: int = 0

    @property
    def root(self) -> Path:
        """The folder of all features of this node."""
        return self.cache / "features"

    @property
    def folder(self) -> Path:
        """The folder of this dataset's and this backbone's features."""
        return self.root / hashlib.sha256(json.dumps(self._about).encode()).hexdigest()[:32]

    @property
    def _about(self) -> dict[str, Any]:
        return {
            "data": self.dataset.fingerprint,
            "skipped": [path for path, _ in self.dataset.skipped],
            "made with": f"pillow {PIL.__version__}, numpy {np.__version__}",
            "image_size": self.image_size,
            "backbone": self.identity,
            "precision": self.precision,
        }

    @property
    def labels(self) -> dict[str, Array]:
        """Split → the labels of its images, (n, …), see `Dataset.targets`."""
        return {split: self.dataset.targets(split) for split in self.dataset.labels}

    @contextlib.contextmanager
    def locked(self, name: str = "pass") -> Iterator[None]:
        """Only one process of the node enters at a time; the others wait. If no lock can be written, none waits."""
        lock = FileLock(self.folder / f"{name}.lock")
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def arrays(self, cut: int) -> dict[Path, tuple[str, int]]:
        """The files of one cut, each with its split and view."""
        parts = [("train", view) for view in range(self.views)] + [("val", 0)]
        names = {part: f"cut{cut}-{part[0]}-view{part[1]}" + (f"-seed{self.seed}" if part[1] else "") for part in parts}
        return {self.folder / f"{name}.npy": part for part, name in names.items()}

    def shape(self, cut: int, split: str) -> tuple[int, ...]:
        """The shape of one split's array at a cut: (images, …)."""
        return (len(self.dataset.items[split]), *self.shapes[cut - 1])

    def dtype(self, cut: int) -> str:
        """Half precision if the network computes in it; the pooled features at the last cut stay float32."""
        return "float16" if self.precision == "mixed_float16" and cut < len(self.shapes) else "float32"

    def bytes(self, cut: int) -> int:
        """The bytes that the arrays of one cut take on disk."""
        values = sum(math.prod(self.shape(cut, split)) for split, _ in self.arrays(cut).values())
        return values * np.dtype(self.dtype(cut)).itemsize

    def named(self, cut: int) -> str:
        """A name for the values at one cut; cut 0 is the images."""
        return f"{self.folder.name} cut {cut}, {self.views} views, seed {self.seed}"

    def opened(self, cut: int) -> list[Rows] | None:
        """The arrays of one cut: each view of `train`, then `val`; `None` if any is missing."""
        found = []
        for path, (split, _) in self.arrays(cut).items():
            rows = cache.opened(path, self.shape(cut, split), self.dtype(cut))
            if rows is None:
                return None
            found.append(rows)
        return found


def worthwhile(
    place: Place, wanted: Sequence[int], multiplications: Sequence[int], device: str, limit: int
) -> list[int]:
    """Choose the cuts to keep.

    Args:
        wanted: the cuts at which trials may start.
        multiplications: of each block, for one image.
        device: `cpu` or `gpu`.
        limit: bytes that all kept cuts may take.

    Returns:
        The cuts whose features cost less to read than to compute from the kept cut before them. If these exceed the
        limit, the cuts that save the fewest multiplications per byte, counted from the images, are dropped.
    """

    def saved(cut: int, below: int) -> float:
        """Multiplications saved per byte read."""
        size = math.prod(place.shapes[cut - 1]) * np.dtype(place.dtype(cut)).itemsize
        return sum(multiplications[below:cut]) / size

    kept: list[int] = []
    for cut in sorted(set(wanted) - {IMAGES}):
        if saved(cut, kept[-1] if kept else IMAGES) >= WORTH[device]:
            kept.append(cut)
    while sum(map(place.bytes, kept)) > limit:
        kept.remove(min(kept, key=lambda cut: saved(cut, IMAGES)))
    return kept


def missing(place: Place, cuts: Sequence[int]) -> dict[Path, tuple[int, str, int]]:
    """The arrays that are missing in the cache, each with its cut, split and view."""
    return {
        path: (cut, split, view)
        for cut in cuts
        for path, (split, view) in place.arrays(cut).items()
        if cache.opened(path, place.shape(cut, split), place.dtype(cut)) is None
    }


def fill(place: Place, cuts: Sequence[int], backbone: Backbone, limit: int, progress: store.Progress) -> None:
    """Compute the missing features at the given cuts. If another process of the node computes them, wait for it.

    Args:
        limit: bytes that all features of the node may take; the least recently used ones are removed to make room.
        progress: called from time to time with the number of images done and the total.

    Raises:
        OSError: the cache cannot be written, or the disk is full. No incomplete file is left.
    """
    if not missing(place, cuts):
        return
    with place.locked():
        for left_behind in place.folder.glob("*.new"):
            left_behind.unlink()
        lacking = missing(place, cuts)
        needed = sum(map(place.bytes, {cut for cut, _, _ in lacking.values()}))
        wanted = {path for cut in cuts for path in place.arrays(cut)}
        cache.make_room(place.root, needed, limit, wanted)
        (place.folder / "about.txt").write_text(json.dumps(place._about, indent=1), "utf-8")
        parts = sorted({(split, view) for _, split, view in lacking.values()})
        total = sum(len(place.dataset.items[split]) for split, _ in parts)
        progress(WHAT, done := 0, total)
        for part in parts:
            paths = {path: cut for path, (cut, *of) in lacking.items() if tuple(of) == part}
            _pass(place, backbone, part, paths, lambda count, before=done: progress(WHAT, before + count, total))  # type: ignore[misc]
            done += len(place.dataset.items[part[0]])


def _pass(
    place: Place, backbone: Backbone, part: tuple[str, int], paths: Mapping[Path, int], tell: Callable[[int], None]
) -> None:
    """Run one view of a split's images through the network, and write the features at several cuts."""
    split, view = part
    cuts = list(paths.values())
    network, read = backbones.prefix(backbone, cuts), images(place, split, view)
    shapes, dtypes = [place.shape(cut, split) for cut in cuts], [place.dtype(cut) for cut in cuts]
    count = len(place.dataset.items[split])
    with cache.writers(list(paths), shapes, dtypes) as writers:
        for start in range(0, count, BATCH):
            rows = np.arange(start, start + BATCH) % count  # a smaller last batch would force a new trace
            end = min(start + BATCH, count)
            found = network.predict_on_batch(read(rows))
            for writer, values in zip(writers, found if len(cuts) > 1 else [found], strict=True):  # Keras unpacks one
                writer.write(np.asarray(values[: end - start]))
            tell(end)


def images(place: Place, split: str, view: int) -> Read:
    """A reader for one view of a split's images; it returns uint8 (rows, size, size, 3)."""
    array, _ = store.load(place.dataset, split, place.image_size, place.cache)
    pixels, digests = Rows(array), place.dataset.digests[split]
    if not view:
        return pixels.__getitem__
    return lambda rows: augmentation.view(pixels[rows], [digests[row] for row in rows], view, place.seed)


@dataclass(frozen=True)
class Start:
    """Where a trial starts: a kept cut, and its features.

    Args:
        name: identifies everything that determines the values.
        cut: the trial's own cut, or one before it.
        train: a reader for each view.
        val: the reader of the validation images.
        shape: of one image's values.
        dtype: of these values.
        nbytes: size of all arrays together.
    """

    name: str
    cut: int
    train: tuple[Read, ...]
    val: Read
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


def nearest(place: Place, cut: int) -> Start:
    """The start at `cut` if it is kept, else at the nearest kept cut before it, else at the images.

    Raises:
        DataError, StorageError: no cut is kept, and the images cannot be read either.
    """
    if cut != IMAGES and not place.opened(cut):
        with place.locked():  # another process may be computing it: wait for that
            pass
    for kept in range(cut, IMAGES, -1):
        if rows := place.opened(kept):
            readers = [array.__getitem__ for array in rows]
            nbytes = sum(array.nbytes for array in rows)
            shape, dtype = place.shapes[kept - 1], place.dtype(kept)
            return Start(place.named(kept), kept, tuple(readers[:-1]), readers[-1], shape, dtype, nbytes)
    shape = (place.image_size, place.image_size, 3)
    count = place.views * len(place.dataset.items["train"]) + len(place.dataset.items["val"])
    train = tuple(images(place, "train", view) for view in range(place.views))
    return Start(place.named(IMAGES), IMAGES, train, images(place, "val", 0), shape, "uint8", count * math.prod(shape))
