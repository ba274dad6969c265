"""What every source of backbones and of images must keep, whichever it is."""

import io
import shutil
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from search.backbone import backbones
from search.backbone import sources as networks
from search.data import sources as images
from search.data.scan import silent
from search.data.settings import DataSettings
from search.errors import DataError


@pytest.mark.parametrize("name", networks.KINDS)
def test_a_kind_of_backbones_owns_its_names_alone(name: str) -> None:
    """A name would be built by another kind than the one that knows its weights."""
    kind = networks.KINDS[name]
    for known in kind.names():
        assert [other for other, row in networks.KINDS.items() if row.owns(known)] == [name]
        assert networks.of(known) is kind
        assert backbones.default_weights(known) == kind.weights
        assert backbones.check(known, kind.weights) == backbones.check(known, "none") == []


def one_of(name: str, folder: Path) -> tuple[str, int]:
    """A backbone of a kind, and the side of its images."""
    if name == "file":
        given = keras.Input((24, 24, 3))
        keras.Model(given, keras.layers.Conv2D(4, 3, strides=2)(given)).save(folder / "own.keras")
        return str(folder / "own.keras"), 24
    return {"tiny": ("tiny", 32), "application": ("MobileNetV2", 224)}[name]


@pytest.mark.parametrize("name", [pytest.param("application", marks=pytest.mark.slow), "tiny", "file"])
def test_a_kind_of_backbones_builds_what_can_be_cut(name: str, tmp_path: Path) -> None:
    """A search over it would end when it begins."""
    named, side = one_of(name, tmp_path)
    assert len(networks.KINDS) == 3, "the new one has no example here"
    kind = networks.known(named)
    size = 32 if name == "application" else side
    backbone = backbones.load(named, "none", size)

    assert kind is networks.KINDS[name]
    assert name == "application" or kind.image_size(named) == side
    assert backbone.blocks
    (found,) = keras.tree.flatten(backbones.prefix(backbone, [1])(np.zeros((1, size, size, 3), "uint8")))
    assert found.shape[0] == 1


def source_of(name: str, folder: Path) -> str:
    """A source of a kind."""
    for number in range(20):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * number, "uint8")).save(path)
    if name == "folder":
        return str(folder / "images")
    if name == "table":
        rows = [f"images/{'ab'[number % 2]}/{number}.png,{'xy'[number % 2]}\n" for number in range(20)]
        (folder / "labels.csv").write_text("path,label\n" + "".join(rows))
        return str(folder / "labels.csv")
    if name == "shards":
        for number in range(2):
            with tarfile.open(folder / f"{number}.tar", "w") as shard:
                for image in range(number, 20, 2):
                    shard.add(folder / "images" / "ab"[image % 2] / f"{image}.png", f"{image}.png")
                    label = tarfile.TarInfo(f"{image}.cls")
                    label.size = 1
                    shard.addfile(label, io.BytesIO(b"xy"[image // 2 % 2 :][:1]))
        return str(folder / "{0..1}.tar")
    if name == "archive":
        return shutil.make_archive(str(folder / "photos"), "zip", folder, "images")
    return images.SOURCES[name].names[0]


@pytest.mark.parametrize("name", images.SOURCES)
def test_a_kind_of_images_is_found_split_and_read(name: str, tmp_path: Path) -> None:
    """A search would have no images, or not those that its record names."""
    source = source_of(name, tmp_path)
    kind, settings = images.of(source), DataSettings(cache=tmp_path / "cache")
    found, again = (kind.find(source, 0, settings, silent) for _ in range(2))
    read = kind.reader(found.source, tmp_path / "cache", 16, found.greys)
    first = read((found.items["train"][0], found.digests["train"][0]))

    assert kind is images.SOURCES[name]
    assert kind.faults(source) == []
    assert found.fingerprint == again.fingerprint
    assert all(found.items[split] for split in ("train", "val", "test"))
    assert found.target.outputs == len(found.classes) > 1
    assert isinstance(first, images.Decoded)
    assert (first.pixels.shape, first.pixels.dtype) == ((16, 16, 3), np.uint8)


def test_what_is_no_source_is_told(tmp_path: Path) -> None:
    """A misspelt name would be taken for a folder that holds nothing."""
    (fault,) = images.of("digit").faults("digit")
    with pytest.raises(DataError, match="there is no such folder"):
        images.of(str(tmp_path / "gone")).find(str(tmp_path / "gone"), 0, DataSettings(), silent)

    assert fault.startswith("unknown data set 'digit'; did you mean 'digits'?")
    assert networks.of("mobilenetv2") is None
