"""Images are found, refused, split, decoded and loaded as users rely on."""

import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import store
from search.errors import DataError, RequestError, StorageError

SIZE = 8


def paint(path: Path, number: int, size: tuple[int, int] = (9, 7)) -> Path:
    """A small image that no other number gives."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def flat(root: Path, counts: dict[str, int]) -> Path:
    """A folder of classes, to be split."""
    for position, (name, count) in enumerate(counts.items()):
        for number in range(count):
            paint(root / name / f"{number:03}.png", 1000 * position + number)
    return root


def given(root: Path, per_split: int = 2) -> Path:
    """A folder that is split already, of the classes cat and dog."""
    number = 0
    for split in store.SPLITS:
        for name in ("cat", "dog"):
            for index in range(per_split):
                paint(root / split / name / f"{index}.png", number)
                number += 1
    return root


def prepare(source: Path | str, tmp_path: Path, seed: int = 0, max_bad_files: float = 0.01) -> store.Dataset:
    """The dataset found and decoded, with small images and a cache of the test's own."""
    found = store.find(str(source), seed=seed, max_bad_files=max_bad_files)
    return store.decode(found, max_bad_files=max_bad_files, image_size=SIZE, cache=tmp_path / "cache")


def faults(source: Path | str, tmp_path: Path, max_bad_files: float = 0.01) -> list[str]:
    """What is wrong with a source, sentence by sentence."""
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path, max_bad_files=max_bad_files)
    return caught.value.faults


def rows(dataset: store.Dataset, tmp_path: Path) -> dict[str, np.ndarray]:
    """The decoded image of every item."""
    found = {}
    for split in store.SPLITS:
        images, labels = store.load(dataset, split, SIZE, tmp_path / "cache")
        assert len(dataset.items[split]) == len(images) == len(labels)
        assert list(dataset.labels[split]) == labels.tolist()
        found |= dict(zip(dataset.items[split], images, strict=True))
    return found


def huge_png(path: Path, width: int, height: int) -> None:
    """A valid header that claims many pixels, and hardly any after it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_driver_stays_light() -> None:
    """Importing search.data.store brings in Keras, TensorFlow or scikit-learn, and `--help` becomes slow."""
    code = "import sys, search.data.store; print([m for m in ('keras', 'tensorflow', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_digits(tmp_path: Path) -> None:
    """The built-in set is not the 1,797 digits, not split 30/20/50, or its pixels are wrong."""
    from sklearn.datasets import load_digits

    dataset = prepare("digits", tmp_path)
    assert tuple("0123456789") == dataset.classes
    assert pytest.approx([len(dataset.items[split]) for split in store.SPLITS], abs=3) == [540, 359, 898]
    assert {str(index) for index in range(1797)} == {item for items in dataset.items.values() for item in items}
    images, labels = store.load(dataset, "test", SIZE, tmp_path / "cache")
    real = load_digits()
    for row in (0, 500, -1):
        index = int(dataset.items["test"][row])
        expected = [[round(value * 255 / 16) for value in line] for line in real.images[index]]
        assert np.array_equal(np.repeat(np.array(expected)[:, :, None], 3, axis=2), images[row])
        assert real.target[index] == labels[row]


def test_loaded_arrays(tmp_path: Path) -> None:
    """Images are not memory-mapped, writable, or of another type or shape than promised."""
    dataset = prepare(flat(tmp_path / "photos", {"a": 7, "b": 7}), tmp_path)
    images, labels = store.load(dataset, "train", SIZE, tmp_path / "cache")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert (np.uint8, np.int32, (10, SIZE, SIZE, 3)) == (images.dtype, labels.dtype, images.shape)


@pytest.mark.parametrize("seed", range(4))
def test_splits_are_disjoint_and_stratified(tmp_path: Path, seed: int) -> None:
    """An image is in two splits, is lost, or a class misses in a split."""
    counts = {"a": 3, "b": 4, "c": 20, "d": 41}
    dataset = prepare(flat(tmp_path / "photos", counts), tmp_path, seed=seed)
    items = [item for split in store.SPLITS for item in dataset.items[split]]
    assert sum(counts.values()) == len(items) == len(set(items))
    digests = [set(dataset.digests[split]) for split in store.SPLITS]
    assert sum(map(len, digests)) == len(set.union(*digests))
    for split, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
        held = Counter(dataset.labels[split])
        for number, name in enumerate(dataset.classes):
            assert held[number] >= 1
            assert counts[name] * share == pytest.approx(held[number], abs=1.5)
        assert all(
            item.startswith(f"{dataset.classes[label]}/")
            for item, label in zip(dataset.items[split], dataset.labels[split], strict=True)
        )


def test_same_seed_same_dataset(tmp_path: Path) -> None:
    """The order in which files were made, the cache or chance changes the split; or the seed does not."""
    counts = {"a": 12, "b": 12}
    first = prepare(flat(tmp_path / "photos", counts), tmp_path)
    assert first == prepare(tmp_path / "photos", tmp_path)
    paint_order = sorted((tmp_path / "photos").rglob("*.png"), reverse=True)
    for path in paint_order:
        copy = tmp_path / "again" / path.relative_to(tmp_path / "photos")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    again = prepare(tmp_path / "again", tmp_path)
    assert (first.items, first.fingerprint) == (again.items, again.fingerprint)
    other = prepare(tmp_path / "photos", tmp_path, seed=1)
    assert first.items != other.items
    assert first.fingerprint != other.fingerprint


def test_fingerprint_tells_contents_and_names(tmp_path: Path) -> None:
    """A changed image or name keeps the fingerprint, and with it features of other images."""
    root = given(tmp_path / "photos")
    seen = [prepare(root, tmp_path).fingerprint]
    paint(root / "train" / "cat" / "0.png", 99)
    seen.append(prepare(root, tmp_path).fingerprint)
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "00.png")
    seen.append(prepare(root, tmp_path).fingerprint)
    assert len(set(seen)) == 3


def test_fingerprints_stay_from_version_to_version(tmp_path: Path) -> None:
    """A new version computes all features again, and goes on with no search that an older one began."""
    for number in range(14):
        path = tmp_path / "ab"[number % 2] / f"{number}.ppm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"P6 2 2 255\n" + bytes([number] * 12))
    known = {
        "digits": "12138a1069986c2c85bd888f60159c45d000784d9d1addc5a448e55102a110fc",
        str(tmp_path): "e98cea1e6070487a22820303a0fe818802ce0abf86b7b2fc020761c4714e9f7c",
    }
    assert {name: store.find(name, seed=0, max_bad_files=0).fingerprint for name in known} == known


def test_given_splits_are_kept(tmp_path: Path) -> None:
    """A folder that says train, val and test is split another way."""
    dataset = prepare(given(tmp_path / "photos"), tmp_path)
    for split in store.SPLITS:
        assert (f"{split}/cat/0.png", f"{split}/cat/1.png") == dataset.items[split][:2]
        assert dataset.labels[split] == (0, 0, 1, 1)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    """Trains, planes and buses are taken for a folder whose splits are missing."""
    dataset = prepare(flat(tmp_path / "photos", {"train": 3, "plane": 3, "bus": 3}), tmp_path)
    assert dataset.classes == ("bus", "plane", "train")


def test_which_files_count(tmp_path: Path) -> None:
    """Nested images are missed, hidden files are read, or other files count as bad ones."""
    root = flat(tmp_path / "photos", {"a": 3, "b": 3})
    paint(root / "a" / "deeper" / "still" / "x.PNG", 50)
    paint(root / "a" / ".thumbnails" / "x.png", 51)
    paint(root / "a" / ".hidden.png", 52)
    paint(root / ".git" / "x.png", 53)
    paint(root / "outside.png", 54)
    (root / "a" / "labels.txt").write_text("a")
    dataset = prepare(root, tmp_path)
    assert sum(map(len, dataset.items.values())) == 7
    assert "a/deeper/still/x.PNG" in rows(dataset, tmp_path)
    assert dataset.skipped == ()
    assert dataset.notes[0] == "hidden folders are left out, with the images in them: .git"
    assert dataset.notes[1].startswith("image files left out because they lie outside the class folders: 1;")
    assert dataset.notes[2] == "files left out because they are no images: 1 .txt"
    assert dataset.notes[3:] == ()


def test_names_of_every_kind(tmp_path: Path) -> None:
    """Spaces, quotes or letters beyond ASCII break a path; or control characters reach the terminal."""
    root = flat(tmp_path / "photos", {'l\'été "2" 猫': 3, "b b": 3})
    paint(root / "b b" / "ключ 🙂.png", 50)
    paint(root / "b b" / "red\x1b[31m.png", 51)
    paint(root / "b b" / os.fsdecode(b"\xff.png"), 52)
    dataset = prepare(root, tmp_path, max_bad_files=0.25)
    assert dataset.classes == ("b b", 'l\'été "2" 猫')
    assert "b b/ключ 🙂.png" in rows(dataset, tmp_path)
    reason = "control characters in its name"
    assert (("b b/\\udcff.png", reason), ("b b/red\\x1b[31m.png", reason)) == dataset.skipped


def test_bad_files_are_skipped_with_a_reason(tmp_path: Path) -> None:
    """A bad file ends the search, is used, or vanishes without a word."""
    root = flat(tmp_path / "photos", {"a": 20, "b": 20})
    bad = root / "a" / "bad"
    bad.mkdir()
    (bad / "corrupt.png").write_bytes(b"GIF without a header")
    (bad / "empty.jpg").touch()
    (bad / "text.webp").write_text("hello")
    (bad / "array.npy").write_bytes(b"\x93NUMPY")
    (bad / "film.mp4").write_bytes(bytes(4) + b"ftypisom" + bytes(100))
    (bad / "no ending").write_bytes(bytes(100))
    huge_png(bad / "huge.png", 8000, 6251)
    huge_png(bad / "vast.png", 100_000, 100_000)
    (bad / "pipe").mkdir()
    os.mkfifo(bad / "pipe" / "fifo.png")
    paint(tmp_path / "elsewhere" / "x.png", 70)
    (bad / "out.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (bad / "outer").symlink_to(tmp_path / "elsewhere")
    (bad / "loop").symlink_to(root)
    (bad / "nothing.png").symlink_to(root / "nothing")
    dataset = prepare(root, tmp_path, max_bad_files=0.25)
    alien = "not a PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image"
    expected = {
        "corrupt.png": alien,
        "empty.jpg": alien,
        "text.webp": alien,
        "array.npy": alien,
        "film.mp4": "damaged, or of a kind of TIFF, AVIF or HEIC image, or of film, that is not read",
        "no ending": alien,
        "huge.png": "more than 50 megapixels",
        "vast.png": "more than 50 megapixels",
        "pipe/fifo.png": "not a file",
        "out.png": "a link that leaves the folder",
        "outer": "a link that leaves the folder",
        "loop": "a link to a folder above it",
        "nothing.png": "a link to nothing",
    }
    assert {f"a/bad/{name}": reason for name, reason in expected.items()} == dict(dataset.skipped)
    assert len(rows(dataset, tmp_path)) == 40


def test_50_megapixels_are_allowed(tmp_path: Path) -> None:
    """The limit refuses an image that is just within it: its header passes, only its missing pixels are at fault."""
    root = flat(tmp_path / "photos", {"a": 10, "b": 10})
    huge_png(root / "a" / "limit.png", 8000, 6250)
    ((_, reason),) = prepare(root, tmp_path).skipped
    assert "truncated" in reason


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    """A link to a file or folder of the same data is refused."""
    root = given(tmp_path / "photos")
    paint(root / ".store" / "x.png", 80)
    paint(root / ".store" / "folder" / "y.png", 81)
    (root / "train" / "cat" / "x.png").symlink_to(root / ".store" / "x.png")
    (root / "train" / "cat" / "more").symlink_to(root / ".store" / "folder")
    dataset = prepare(root, tmp_path)
    assert dataset.skipped == ()
    assert {"train/cat/x.png", "train/cat/more/y.png"} <= set(dataset.items["train"])


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.bmp", "x.webp"])
def test_truncated_body_is_skipped(tmp_path: Path, name: str) -> None:
    """A file cut short under a good header is decoded half grey, or shifts the rows behind it."""
    root = given(tmp_path / "photos")
    path = paint(root / "train" / "cat" / f"0{name}", 90, (60, 50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fresh = prepare(root, tmp_path)
    ((skipped, reason),) = fresh.skipped
    assert f"train/cat/0{name}" == skipped
    assert reason
    assert fresh == prepare(root, tmp_path)
    for item, pixels in rows(fresh, tmp_path).items():
        with Image.open(root / item) as image:
            assert np.array_equal(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)), pixels)


def test_copies_stay_in_the_most_held_out_split(tmp_path: Path) -> None:
    """A test image is also trained on; or copies within one split are dropped."""
    root = given(tmp_path / "photos")
    content = (root / "test" / "cat" / "0.png").read_bytes()
    for copy in ("train/cat/copy.png", "val/cat/copy.png", "test/cat/copy.png"):
        (root / copy).write_bytes(content)
    (root / "train" / "dog" / "copy.png").write_bytes((root / "val" / "dog" / "1.png").read_bytes())
    dataset = prepare(root, tmp_path, max_bad_files=0.2)
    assert dict(dataset.skipped) == {
        "train/cat/copy.png": "a copy of test/cat/0.png, which is in test",
        "val/cat/copy.png": "a copy of test/cat/0.png, which is in test",
        "train/dog/copy.png": "a copy of val/dog/1.png, which is in val",
    }
    assert "test/cat/copy.png" in dataset.items["test"]


def test_empty_classes_are_noted(tmp_path: Path) -> None:
    """A class without images gets an output of its own, or vanishes without a word."""
    root = flat(tmp_path / "photos", {"a": 3, "b": 3})
    (root / "nobody").mkdir()
    dataset = prepare(root, tmp_path)
    assert dataset.classes == ("a", "b")
    assert dataset.notes == ("class 'nobody' holds no image and is left out",)


@pytest.mark.parametrize("truncated", [False, True], ids=["header", "body"])
def test_threshold(tmp_path: Path, truncated: bool) -> None:
    """One bad file more than allowed passes, or the last allowed one does not; found by header or by body alike."""
    root = flat(tmp_path / "photos", {"a": 9, "b": 9})
    whole = paint(tmp_path / "whole.png", 95, (60, 50)).read_bytes()
    content = whole[: len(whole) // 2] if truncated else b""
    (root / "a" / "bad1.png").write_bytes(content + b"1")
    (root / "a" / "bad2.png").write_bytes(content + b"2")
    assert len(prepare(root, tmp_path, max_bad_files=0.1).skipped) == 2
    assert len(prepare(root, tmp_path, max_bad_files=0.051).skipped) == 2
    (fault,) = faults(root, tmp_path, max_bad_files=0.05)
    first, *lines = fault.splitlines()
    assert first == (
        "2 of its 20 image files cannot be used, max_bad_files=0.05 allows 1; "
        "remove them, or allow them with --set max_bad_files=0.1:"
    )
    assert [line[:16] for line in lines] == ["    a/bad1.png: ", "    a/bad2.png: "]


def test_long_lists_are_cut(tmp_path: Path) -> None:
    """A thousand bad files flood the terminal."""
    root = flat(tmp_path / "photos", {"a": 3, "b": 3})
    for number in range(23):
        (root / "a" / f"bad{number:02}.png").touch()
    (fault,) = faults(root, tmp_path)
    assert len(fault.splitlines()) == 22
    *_, last, more = fault.splitlines()
    assert last.startswith("    a/bad19.png: not a PNG, JPEG, ")
    assert more == "    and 3 more: 3 a/*.png"


def test_unusable_folders(tmp_path: Path) -> None:
    """A folder that cannot be used is not refused in one clear sentence."""
    missing, file = tmp_path / "missing", paint(tmp_path / "one.png", 0)
    assert [f"{missing}: there is no such folder"] == faults(missing, tmp_path) == store.faults(str(missing))
    neither = "no folder, no table (.csv, .tsv, .jsonl, .parquet) and no archive (.zip, .tar, .tar.gz, .tgz)"
    assert [f"{file}: {neither}"] == faults(file, tmp_path) == store.faults(str(file))
    unknown = "unknown data set 'digit'; did you mean 'digits'? known are digits; nor is there a folder of this name"
    assert [unknown] == faults("digit", tmp_path) == store.faults("digit")
    layouts = "DIR/<class>/* or DIR/{train,val,test}/<class>/*"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert [f"no images in it; expected {layouts}"] == faults(empty, tmp_path)
    paint(empty / "x.png", 0)
    note = f"image files left out because they lie outside the class folders: 1; expected {layouts}"
    assert [f"no images in it; expected {layouts} ({note})"] == faults(empty, tmp_path)
    one = flat(tmp_path / "one", {"cat": 4})
    assert faults(one, tmp_path) == ["only one class, 'cat', holds usable images; at least two are needed"]
    bad = tmp_path / "bad"
    (bad / "cat").mkdir(parents=True)
    (bad / "cat" / "x.png").touch()
    assert faults(bad, tmp_path, max_bad_files=1) == [
        "none of its image files can be used, 1 in all:"
        "\n    cat/x.png: not a PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image"
    ]
    few = flat(tmp_path / "few", {"a": 2, "b": 4})
    rule = "each of train, val, test needs at least one of every class"
    assert [f"class 'a' has too few images for a split: 2 in all, none in train; {rule}"] == faults(few, tmp_path)


def test_message_names_the_folder(tmp_path: Path) -> None:
    """The user cannot tell which folder is meant."""
    with pytest.raises(RequestError, match=f"^{tmp_path}/missing: there is no such folder$"):
        prepare(tmp_path / "missing", tmp_path)


def test_every_fault_at_once(tmp_path: Path) -> None:
    """Faults are met one after the other, run after run."""
    root = flat(tmp_path / "photos", {"a": 2})
    (root / "b").mkdir()
    (root / "b" / "1.png").touch()
    (root / "b" / "2.png").touch()
    starts = ["2 of its 4 image files cannot be used", "only one class, 'a'"]
    starts += [f"class '{name}' has too few images" for name in "ab"]
    for start, fault in zip(starts, faults(root, tmp_path), strict=True):
        assert fault.startswith(start)


def test_classes_must_be_in_every_given_split(tmp_path: Path) -> None:
    """A class nobody trains on, or tests, is accepted."""
    root = given(tmp_path / "photos", per_split=1)
    (root / "val" / "cat" / "0.png").unlink()
    (root / "test" / "dog" / "0.png").unlink()
    first, second = faults(root, tmp_path)
    assert first.startswith("class 'cat' has too few images for a split: 2 in all, none in val;")
    assert second.startswith("class 'dog' has too few images for a split: 2 in all, none in test;")


def test_second_time_needs_no_decoding(tmp_path: Path) -> None:
    """Unchanged data is decoded again, or progress is not told of what is done."""
    root, told = given(tmp_path / "photos"), []

    def note(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    for _ in range(2):
        found = store.find(str(root), seed=0, max_bad_files=0, progress=note)
        store.decode(found, max_bad_files=0, image_size=SIZE, cache=tmp_path / "cache", progress=note)
    scanned = ("scanning images", 12, 12)
    assert [scanned, *((f"decoding {split} images", 4, 4) for split in store.SPLITS), scanned] == told


@pytest.mark.parametrize("harm", ["evicted", "truncated", "foreign", "short"])
def test_lost_arrays_are_decoded_again(tmp_path: Path, harm: str) -> None:
    """An evicted or broken cache ends a trial, or gives it other images."""
    root = given(tmp_path / "photos")
    dataset = prepare(root, tmp_path)
    before = {item: pixels.copy() for item, pixels in rows(dataset, tmp_path).items()}
    for path in (tmp_path / "cache" / "images").glob("*/val.npy"):
        if harm == "evicted":
            path.unlink()
        elif harm == "truncated":
            path.write_bytes(path.read_bytes()[:-1])
        elif harm == "foreign":
            path.write_text("something else")
        else:
            np.save(path, np.zeros((3, SIZE, SIZE, 3), np.uint8))
    after = rows(dataset, tmp_path)
    assert all(np.array_equal(before[item], after[item]) for item in before | after)
    assert dataset == prepare(root, tmp_path)


def test_another_node_decodes_for_itself(tmp_path: Path) -> None:
    """A trial on a node with an empty cache fails, or has other rows where bad files were skipped."""
    root = given(tmp_path / "photos")
    path = paint(root / "train" / "cat" / "00.png", 90, (60, 50))
    path.write_bytes(path.read_bytes()[:2000])
    dataset = prepare(root, tmp_path)
    images, _ = store.load(dataset, "train", SIZE, tmp_path / "cache")
    elsewhere, _ = store.load(dataset, "train", SIZE, tmp_path / "another")
    assert np.array_equal(images, elsewhere)
    found = store.find(str(root), seed=0, max_bad_files=0.01)
    assert dataset == store.decode(found, max_bad_files=0.01, image_size=SIZE, cache=tmp_path / "another")


def test_changed_files_are_named(tmp_path: Path) -> None:
    """After an eviction a trial goes on with other images than the search began with."""
    root = given(tmp_path / "photos")
    dataset = prepare(root, tmp_path)
    paint(root / "train" / "cat" / "0.png", 99)
    (root / "test" / "dog" / "1.png").unlink()
    with pytest.raises(DataError) as caught:
        store.load(dataset, "train", SIZE, tmp_path / "another")
    assert caught.value.faults == [
        "gone or changed since the scan, 2 of 12 files:"
        "\n    train/cat/0.png: its content has changed"
        "\n    test/dog/1.png: cannot be read: No such file or directory"
    ]
    assert list((tmp_path / "another" / "images").glob("*.new")) == []


def test_one_process_decodes_while_others_wait(tmp_path: Path) -> None:
    """Two searches that start together spoil each other's cache."""
    root = flat(tmp_path / "photos", {"a": 30, "b": 30})
    code = (
        "import sys; from pathlib import Path; from search.data import store;"
        "told = [];"
        "found = store.find(sys.argv[1], seed=0, max_bad_files=0);"
        "store.decode(found, max_bad_files=0, image_size=64, cache=Path(sys.argv[2]),"
        " progress=lambda what, done, total: told.append(what));"
        "print(any('decoding' in what for what in told))"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0] for process in both) == ["False\n", "True\n"]
    assert [process.returncode for process in both] == [0, 0]


def test_unwritable_cache(tmp_path: Path) -> None:
    """A cache that cannot be written ends in a traceback, without a word about `--cache`."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="choose another with --cache"):
        prepare(given(tmp_path / "photos"), tmp_path)
