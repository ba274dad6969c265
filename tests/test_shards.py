"""Shards of WebDataset: which files say what, how they are split, and what is refused."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objects_server import Service
from PIL import Image
from test_tables import faults, found, sizes

from search.data import shards, sources, store
from search.errors import DataError

SAMPLES = 40


def picture(number: int) -> bytes:
    """A small image that no other number gives."""
    kept = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)).save(kept, "PNG")
    return kept.getvalue()


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    """A shard of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def packed(folder: Path, labels: Sequence[Mapping[str, bytes]], names: Sequence[str] = ("0", "1")) -> str:
    """Shards of as many samples as there are labels, each with the files that say its label; the pattern of all."""
    for place, name in enumerate(names):
        files: dict[str, bytes] = {}
        for number in range(place, len(labels), len(names)):
            files[f"a/{number:03d}.png"] = picture(number)
            files |= {f"a/{number:03d}.{kind}": text for kind, text in labels[number].items()}
        pack(folder / f"{name}.tar", files)
    return str(folder / f"{{{','.join(names)}}}.tar")


def classes(**more: Any) -> list[dict[str, bytes]]:
    """Cats and dogs, as `.cls` says them, with more files."""
    return [{"cls": ["cat", "dog"][number // 4 % 2].encode(), **more} for number in range(SAMPLES)]


def test_a_pattern_names_its_shards(tmp_path: Path) -> None:
    """A shard would be left out, or another one read."""
    named = shards.Shards(f"{tmp_path}/{{train,val}}-{{08..10}}.tar").names

    assert named == [f"{split}-{number}.tar" for split in ("train", "val") for number in ("08", "09", "10")]
    assert shards.Shards(f"{tmp_path}/a{{1..2}}/b.tar").names == ["a1/b.tar", "a2/b.tar"]


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_every_kind_of_label_gives_the_same(tmp_path: Path, kind: str) -> None:
    """Shards of one tool would be read, and those of another be of no class."""
    names = ["cat", "dog"]
    written = [json.dumps({"label": name}) if kind == "json" else f"{name}\n" for name in names]
    labels = [{kind: written[number % 2].encode()} for number in range(SAMPLES)]
    dataset = found(Path(packed(tmp_path, labels)))
    decoded = store.decode(dataset, max_bad_files=0, image_size=8, cache=tmp_path / "cache")
    images, known = store.load(decoded, "train", 8, tmp_path / "elsewhere")

    assert (dataset.classes, sizes(dataset), dataset.skipped) == (("cat", "dog"), [28, 6, 6], ())
    assert len(images) == len(known) == 28
    for item, label in zip(dataset.items["train"], dataset.labels["train"], strict=True):
        number = int(Path(item).stem)
        assert item == f"{number % 2}.tar/a/{number:03d}.png"
        assert label == number % 2


def test_shards_may_be_called_like_splits(tmp_path: Path) -> None:
    """Images of the test split would be trained on."""
    dataset = found(Path(packed(tmp_path, classes(), ("train-0", "train-1", "val-0", "test-0"))))

    assert sizes(dataset) == [20, 10, 10]
    assert all(item.startswith("test-0.tar/") for item in dataset.items["test"])
    packed(tmp_path, classes(), ("train-0", "more", "test-0"))
    (fault,) = faults(tmp_path / "{train-0,more,test-0}.tar")
    assert fault == "some shards are called like splits, and more.tar are not"


def test_several_labels_numbers_and_groups(tmp_path: Path) -> None:
    """Only classes could be in shards."""
    about = [
        {"label": ["cat"] + ["dog"] * (number % 2), "age": number / 2, "group": number // 4}
        for number in range(SAMPLES)
    ]
    told = [{"json": json.dumps(one).encode()} for one in about]
    source = Path(packed(tmp_path, told))
    several = found(source, task="multilabel")
    ages = found(source, task="regression", label_column="age")

    assert several.classes == ("cat", "dog")
    assert several.counts == {"cat": SAMPLES, "dog": SAMPLES // 2}
    assert sorted(label for split in store.SPLITS for (label,) in ages.labels[split])[:3] == [0, 0.5, 1]
    for dataset in (several, ages):
        groups = {split: {int(Path(item).stem) // 4 for item in dataset.items[split]} for split in store.SPLITS}
        assert not groups["train"] & groups["test"]


def test_a_wrong_sample_is_named(tmp_path: Path) -> None:
    """It would end the search, or be left out without a word."""
    labels = classes()
    labels[1], labels[2] = {}, {**labels[2], "seg.png": b"another picture of the sample"}
    source = packed(tmp_path, labels)
    files = {
        "b/3.png": picture(77),
        "b/3.json": b"{broken",
        "b/1.cls": b"cat",
        "b/2.png": b"no image",
        "b/2.cls": b"dog",
        "b/.hidden": b"",
    }
    pack(tmp_path / "2.tar", files)
    dataset = found(Path(source.replace("0,1", "0,1,2")), 0.2)

    assert dict(dataset.skipped) == {
        "1.tar/a/001": "no label",
        "2.tar/b/1": "no image",
        "2.tar/b/3": "its .json holds no object in JSON",
        "2.tar/b/2": "not a PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image",
    }
    assert sum(sizes(dataset)) == SAMPLES - 1


@pytest.mark.parametrize("left", [600, 5000, -512])
def test_a_shard_that_is_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    """The images at its end would be missing, and nobody know."""
    source = packed(tmp_path, classes())
    whole = (tmp_path / "1.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "1.tar").write_bytes(whole[:left])
    (fault,) = faults(Path(source))

    assert fault.startswith("1.tar is damaged or cut short: ")
    assert fault.endswith("; fetch it again")


def test_shards_that_are_not_there_are_named_before_anything_is_read(tmp_path: Path) -> None:
    """A search would find a part of the images, or begin with a pattern that means nothing."""
    packed(tmp_path, classes())

    assert sources.of(f"{tmp_path}/{{0..3}}.tar") is sources.SOURCES["shards"]
    assert store.faults(f"{tmp_path}/{{0..3}}.tar") == [
        f"{tmp_path}/{{0..3}}.tar: of its 4 shards 2 are not there: 2.tar, 3.tar"
    ]
    (fault,) = store.faults(f"{tmp_path}/{{all}}.tar")
    assert fault.endswith("'{all}' is neither numbers, as in {000..099}, nor names, as in {train,val}")


def test_a_shard_that_changes_is_noticed(tmp_path: Path) -> None:
    """A network would be trained on other images than those that were split."""
    source = packed(tmp_path, classes())
    dataset = found(Path(source))
    item = ("0.tar/a/000.png", "")
    digests = dict(zip(dataset.items["train"], dataset.digests["train"], strict=True))
    kept = next(iter(digests))
    pack(tmp_path / kept.partition("/")[0], {kept.partition("/")[2]: picture(99)})
    read = sources.SOURCES["shards"].reader(dataset.source, tmp_path, 8, dataset.greys)
    changed = read((kept, digests[kept]))
    (tmp_path / "0.tar").unlink()
    gone = sources.SOURCES["shards"].reader(dataset.source, tmp_path, 8, dataset.greys)(item)

    assert changed == sources.Unread("its content has changed", changed=True)
    assert gone == sources.Unread("it is gone, or its shard cannot be read any more", changed=True)


def stored(service: Service, folder: Path, pattern: str) -> str:
    """The URI of shards that were put into object storage."""
    service.objects.create_dir("bucket/shards")
    for path in folder.glob("*.tar"):
        with service.objects.open_output_stream(f"bucket/shards/{path.name}") as stream:
            stream.write(path.read_bytes())
    return service.storage.replace("results", f"shards/{pattern}")


@pytest.mark.slow
def test_shards_in_object_storage_give_the_same(service: Service, tmp_path: Path) -> None:
    """They would have to be fetched by hand, or be split otherwise than where they were tried out."""
    here = Path(packed(tmp_path / "here", classes()))
    uri = stored(service, tmp_path / "here", "{0,1}.tar")
    dataset = store.find(uri, seed=0, max_bad_files=0)
    decoded = store.decode(dataset, max_bad_files=0, image_size=8, cache=tmp_path / "cache")
    images, _ = store.load(decoded, "test", 8, tmp_path / "cache")

    assert store.faults(uri) == []
    assert dataset.source == uri
    assert dataset.fingerprint == found(here).fingerprint
    assert len(images) == len(dataset.items["test"])
    assert "1 are not there: 2.tar" in store.faults(uri.replace("{0,1}", "{0..2}"))[0]


@pytest.mark.slow
def test_a_bucket_that_goes_away_ends_the_decoding_at_once(service: Service, tmp_path: Path) -> None:
    """Every image would be waited for, or the search go on with those that had been read."""
    packed(tmp_path / "here", classes())
    uri = stored(service, tmp_path / "here", "{0,1}.tar")
    dataset = store.find(uri, seed=0, max_bad_files=0)
    gone = iter([False])

    def progress(what: str, done: int, total: int) -> None:  # noqa: ARG001
        if what.startswith("decoding") and next(gone, True) is False:
            service.process.kill()
            service.process.wait()

    with pytest.raises(DataError) as caught:
        store.decode(dataset, max_bad_files=1, image_size=8, cache=tmp_path / "cache", progress=progress)
    assert "gone or changed since the scan, 12 of 40 files" in str(caught.value)
    assert "cannot be read" in str(caught.value)
    assert not list((tmp_path / "cache" / "images").glob("*.npy"))


def test_object_storage_without_shards_says_what_is_read() -> None:
    """A user would look for a folder of that name."""
    assert store.faults("s3://bucket/photos") == [
        "s3://bucket/photos: of object storage only shards, as in s3://bucket/shards/{000..099}.tar, are read; "
        "see docs/data.md"
    ]
