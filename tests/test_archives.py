"""Archives of images: unpacked once into the node's cache, safely, and read as the folder that is in them."""

import gzip
import io
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import archives, store
from search.data.settings import DataSettings
from search.errors import DataError, StorageError

FORMATS = {".zip": "zip", ".tar": "tar", ".tar.gz": "gztar", ".tgz": "gztar"}


def folder(root: Path) -> Path:
    """A folder of two classes."""
    for number in range(40):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return root


def pack(root: Path, ending: str = ".zip", inside: str = ".") -> Path:
    """An archive of what is in a folder, beside it."""
    made = shutil.make_archive(str(root.with_name("made")), FORMATS[ending], root, inside)
    return Path(made).rename(root.with_name(f"photos{ending}"))


def found(source: Path, cache: Path) -> store.Dataset:
    """The data set, with the seed that is the default."""
    return store.find(str(source), seed=0, max_bad_files=0, settings=DataSettings(cache=cache))


def fault(source: Path, cache: Path) -> str:
    """The one thing that is wrong with an archive."""
    with pytest.raises(DataError) as caught:
        found(source, cache)
    assert not list(cache.glob("archives/*.new"))
    (said,) = caught.value.faults
    return said


@pytest.mark.parametrize("ending", archives.KINDS)
@pytest.mark.parametrize("inside", [".", "photos"])
def test_an_archive_is_read_as_its_folder(tmp_path: Path, ending: str, inside: str) -> None:
    """The images of an archive are others than those of the folder that was packed, or on other nodes not there."""
    root = folder(tmp_path / "photos")
    archive = pack(root if inside == "." else tmp_path, ending, inside).resolve()
    if inside == "photos":
        archive = archive.rename(tmp_path / archive.name)
    dataset = found(archive, tmp_path / "cache")
    assert dataset.source == str(archive)
    assert dataset.fingerprint == found(root, tmp_path / "cache").fingerprint
    store.decode(dataset, max_bad_files=0, image_size=8, cache=tmp_path / "cache")
    images, _ = store.load(dataset, "train", 8, tmp_path / "another node")
    same, _ = store.load(found(root, tmp_path), "train", 8, tmp_path / "cache")
    assert np.array_equal(images, same)


def test_an_archive_with_a_table(tmp_path: Path) -> None:
    """A table in an archive cannot be given, and is not looked at."""
    root = folder(tmp_path / "photos")
    (root / "images").mkdir()
    for path in [*root.glob("?/*.png")]:
        path.rename(root / "images" / path.name)
    for name in "ab":
        (root / name).rmdir()
    rows = [f"images/{number}.png,{'xy'[number % 2]}\n" for number in range(40)]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    assert found(pack(root), tmp_path / "cache").classes == ("x", "y")


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    """Every start takes as long as the first, old copies fill the disk, or a changed archive is not seen."""
    archive, cache = pack(folder(tmp_path / "photos")), tmp_path / "cache"
    told: list[tuple[str, int, int]] = []
    first = archives.folder(archive, cache, lambda *said: told.append(said))
    assert (len(told), told[-1]) == (43, ("unpacking the archive, MiB", 1, 1))
    mark = first / "mark"
    mark.touch()
    assert archives.folder(archive, cache) == first
    assert mark.exists()
    os.utime(archive, (1, 1))
    second = archives.folder(archive, cache)
    assert second != first
    assert not first.exists()
    assert len(list(second.rglob("*.png"))) == 40


@pytest.mark.parametrize("ending", archives.KINDS)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999, "text"])
def test_damaged_archives_are_told(tmp_path: Path, ending: str, kept: float | str) -> None:
    """A search runs on the half of the images that came before the download broke off."""
    archive = pack(folder(tmp_path / "photos"), ending)
    content = archive.read_bytes()
    if ending == ".tar" and kept == 0.999:
        content = content[: content.rindex(b"\x89PNG")]  # cut where a file ends, behind its header
    archive.write_bytes(b"<html>" if isinstance(kept, str) else content[: int(kept * len(content))])
    said = fault(archive, tmp_path / "cache")
    assert re.search("damaged: |no .* archive, or one that is cut off;", said)
    assert said.endswith("; fetch it again")


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_tar_that_is_cut_between_two_files(tmp_path: Path, ending: str) -> None:
    """Python takes an archive that ends after a whole file for a whole archive."""
    plain = pack(folder(tmp_path / "photos"), ".tar")
    with tarfile.open(plain) as packed:
        at = packed.getmembers()[20].offset
    plain.write_bytes(plain.read_bytes()[:at])
    if ending == ".tar.gz":
        (tmp_path / "photos.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert "its end is missing" in fault(tmp_path / f"photos{ending}", tmp_path / "cache")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    """A broken disk or download changes pixels, and nobody notices."""
    for ending in (".zip", ".tar.gz"):
        archive = pack(folder(tmp_path / "photos"), ending)
        content = bytearray(archive.read_bytes())
        content[len(content) // 2] ^= 1
        archive.write_bytes(content)
        assert fault(archive, tmp_path / "cache").startswith("damaged")


def unsafe(path: Path, kind: str) -> Path:
    """An archive that would write outside its folder."""
    if kind in ("../x.png", "a/../../x.png", "/x/x.png", "..\\x.png"):
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as packed:
            packed.writestr(kind, b"x")
        return path.with_suffix(".zip")
    kinds = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}
    member = tarfile.TarInfo("../x.png" if kind == "above" else "x.png")
    member.type = kinds.get(kind, tarfile.REGTYPE)
    member.linkname = "../../secret" if kind in ("link", "hard") else ""
    with tarfile.open(path.with_suffix(".tar"), "w") as packed:
        packed.addfile(member, io.BytesIO())
    return path.with_suffix(".tar")


@pytest.mark.parametrize(
    "kind", ["../x.png", "a/../../x.png", "/x/x.png", "..\\x.png", "above", "link", "hard", "pipe"]
)
def test_nothing_leaves_the_folder(tmp_path: Path, kind: str) -> None:
    """An archive from the network writes files of its choice where it likes."""
    said = fault(unsafe(tmp_path / "photos", kind), tmp_path / "cache")
    assert said.startswith("not unpacked, because it is not safe: ")
    assert not list((tmp_path / "cache").rglob("*.png"))
    assert not (tmp_path / "x.png").exists()


def test_an_archive_that_cannot_be_unpacked(tmp_path: Path) -> None:
    """A missing archive, or a cache that is full or cannot be written, ends in a traceback."""
    gone = tmp_path / "gone.zip"
    assert fault(gone, tmp_path / "cache") == f"{gone}: there is no such file" == store.faults(str(gone))[0]
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="choose another with --cache"):
        found(pack(folder(tmp_path / "photos")), tmp_path / "cache")
    member = tarfile.TarInfo("x.png")
    member.size = 1 << 60
    (tmp_path / "huge.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(StorageError, match="for what is in the archive, and has"):
        found(tmp_path / "huge.tar", tmp_path / "other")


def test_a_python_without_safe_unpacking_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first releases of Python 3.11 would end in an error of ours."""
    monkeypatch.delattr(tarfile, "data_filter")
    (fault,) = archives.faults(tmp_path / "photos.tar.gz")
    assert fault.endswith("cannot unpack it safely; take 3.11.4 or later, or unpack it and give the folder")
