"""Folders as people have them: splits under other names, waste, links, copies; what is understood, asked or refused."""

import os
import shutil
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import reading, store
from search.data.settings import DataSettings
from search.errors import DataError


def paint(path: Path, number: int, kind: str = "PNG") -> Path:
    """A small image that no other number gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)).save(path, kind)
    return path


def folder(root: Path, counts: Mapping[str, int]) -> Path:
    """A folder in which each of these holds so many images."""
    for name, count in counts.items():
        for number in range(count):
            paint(root / name / f"{number:03}.png", zlib.crc32(f"{name} {number}".encode()))
    return root


def split(root: Path, *names: str, each: int = 2) -> Path:
    """A folder of folders that each hold the classes cat and dog."""
    return folder(root, {f"{name}/{kind}": each for name in names for kind in ("cat", "dog")})


def found(root: Path, max_bad_files: float = 0.01, folders: str = "auto") -> store.Dataset:
    """The data set, with the seed that is the default."""
    return store.find(str(root), seed=0, max_bad_files=max_bad_files, settings=DataSettings(folders=folders))


def faults(root: Path, max_bad_files: float = 0.01) -> list[str]:
    """What is wrong with a folder, sentence by sentence."""
    with pytest.raises(DataError) as caught:
        found(root, max_bad_files)
    return caught.value.faults


def sizes(dataset: store.Dataset) -> list[int]:
    """How many images each split has."""
    return [len(dataset.items[part]) for part in store.SPLITS]


# splits


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "VALID", "Test"),
        ("training_set", "validation_set", "test_set"),
        ("trainset", "valset", "testset"),
        ("training-images", "dev images", "testing.images"),
        ("train2017", "val2017", "test2017"),
        ("training", "validation", "evaluation"),
        ("train", "valid", "test"),
        ("train", "dev", "testing"),
    ],
)
def test_splits_are_known_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A network learns to tell training images from test images, and its accuracy looks fine."""
    dataset = found(split(tmp_path, *names))
    assert dataset.classes == ("cat", "dog")
    for part, name in zip(store.SPLITS, names, strict=True):
        assert dataset.items[part] == tuple(
            f"{name}/{kind}/00{index}.png" for kind in dataset.classes for index in (0, 1)
        )
    renamed = [f"'{name}' for {part}" for part, name in zip(store.SPLITS, names, strict=True) if part != name]
    assert len(dataset.notes) == bool(renamed)
    assert all(one in dataset.notes[0] for one in renamed)


def test_validation_is_split_off(tmp_path: Path) -> None:
    """Data of a competition, with train and test alone, is refused; or test images are validated on."""
    dataset = found(split(tmp_path, "training_set", "test_set", each=20))
    assert sizes(dataset) == [34, 6, 40]
    assert Counter(dataset.labels["val"]) == {0: 3, 1: 3}
    assert all(item.startswith("training_set/") for item in (*dataset.items["train"], *dataset.items["val"]))
    assert "no images are given for val: 15% of the training images" in dataset.notes[-1]


def test_folders_beside_splits_are_told(tmp_path: Path) -> None:
    """A folder beside the splits is read for nothing, or vanishes without a word."""
    root = folder(split(tmp_path, *store.SPLITS), {"unlabelled": 3, "labels/x": 1})
    dataset = found(root)
    assert sizes(dataset) == [4, 4, 4]
    assert dataset.notes[0] == "folders beside the splits are left out: labels, unlabelled"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train"], "train are taken for splits, and there is no 'test' beside; add it; or give --data {}/train, to"),
        (["train", "val"], "train and val are taken for splits, and there is no 'test' beside; add it; or give "),
        (["val", "test"], "test and val are taken for splits, and there is no 'train' beside; add it; or --set"),
        (["train", "val", "valid", "test"], "the folders val and valid are both taken for the split 'val'; keep one"),
    ],
)
def test_half_given_splits(tmp_path: Path, names: list[str], told: str) -> None:
    """Splits of which one is missing, or there twice, are trained on as if they were classes."""
    (sentence,) = faults(split(tmp_path, *names))
    assert sentence.startswith(told.format(tmp_path))
    assert sentence.endswith("--set folders=classes, if the folders are classes")


@pytest.mark.parametrize("pictures", ["train", "test"])
def test_splits_without_classes(tmp_path: Path, pictures: str) -> None:
    """The images of a competition have no classes; train and test are then taken for classes."""
    other = {"train": "test", "test": "train"}[pictures]
    root = folder(tmp_path, {f"{other}/cat": 3, f"{other}/dog": 3, pictures: 4})
    (sentence,) = faults(root)
    told = f"{pictures} is taken for a split, and holds no class folders; expected {pictures}/<class>/*; or "
    way = f"give --data {root / 'train'}, to have it split, or " if other == "train" else ""
    assert sentence == f"{told}{way}--set folders=classes, if the folders are classes"
    assert found(root, folders="classes").classes == ("test", "train")


@pytest.mark.parametrize("names", [("seg_train/seg_train", "seg_test/seg_test"), ("my_train/all", "my_test/all")])
def test_splits_under_other_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Public data sets as they are unpacked are taken for classes: status 0, accuracy 1.0."""
    (sentence,) = faults(split(tmp_path, *names))
    told = ", ".join(sorted(name.partition("/")[0] for name in names))
    assert sentence.startswith(
        f"the folders {told} each hold the folders cat, dog, as splits do: if there are splits, "
    )


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (
            {"set_A/cat": 3, "set_A/dog": 3, "set_B/cat": 3, "set_B/dog": 3, "docs/figures": 1, "docs/tables": 1},
            "set_A, set_B",
        ),
        (
            {**{f"mnist_train/{name}": 3 for name in "abcdef"}, "mnist_test/a": 3, "mnist_test/b": 3},
            "mnist_test, mnist_train",
        ),
        ({"cat": 3, "dog": 3, "test/cat": 3, "test/dog": 3}, "test holds folders of the same names as those beside"),
        (
            {"yes": 3, "no": 3, "tumours/yes": 3, "tumours/no": 3},
            "tumours holds folders of the same names as those beside",
        ),
        ({"train/a": 3, "train/b": 3, "test_stg1": 3}, "train is called like a split, and holds the folders a, b"),
        ({"train/a": 3, "train/b": 3, "unlabelled": 3}, "train is called like a split, and holds the folders a, b"),
    ],
)
def test_what_looks_like_splits_is_asked_about(tmp_path: Path, counts: dict[str, int], told: str) -> None:
    """Folds, or splits under names that nobody knows, are taken for classes: status 0, accuracy 1.0."""
    root = folder(tmp_path, counts)
    (sentence,) = faults(root)
    assert told in sentence
    assert sentence.endswith("or --set folders=classes, if the folders are classes")


def test_folders_may_be_classes_all_the_same(tmp_path: Path) -> None:
    """Classes that hold folders of the same names cannot be searched; or these folders are forgotten silently."""
    root = split(tmp_path, "cats", "lions", each=4)
    assert "as splits do" in faults(root)[0]
    dataset = found(root, folders="classes")
    assert dataset.classes == ("cats", "lions")
    assert dataset.notes == ("classes whose folders hold folders, which are not told apart: cats, lions",)


@pytest.mark.parametrize("between", ["train", "images"])
def test_one_folder_too_many_below_splits(tmp_path: Path, between: str) -> None:
    """Where a folder lies between splits and classes, it is taken for a class."""
    root = split(tmp_path, f"train/{between}", f"test/{between}")
    first, second = faults(root)
    assert second.startswith(
        f"train holds {between} alone, and in it are the folders cat, dog; move the classes up into"
    )
    assert first.startswith(f"test holds {between} alone")


@pytest.mark.parametrize(
    "counts",
    [
        {"train": 3, "plane": 3, "bus": 3},
        {"cat/big/one": 3, "cat/small": 3, "dog/old": 3, "dog/young": 3},
        {"train/steam": 3, "plane": 3, "bus": 3},
        {"cat/images": 3, "dog/images": 3},
        {"test tubes": 3, "training shoes": 3},
    ],
)
def test_classes_that_only_sound_like_splits(tmp_path: Path, counts: dict[str, int]) -> None:
    """Trains, planes and buses are taken for a folder whose splits are missing."""
    assert found(folder(tmp_path, counts)).classes == tuple(sorted({name.partition("/")[0] for name in counts}))


@pytest.mark.parametrize(
    ("counts", "inside", "told"),
    [
        ({"photos/cat": 3, "photos/dog": 3}, "photos", "cat, dog"),
        ({"a/b/c/cat": 3, "a/b/c/dog": 3}, "a/b/c", "cat, dog"),
        ({f"photos/{part}/{kind}": 2 for part in store.SPLITS for kind in "ab"}, "photos", "test, train, val"),
        (
            {f"photos/c{number:02}": 3 for number in range(12)},
            "photos",
            "c00, c01, c02, c03, c04, c05, c06, c07 and 4 more",
        ),
    ],
)
def test_one_folder_too_many(tmp_path: Path, counts: dict[str, int], inside: str, told: str) -> None:
    """Who names the folder around the data learns only that there is one class."""
    root = folder(tmp_path, counts)
    (root / "papers").mkdir()
    (root / "papers" / "licence.txt").write_text("free")
    said = faults(root)
    first = inside.partition("/")[0]
    assert said[0].startswith(f"only one class, '{first}', holds usable images; at least two are needed")
    line = f"inside '{inside}' are the folders {told}: if these are the classes, give --data {root / inside}"
    assert said[-1].endswith(f"\n    {line}")
    assert len(found(root / inside).classes) > 1


def test_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    """A class is two to the program, and looks like one in every message."""
    forms = [unicodedata.normalize(form, "été") for form in ("NFC", "NFD")]
    root = split(tmp_path, *store.SPLITS)
    for number, (part, form) in enumerate(zip(store.SPLITS, [*forms, forms[0]], strict=True)):
        paint(root / part / form / "x.png", 500 + number)
    dataset = found(root)
    assert dataset.classes == ("cat", "dog", forms[0])
    assert f"val/{forms[1]}/x.png" in dataset.items["val"]
    assert dataset.notes == ("class 'été' is written in 2 Unicode forms, and taken for one",)


def test_names_that_cannot_be_shown(tmp_path: Path) -> None:
    """A folder's name ends the search with a traceback, or moves the cursor of a terminal."""
    root = split(tmp_path, *store.SPLITS)
    for name in (b"other\xff", b"red\n\x1b[31m"):
        (root / os.fsdecode(name)).mkdir()
    assert found(root).notes == ("folders beside the splits are left out: other\\udcff, red\\n\\x1b[31m",)
    flat = folder(tmp_path / "flat", {"cat": 4, "dog\n": 1})
    assert all("\n" not in sentence.partition("skipped:")[0].strip() for sentence in faults(flat, max_bad_files=1))


def test_a_hidden_reason_is_told(tmp_path: Path) -> None:
    """A class that is empty only because its few files cannot be read is called too small, and nothing else."""
    root = folder(tmp_path, {"cat": 200, "dog": 200})
    (root / "bird").mkdir()
    (root / "bird" / "1.png").write_bytes(b"no image")
    (sentence,) = faults(root)
    assert "\n    bird/1.png: not a PNG" in sentence


def test_many_small_classes_are_few_lines(tmp_path: Path) -> None:
    """150 classes with too few images give 150 lines."""
    said = faults(folder(tmp_path, {f"class{number:03}": 1 for number in range(150)}))
    assert len(said) == 21
    assert said[-1] == "130 more classes have too few images for a split"


def test_a_built_in_set_hides_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a folder called digits searches on other digits, without a word."""
    monkeypatch.chdir(tmp_path)
    assert store.find("digits", seed=0, max_bad_files=0).notes == ()
    folder(tmp_path / "digits", {"one": 3, "two": 3})
    (note,) = store.find("digits", seed=0, max_bad_files=0).notes
    assert "--data ./digits" in note
    assert store.find("./digits", seed=0, max_bad_files=0).classes == ("one", "two")


# files


def test_images_are_told_by_content(tmp_path: Path) -> None:
    """A class whose files have another ending, or none, drops out, and the accuracy is that of the other one."""
    root = folder(tmp_path, {"cat": 12})
    assert "HEIF" in reading.formats()
    kinds = {"1": "PNG", "2.jfif": "JPEG", "3.dat": "GIF", "4.JPEG": "BMP", "5.x": "WEBP"}
    kinds |= {"6.tif": "TIFF", "7.avif": "AVIF", "8.heic": "HEIF"}
    for number, (name, kind) in enumerate(kinds.items()):
        paint(root / "dog" / name, number, kind)
    dataset = found(root)
    assert sum(sizes(dataset)) == 20
    assert (dataset.skipped, dataset.notes) == ((), ())


def test_a_class_of_unread_files_is_a_fault(tmp_path: Path) -> None:
    """A class of files that cannot be read drops out, status 0, where it is small enough to be allowed."""
    root = folder(tmp_path, {"cat": 200, "dog": 200})
    for number in range(3):
        (root / "bird").mkdir(exist_ok=True)
        (root / "bird" / f"{number}.psd").write_bytes(b"8BPS" + bytes([number]))
    (sentence,) = faults(root)
    assert sentence.startswith("class 'bird' has too few images for a split: 0 in all")
    for number in range(30):
        (root / "bird" / f"{number}.psd").write_bytes(b"8BPS" + bytes([number]))
    assert faults(root)[0].splitlines()[-1] == "    and 10 more: 10 bird/*.psd"


def test_what_lies_beside_images_is_counted_by_ending(tmp_path: Path) -> None:
    """Labels and captions beside the images count as bad images, or vanish without a word."""
    root = folder(tmp_path, {"cat": 4, "dog": 4})
    for path in list(root.rglob("*.png")):
        path.with_suffix(".txt").write_text("a caption")
    (root / "cat" / "Thumbs.db").write_bytes(bytes(512))
    (root / "README").write_text("photos")
    dataset = found(root)
    assert sum(sizes(dataset)) == 8
    assert dataset.notes == ("files left out because they are no images: 8 .txt, 1 README, 1 .db",)


def test_waste_is_left_out_and_told(tmp_path: Path) -> None:
    """The thumbnails that a network drive keeps are trained on, or are a class of their own."""
    root = folder(
        tmp_path, {"cat": 4, "dog": 4, "dog/@eaDir/000.png": 2, "@eaDir": 2, "__MACOSX/cat": 3, ".bird/2019": 2}
    )
    dataset = found(root)
    assert dataset.classes == ("cat", "dog")
    assert sum(sizes(dataset)) == 8
    assert dataset.notes == (
        "hidden folders are left out, with the images in them: .bird",
        "folders of thumbnails or waste left out: 2 @eaDir, 1 __MACOSX",
    )


@pytest.mark.parametrize(
    ("make", "reason", "advice"),
    [
        ("outside", "a link that leaves the folder", "cp -rL"),
        ("nothing", "a link to nothing", "git annex get"),
        ("pointer", "a Git LFS pointer", "git lfs pull"),
    ],
)
def test_what_stands_for_images_comes_with_advice(tmp_path: Path, make: str, reason: str, advice: str) -> None:
    """Data behind the links of DVC or git-annex, or the pointers of Git LFS, is refused, and nobody says what to do."""
    root = folder(tmp_path / "photos", {"cat": 4, "dog": 4})
    for number in range(3):
        path = root / "cat" / f"other{number}.png"
        if make == "pointer":
            path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{number}\nsize 12345\n")
        else:
            target = tmp_path / "store" / f"{number}.png" if make == "outside" else root / ".git" / "annex" / path.name
            path.symlink_to(paint(target, 900 + number) if make == "outside" else target)
    first, *lines = faults(root)[0].splitlines()
    assert first.startswith("3 of its 11 image files cannot be used")
    assert lines[0] == f"    cat/other0.png: {reason}"
    assert advice in lines[-1]


def test_a_class_that_is_a_link(tmp_path: Path) -> None:
    """A data set put together from links to folders elsewhere is empty, and nobody says what to do."""
    folder(tmp_path / "store", {"cat": 3, "dog": 3})
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).symlink_to(tmp_path / "store" / name)
    (sentence,) = faults(tmp_path / "photos")
    assert sentence.startswith("none of its image files can be used, 2 in all:\n    cat: a link that leaves the folder")
    assert "cp -rL" in sentence
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")  # follows links, as cp -rL does
    assert found(tmp_path / "copy").classes == ("cat", "dog")


def test_heic_without_its_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of a telephone are refused, and nobody says what reads them."""
    root = folder(tmp_path, {"cat": 4, "dog": 4})
    assert "HEIF" in reading.formats()
    for number in range(2):
        paint(root / "cat" / f"IMG_{number}.HEIC", 500 + number, "HEIF")
    without = tuple(name for name in reading.formats() if name != "HEIF")
    monkeypatch.setattr(reading, "formats", lambda: without)
    *_, first, _, advice = faults(root)[0].splitlines()
    assert first == "    cat/IMG_0.HEIC: a HEIC image"
    assert "pip install 'finetune-search[heic]'" in advice


# copies


def test_all_copies_of_an_image_are_in_one_split(tmp_path: Path) -> None:
    """A rare class that was balanced by copying is scattered over the splits, and then left with one image."""
    root = folder(tmp_path, {"common": 40, "rare": 4})
    for path in list((root / "rare").iterdir()):
        for number in range(9):
            shutil.copy(path, path.with_name(f"{path.stem}_{number}.png"))
    dataset = found(root)
    assert dataset.skipped == ()
    assert sum(sizes(dataset)) == 80
    digests = [set(dataset.digests[part]) for part in store.SPLITS]
    assert sum(map(len, digests)) == len(set.union(*digests)) == 44
    assert [Counter(dataset.labels[part])[1] for part in store.SPLITS] == [20, 10, 10]
    assert dataset.notes == ("files that are copies of others: 36; all copies of an image are in one split",)


def test_copies_alone_are_too_few(tmp_path: Path) -> None:
    """A class of one image, copied, is told to have images enough."""
    root = folder(tmp_path, {"cat": 4, "dog": 1})
    for number in range(9):
        shutil.copy(root / "dog" / "000.png", root / "dog" / f"copy{number}.png")
    assert faults(root)[0].startswith(
        "class 'dog' has too few images for a split: 10 in all, 1 without copies, none in "
    )


@pytest.mark.parametrize("given", [False, True], ids=["to split", "split"])
def test_one_image_in_two_classes(tmp_path: Path, given: bool) -> None:
    """An image under two classes is a copy to one of them, and teaches the network a wrong answer."""
    root = split(tmp_path, *store.SPLITS, each=20) if given else folder(tmp_path, {"cat": 60, "dog": 60})
    first, second = ("train/cat/000.png", "test/dog/x.png") if given else ("cat/000.png", "dog/x.png")
    shutil.copy(root / first, root / second)
    dataset = found(root, max_bad_files=0.05)
    assert dict(dataset.skipped) == {
        first: f"a contradiction: the same image as {second}, of class 'dog'",
        second: f"a contradiction: the same image as {first}, of class 'cat'",
    }
    assert sum(sizes(dataset)) == 119
    assert "a contradiction" in faults(root, max_bad_files=0)[0]
