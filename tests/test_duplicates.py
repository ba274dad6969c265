"""Images that look nearly the same in two splits: found whatever was done to them, told, and left out on demand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from search.data import duplicates, store
from search.data.duplicates import alike, look

SIZE = 32


def picture(number: int, side: int = 96) -> Image.Image:
    """A picture of large spots, as photos have them, that no other number gives."""
    spots = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(spots).resize((side, side), Image.Resampling.BICUBIC)


def folder(root: Path, side: int = 96) -> Path:
    """Pictures that are split, of two classes."""
    number = 0
    for split, count in {"train": 10, "val": 4, "test": 4}.items():
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                picture(number, side).save(root / split / name / f"{index}.png")
                number += 1
    return root


def decoded(root: Path, near_duplicates: str = "tell") -> store.Dataset:
    """The data set, found and decoded."""
    found = store.find(str(root), seed=0, max_bad_files=0)
    cache = root.parent / "cache"
    return store.decode(found, max_bad_files=0, image_size=SIZE, cache=cache, near_duplicates=near_duplicates)


def about(dataset: store.Dataset) -> list[str]:
    """The notes on images that look nearly the same."""
    return [note for note in dataset.notes if "look nearly the same" in note]


def hashed(image: Image.Image) -> int:
    """The difference hash of a picture."""
    return look(np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((61, 61), Image.Resampling.LANCZOS),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: image.convert("L"),
    ],
    ids=["resized", "darker", "flatter", "grey"],
)
def test_what_is_done_to_a_copy_hardly_changes_its_hash(
    change: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    """A photo that was resized, brightened or saved anew is trained on, and tested."""
    near = 0
    for number in range(20):
        image = picture(number)
        change(image).convert("RGB").save(tmp_path / "x.jpg", quality=60)
        with Image.open(tmp_path / "x.jpg") as copy:
            near += (hashed(image) ^ hashed(copy)).bit_count() <= 3
    assert near >= 15


def test_other_pictures_have_other_hashes() -> None:
    """Pictures that have nothing in common are told to look alike."""
    hashes = np.array([hashed(picture(number)) for number in range(1000)], np.uint64)
    assert alike(hashes[:700], hashes[700:]) == {}


def test_flat_pictures_have_none() -> None:
    """Every blank page looks like every other one."""
    numbers = np.random.default_rng(0)
    blank = np.clip(numbers.normal(250, 2, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    assert look(blank) == look(np.zeros((SIZE, SIZE, 3), np.uint8)) == duplicates.NONE
    assert alike(np.zeros(3, np.uint64), np.zeros(2, np.uint64)) == {}


def test_all_that_are_near_are_found() -> None:
    """The search by blocks of bits misses one that comparing all with all would find."""
    numbers = np.random.default_rng(0)
    others = numbers.integers(1, 1 << 64, 300, np.uint64)
    looks = others.copy()
    for row in range(300):
        for bit in numbers.choice(64, row % 6, replace=False):
            looks[row] ^= np.uint64(1) << np.uint64(bit)
    every = np.bitwise_count(looks[:, None] ^ others[None, :]) <= 3
    found = alike(looks, others)
    assert set(found) == set(np.flatnonzero(every.any(axis=1)).tolist())
    assert all(every[row, match] for row, match in found.items())


def test_near_duplicates_are_told_or_left_out(tmp_path: Path) -> None:
    """The test accuracy is that of photos which were trained on under another name."""
    root = folder(tmp_path / "photos")
    before = decoded(root)
    picture(28 + 4).save(root / "train" / "a" / "copy.jpg", quality=70)  # of test/b/0
    picture(20).resize((50, 50)).save(root / "test" / "b" / "copy.png")  # of val/a/0
    told = decoded(root)
    assert about(before) == []
    assert about(told) == [
        "images that look nearly the same as one of a more held-out split: 1 of train and 1 of val, "
        "such as train/a/copy.jpg and test/b/0.png; --set near_duplicates=skip leaves those of train out"
    ]
    kept = decoded(root, "skip")
    assert {*told.items["train"]} - {*kept.items["train"]} == {"train/a/copy.jpg"}
    assert (kept.items["val"], kept.items["test"]) == (told.items["val"], told.items["test"])
    assert (kept.skipped, told.skipped) == ((), ())
    assert kept.fingerprint != told.fingerprint == kept.scanned
    assert about(kept)[0].endswith("val or test: 1, such as train/a/copy.jpg and test/b/0.png")
    assert decoded(root, "skip") == kept
    for cache in (tmp_path / "cache", tmp_path / "another node"):
        images, labels = store.load(kept, "train", SIZE, cache)
        assert len(images) == len(labels) == len(kept.items["train"]) == 20


def test_without_near_duplicates_nothing_changes(tmp_path: Path) -> None:
    """A search over the same data is another one, with features of its own, for nothing."""
    root = folder(tmp_path / "photos")
    assert decoded(root) == decoded(root, "skip")
    assert len(list((tmp_path / "cache" / "images").glob("*/train.npy"))) == 1


def test_small_images_are_not_compared(tmp_path: Path) -> None:
    """Digits of 8 x 8 pixels, which all look alike, are told to be copies of each other."""
    found = store.find("digits", seed=0, max_bad_files=0)
    dataset = store.decode(found, max_bad_files=0, image_size=SIZE, cache=tmp_path / "cache")
    assert about(dataset) == []
    root = folder(tmp_path / "photos", side=31)
    picture(30, side=30).save(root / "train" / "a" / "copy.png")
    assert about(decoded(root)) == []


def test_images_of_an_older_version_are_compared(tmp_path: Path) -> None:
    """A cache that an older version filled ends the search, or hides what would be told."""
    root = folder(tmp_path / "photos")
    picture(30).save(root / "train" / "a" / "copy.jpg")
    first = decoded(root)
    for path in (tmp_path / "cache").rglob("*looks.npy"):
        path.unlink()
    assert decoded(root) == first
    assert about(first)
