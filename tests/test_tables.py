"""Tables that say what each image is: what is understood, which rows are wrong, and what is refused."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from search.data import store, tables
from search.data.settings import DataSettings
from search.errors import DataError

CLASSES = ("cat", "dog")
IMAGES = 40


def paint(path: Path, number: int) -> Path:
    """A small image that no other number gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)).save(path)
    return path


def listed(root: Path, **more: Any) -> list[dict[str, str]]:
    """Images in `photos/`, and a row for each, with more columns of one value per image."""
    for number in range(IMAGES):
        paint(root / "photos" / f"{number}.png", number)
    return [
        {"path": f"photos/{number}.png", "label": CLASSES[number % 2], **{key: more[key][number] for key in more}}
        for number in range(IMAGES)
    ]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """A table of these rows, of the kind that its ending says."""
    names = list(rows[0])
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        comma = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(comma.join(line) + "\n" for line in [names, *(row.values() for row in rows)]))
    return path


def found(source: Path, max_bad_files: float = 0.01, **settings: str) -> store.Dataset:
    """The data set, with the seed that is the default."""
    return store.find(str(source), seed=0, max_bad_files=max_bad_files, settings=DataSettings(**settings))


def faults(source: Path, max_bad_files: float = 0.01, **settings: str) -> list[str]:
    """What is wrong with a source, sentence by sentence."""
    with pytest.raises(DataError) as caught:
        found(source, max_bad_files, **settings)
    return caught.value.faults


def sizes(dataset: store.Dataset) -> list[int]:
    """How many images each split has."""
    return [len(dataset.items[split]) for split in store.SPLITS]


@pytest.mark.parametrize("kind", tables.KINDS)
def test_every_kind_of_table_gives_the_same(tmp_path: Path, kind: str) -> None:
    """One kind of table has other images, classes or splits than another, or cannot be decoded."""
    table = write(tmp_path / f"labels{kind}", listed(tmp_path))
    dataset = found(table)
    decoded = store.decode(dataset, max_bad_files=0, image_size=8, cache=tmp_path / "cache")
    images, labels = store.load(decoded, "train", 8, tmp_path / "elsewhere")
    assert dataset.source == str(table)
    assert (dataset.classes, sizes(dataset), dataset.skipped) == (CLASSES, [28, 6, 6], ())
    assert len(images) == len(labels) == 28
    for item, label in zip(dataset.items["train"], dataset.labels["train"], strict=True):
        assert int(Path(item).stem) % 2 == label
    assert dataset.notes == ("columns of the table: path is 'path', label is 'label'",)


def test_a_table_is_split_as_a_folder_is(tmp_path: Path) -> None:
    """The same images, told in two ways, are compared on two different test splits."""
    rows = [
        {"path": f"{CLASSES[number % 2]}/{number}.png", "label": CLASSES[number % 2]} for number in reversed(range(40))
    ]
    for number, row in enumerate(rows):
        paint(tmp_path / "photos" / row["path"], number)
    assert found(write(tmp_path / "photos" / "labels.csv", rows)).fingerprint == found(tmp_path / "photos").fingerprint


@pytest.mark.parametrize(
    ("path", "label"), [("file_name", "label"), ("Image Path", "Class"), ("filename", "target"), ("img", "category")]
)
def test_columns_are_known_by_name(tmp_path: Path, path: str, label: str) -> None:
    """Every table must be rewritten before it can be used, or the wrong column is predicted."""
    rows = [{"id": "1", path: row["path"], label: row["label"], "age": "9"} for row in listed(tmp_path)]
    dataset = found(write(tmp_path / "labels.csv", rows))
    assert dataset.classes == CLASSES
    assert dataset.notes == (f"columns of the table: path is '{path}', label is '{label}'",)


def test_columns_may_be_told(tmp_path: Path) -> None:
    """A table whose columns have names of its own cannot be used."""
    rows = [{"where": row["path"], "label": "x", "what": row["label"]} for row in listed(tmp_path)]
    table = write(tmp_path / "labels.csv", rows)
    assert found(table, path_column="where", label_column="what").classes == CLASSES


def test_faults_of_columns_come_at_once(tmp_path: Path) -> None:
    """A guess takes the wrong one of two columns, or the user is told of one fault after the other."""
    rows = [{"image": row["path"], "file": "", "score": row["label"]} for row in listed(tmp_path)]
    table = write(tmp_path / "labels.csv", rows)
    first, second, third = faults(table, group_column="scoer")
    assert first == "the columns 'image' and 'file' could each be the path: say which with --set path_column=NAME"
    assert second.startswith("no column is known to be the label: none is called label, class, ")
    assert third.startswith("group_column=scoer: unknown column 'scoer'; did you mean 'score'?")
    assert third.endswith("\n    its columns are image, file, score")
    (both,) = faults(table, path_column="image", label_column="image")
    assert both.startswith("the column 'image' cannot be path and label at once")


def test_a_column_that_groups_is_mentioned(tmp_path: Path) -> None:
    """Images of one patient are in train and test, and nobody says that it could be otherwise."""
    rows = listed(tmp_path, patient_id=[str(number // 4) for number in range(IMAGES)])
    (note,) = found(write(tmp_path / "labels.csv", rows)).notes
    assert note.endswith("; --set group_column=patient_id would keep all images of one patient_id in one split")


def test_labels_stay_what_they_are(tmp_path: Path) -> None:
    """The class `007` becomes 7, `NA` vanishes, and 10 comes before 2."""
    rows = listed(tmp_path)
    for number, row in enumerate(rows):
        row["label"] = ("NA", "007", "true")[number % 3]
    assert found(write(tmp_path / "labels.csv", rows)).classes == ("007", "NA", "true")
    for number, row in enumerate(rows):
        row["label"] = ("10", "2", "0")[number % 3]
    assert found(write(tmp_path / "labels.csv", rows)).classes == ("0", "2", "10")
    parquet.write_table(
        pyarrow.table({"file": [row["path"] for row in rows], "label": [number % 2 for number in range(IMAGES)]}),
        tmp_path / "labels.parquet",
    )
    assert found(tmp_path / "labels.parquet").classes == ("0", "1")


def test_a_table_of_excel(tmp_path: Path) -> None:
    """A table saved by Excel, with its mark at the start, semicolons and blank lines, is refused."""
    lines = [f"{row['path']};{row['label']}" for row in listed(tmp_path)]
    text = "\r\n".join(["path;label", *lines, "", ";", ""])
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert (found(tmp_path / "labels.csv").skipped, sizes(found(tmp_path / "labels.csv"))) == ((), [28, 6, 6])


def test_wrong_rows_are_named_with_their_lines(tmp_path: Path) -> None:
    """A wrong row ends the search, is used, or must be looked for among thousands of lines."""
    rows = listed(tmp_path, remark=["two\nlines", *["one"] * (IMAGES - 1)])
    rows[0]["remark"] = '"two\nlines"'
    (tmp_path / "photos" / "5.png").write_bytes(b"no image")
    paint(tmp_path / "outside.png", 99)
    (tmp_path / "photos" / "7.png").unlink()
    (tmp_path / "photos" / "7.png").symlink_to(tmp_path / "outside.png")
    paint(tmp_path / "photos" / "tab\t.png", 50)
    text = write(tmp_path / "photos" / "labels.csv", rows).read_text().replace("photos/", "")
    more = ["gone.png,cat,", "1.png,cat,", ",cat,", "../outside.png,dog,", "2.png,cat,one"]
    more += [f"{tmp_path}/x.png,dog,", "8.png,cat", "tab\t.png,dog,", "", "labels.csv,dog,", "3.png,,one"]
    (tmp_path / "photos" / "labels.csv").write_text(text + "\n".join(more))
    dataset = found(tmp_path / "photos" / "labels.csv", max_bad_files=0.3)
    first = 3 + IMAGES  # the line of the first of these: the header and the row of two lines stand before them
    expected = {
        ("../outside.png", f"line {first + 3}: outside the folder of the table"),
        ("1.png", f"line 4: but line {first + 1} says that its label is 'cat'"),
        ("1.png", f"line {first + 1}: but line 4 says that its label is 'dog'"),
        ("3.png", f"line 6: but line {first + 10} says that its label is ''"),
        ("3.png", f"line {first + 10}: but line 6 says that its label is 'dog'"),
        ("5.png", "line 8: not a PNG, JPEG, GIF, BMP, WebP, TIFF, PPM, AVIF or HEIC image"),
        ("7.png", "line 10: a link that leaves the folder"),
        ("gone.png", f"line {first}: there is no such file"),
        ("labels.csv", f"line {first + 2}: no path"),
        ("labels.csv", f"line {first + 6}: 2 values, and the table has 3 columns"),
        ("labels.csv", f"line {first + 9}: not an image"),
        ("tab\\t.png", f"line {first + 7}: control characters in its name"),
        (f"{tmp_path}/x.png", f"line {first + 5}: outside the folder of the table"),
    }
    assert (set(dataset.skipped), len(dataset.skipped)) == (expected, len(expected))
    assert "rows that say once more what another one says: 1" in dataset.notes
    assert sum(sizes(dataset)) == IMAGES - 4
    (fault,) = faults(tmp_path / "photos" / "labels.csv")
    assert fault.startswith("13 of its 49 image files cannot be used, max_bad_files=0.01 allows 1; remove them, or ")
    assert fault.endswith("put the table into the folder that holds the images, or into one above it")


def test_a_bad_row_survives_decoding(tmp_path: Path) -> None:
    """A row that was left out takes a good image with it once the images come from the cache."""
    rows = listed(tmp_path)
    table = write(tmp_path / "labels.csv", [*rows, {"path": "gone.png", "label": "cat"}])
    first, second = (
        store.decode(found(table, 0.1), max_bad_files=0.1, image_size=8, cache=tmp_path / "cache") for _ in range(2)
    )
    assert first == second
    assert first.skipped == (("gone.png", "line 42: there is no such file"),)


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("Training", "valid", "TEST"), ("train", "dev", "holdout")]
)
def test_splits_of_a_table_are_kept(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A table that says which images are for testing is split another way."""
    splits = [words[0]] * 20 + [words[1]] * 10 + [words[2]] * 10
    dataset = found(write(tmp_path / "labels.csv", listed(tmp_path, split=splits)))
    assert sizes(dataset) == [20, 10, 10]
    assert {int(Path(item).stem) for item in dataset.items["test"]} == {*range(30, 40)}


def test_validation_is_split_off_a_table(tmp_path: Path) -> None:
    """A table with train and test alone is refused; or test images are validated on."""
    dataset = found(write(tmp_path / "labels.csv", listed(tmp_path, split=["train"] * 30 + ["test"] * 10)))
    assert sizes(dataset) == [26, 4, 10]
    assert Counter(dataset.labels["val"]) == {0: 2, 1: 2}
    assert dataset.notes[-1].startswith("no images are given for val: 15% of the training images of each class")


def test_unknown_and_missing_splits(tmp_path: Path) -> None:
    """A misspelt split is trained on, or a table without test images is accepted."""
    splits = ["train"] * 20 + ["val"] * 10 + ["test"] * 8 + ["tset", ""]
    dataset = found(write(tmp_path / "labels.csv", listed(tmp_path, split=splits)), 0.05)
    assert dict(dataset.skipped) == {
        "photos/38.png": "line 40: unknown split 'tset'; did you mean 'test'? known are test, train, val",
        "photos/39.png": "line 41: no split",
    }
    rows = [{**row, "split": "tset" if row["split"] == "test" else "train"} for row in listed(tmp_path, split=splits)]
    table = write(tmp_path / "labels.csv", rows)
    assert faults(table) == ["images are given for train, none for test: add them; no split is called 'tset'"]


@pytest.mark.parametrize("name", ["labels.csv", "metadata.jsonl"])
def test_a_folder_with_a_table_in_it(tmp_path: Path, name: str) -> None:
    """Images beside their table are called images outside the class folders."""
    rows = [{"file_name": Path(row["path"]).name, "label": row["label"]} for row in listed(tmp_path)]
    write(tmp_path / "photos" / name, rows)
    (tmp_path / "photos" / f"._{name}").write_bytes(b"of macOS")
    dataset = found(tmp_path / "photos")
    assert (dataset.classes, dataset.source) == (CLASSES, str(tmp_path / "photos"))
    decoded = store.decode(dataset, max_bad_files=0, image_size=8, cache=tmp_path / "cache")
    assert decoded == dataset


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    """An image folder with `metadata.csv` in each split is called splits without classes."""
    listed(tmp_path)
    for split, numbers in {"train": range(20), "validation": range(20, 30), "test": range(30, 40)}.items():
        (tmp_path / split).mkdir()
        for number in numbers:
            (tmp_path / "photos" / f"{number}.png").rename(tmp_path / split / f"{number}.png")
        rows = [{"file_name": f"{number}.png", "label": CLASSES[number % 2]} for number in numbers]
        write(tmp_path / split / "metadata.csv", rows)
    (tmp_path / "photos").rmdir()
    dataset = found(tmp_path)
    assert (sizes(dataset), dataset.classes) == ([20, 10, 10], CLASSES)
    assert dataset.items["val"][0] == "validation/20.png"
    (tmp_path / "train" / "0.png").unlink()
    assert found(tmp_path, 0.1).skipped == (("train/0.png", "train/metadata.csv, line 2: there is no such file"),)
    for split in ("train", "test"):
        (tmp_path / split / "metadata.csv").write_text("file_name,kind\n")
    first, second = faults(tmp_path)
    assert first.startswith("test/metadata.csv: no column is known to be the label")
    assert second.startswith("train/metadata.csv: no column is known to be the label")


def test_class_folders_beside_a_table_are_classes(tmp_path: Path) -> None:
    """A list that lies beside class folders changes what is predicted."""
    for number in range(20):
        paint(tmp_path / "photos" / CLASSES[number % 2] / f"{number}.png", number)
    before = found(tmp_path / "photos").fingerprint
    (tmp_path / "photos" / "labels.csv").write_text("path,label\ncat/0.png,bird\n")
    assert found(tmp_path / "photos").fingerprint == before


def test_a_table_above_the_folder_of_its_images(tmp_path: Path) -> None:
    """The most usual layout, `labels.csv` beside `images/`, is called a single class."""
    table = write(tmp_path / "labels.csv", listed(tmp_path))
    assert found(tmp_path).fingerprint == found(table).fingerprint
    assert faults(tmp_path, folders="classes")[0].startswith("only one class, 'photos', holds usable images")


@pytest.mark.parametrize("folders", [("photos", "more"), ("train", "test"), ("photos/2019", "photos/2020")])
def test_a_table_above_its_images_is_mentioned(tmp_path: Path, folders: tuple[str, ...]) -> None:
    """Who names the folder is told of missing class folders, and not that the table can be given."""
    for number, folder in enumerate(folders):
        paint(tmp_path / folder / "x.png", number)
    table = write(tmp_path / "labels.csv", [{"path": "x", "label": "y"}])
    way = f"\n    if labels.csv says what the images are, give --data {table}"
    assert faults(tmp_path)[-1].endswith(way)
    told = "--set label_column=y: there is no table in which to look for a column"
    assert faults(tmp_path, label_column="y") == [told + way]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("labels.csv", b"", "the table has no rows"),
        ("labels.csv", b"path,label\n", "the table has no rows"),
        ("labels.jsonl", b"", "the table has no rows"),
        ("labels.csv", "path,label\na,\xe9\n".encode("latin1"), "invalid UTF8 data; save it as UTF-8"),
        ("labels.csv", "path,label\na,b\n".encode("utf16"), "invalid start byte; save it as UTF-8"),
        ("labels.csv", b"path,label,label\na,b,c\n", "2 columns are called 'label': rename them"),
        ("labels.parquet", b"no parquet", "the table cannot be read: "),
        ("labels.jsonl", b'{"path": "a",', "the table cannot be read: JSON parse error"),
        ("labels.jsonl", b'{"path": "a", "label": {"x": 1}}', "the column 'label' (label) holds struct<x: int64>"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """A broken table ends in a traceback, or in words that say nothing."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        found(tmp_path / name)
    assert told in caught.value.faults[0]
    assert caught.value.subject == str(tmp_path / name)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    """A misspelt table is taken for a folder."""
    told = f"{tmp_path}/labels.csv: there is no such file"
    assert faults(tmp_path / "labels.csv") == store.faults(str(tmp_path / "labels.csv")) == [told]
    os.mkfifo(tmp_path / "labels.csv")
    assert faults(tmp_path / "labels.csv") == [f"{tmp_path}/labels.csv: not a file that can be read"]


def test_settings_of_columns_need_a_table() -> None:
    """A setting that has no effect is taken without a word."""
    (fault,) = faults(Path("digits"), label_column="y")
    assert fault == "--set label_column=y: there is no table in which to look for a column"
