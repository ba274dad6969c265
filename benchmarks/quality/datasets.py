"""The data sets of the tables, made from what packages ship; nothing of them is committed but the curves.

- `digits`: the built-in set; `digits-few`: ten training images of each class; `digits-noisy`: a fifth of the training
  labels are those of another class;
- `emoji`, `emoji-1`: the pictures of the npm package `emoji-datasource-google`, told apart by their category, with two
  seeds of the split;
- `textures`: the clouds of the speed benchmark, with MobileNetV2 at 96 pixels.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import workload
from benchmarks.quality.table import Grid
from search.backbone.backbones import Source
from search.data import store
from search.data.store import Dataset

EMOJI = "emoji-datasource-google@16.0.0"
FEW = 10
NOISE = 0.2
ALL = Grid((0, 1, 2, 3, 4, 5, 6, 7), (0, 3, 7))
TINY = Source("tiny", "own", 32)


@dataclass(frozen=True)
class Recipe:
    """A data set with the network and the grid that its table is recorded with.

    Args:
        find: gives, for a work folder, the data set; `source` for one gives the network.
    """

    find: Callable[[Path], Dataset]
    source: Callable[[Path], Source]
    grid: Grid
    seed: int = 0


def _digits(folder: Path) -> Dataset:  # noqa: ARG001
    return store.find("digits", seed=0, max_bad_files=0)


def _digits_few(folder: Path) -> Dataset:
    found = _digits(folder)
    labels = np.array(found.labels["train"])
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[:FEW] for label in range(len(found.classes))]))
    parts = {
        "items": {**found.items, "train": tuple(found.items["train"][row] for row in chosen)},
        "labels": {**found.labels, "train": tuple(labels[chosen].tolist())},
        "digests": {**found.digests, "train": tuple(found.digests["train"][row] for row in chosen)},
    }
    return replace(found, **parts, fingerprint=_fingerprint(found, "few"))


def _digits_noisy(folder: Path) -> Dataset:
    found = _digits(folder)
    labels, random = np.array(found.labels["train"]), np.random.default_rng(0)
    wrong = random.permutation(len(labels))[: round(NOISE * len(labels))]
    labels[wrong] = (labels[wrong] + random.integers(1, len(found.classes), len(wrong))) % len(found.classes)
    noisy = {**found.labels, "train": tuple(labels.tolist())}
    return replace(found, labels=noisy, fingerprint=_fingerprint(found, "noisy"))


def _fingerprint(found: Dataset, change: str) -> str:
    return hashlib.sha256(f"{found.fingerprint} {change}".encode()).hexdigest()


def _emoji(seed: int) -> Callable[[Path], Dataset]:
    def find(folder: Path) -> Dataset:
        return store.find(str(_emoji_pictures(folder)), seed=seed, max_bad_files=0)

    return find


def _emoji_pictures(folder: Path) -> Path:
    """A folder for each category of emoji, with every second one's picture, on white; fetched where it is not there."""
    pictures = folder / "emoji"
    if pictures.exists():
        return pictures
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "pack", "--silent", EMOJI], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S607
    (packed,) = folder.glob("emoji-datasource-google-*.tgz")
    made = folder / "emoji.new"
    shutil.rmtree(made, ignore_errors=True)
    with tarfile.open(packed) as archive:
        about = json.load(archive.extractfile("package/emoji.json"))  # type: ignore[arg-type]
        known = [emoji for emoji in about if emoji["category"] != "Component" and emoji["has_img_google"]]
        wanted = {f"package/img/google/64/{emoji['image']}": emoji for emoji in known[::2]}
        for member in archive:
            if emoji := wanted.get(member.name):
                into = made / emoji["category"]
                into.mkdir(parents=True, exist_ok=True)
                picture = Image.open(archive.extractfile(member)).convert("RGBA")  # type: ignore[arg-type]
                white = Image.new("RGBA", picture.size, "white")
                Image.alpha_composite(white, picture).convert("RGB").save(into / emoji["image"])
    packed.unlink()
    made.rename(pictures)
    return pictures


CLOUDS = {
    "backbone": "MobileNetV2",
    "image_size": workload.IMAGE_SIZE,
    "images": {"train": 512, "val": 256, "test": 256},
    "classes": len(workload.CLOUDS),
    "seed": 0,
}


def _textures(folder: Path) -> Dataset:
    images = folder / "textures" / "images"
    if not images.exists():
        workload.write_images(images, CLOUDS)
    return store.find(str(images), seed=0, max_bad_files=0)


def _mobilenet(folder: Path) -> Source:
    weights = folder / "textures" / "backbone.weights.h5"
    if not weights.exists():
        _textures(folder)
        workload.write_weights(folder / "textures", CLOUDS)
    return Source("MobileNetV2", str(weights), workload.IMAGE_SIZE)


def _tiny(folder: Path) -> Source:  # noqa: ARG001
    return TINY


RECIPES = {
    "digits": Recipe(_digits, _tiny, ALL),
    "digits-few": Recipe(_digits_few, _tiny, ALL),
    "digits-noisy": Recipe(_digits_noisy, _tiny, ALL),
    "emoji": Recipe(_emoji(0), _tiny, ALL),
    "emoji-1": Recipe(_emoji(1), _tiny, ALL, seed=1),
    "textures": Recipe(_textures, _mobilenet, Grid((0, 1, 2, 3, 4, 6), (), ALL.rates[::2])),
}
