"""Tables with several labels an image, or numbers: what is understood, how it is split, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from test_tables import IMAGES, faults, found, listed, sizes, write

from search.data import labels, store

SEVERAL = ["cat|dog", "dog", "", "cat"]


def rows_of(dataset: store.Dataset) -> dict[int, object]:
    """Number of the image → its label."""
    return {
        int(Path(item).stem): label
        for split in store.SPLITS
        for item, label in zip(dataset.items[split], dataset.labels[split], strict=True)
    }


@pytest.mark.parametrize("separator", labels.SEPARATORS)
def test_several_labels_in_one_column(tmp_path: Path, separator: str) -> None:
    """An image of a cat and a dog would be of a class of its own."""
    rows = listed(tmp_path)
    for number, row in enumerate(rows):
        row["label"] = SEVERAL[number % 4].replace("|", f" {separator} ")
    dataset = found(write(tmp_path / "labels.tsv", rows), task="multilabel")

    assert dataset.classes == ("cat", "dog")
    assert dataset.counts == {"cat": 20, "dog": 20}
    assert rows_of(dataset) == {number: [(0, 1), (1,), (), (0,)][number % 4] for number in range(IMAGES)}
    assert dataset.targets("train").shape == (len(dataset.items["train"]), 2)
    assert dataset.targets("train").sum() == sum(map(len, dataset.labels["train"]))


def test_a_separator_may_be_told(tmp_path: Path) -> None:
    """Labels that contain a comma would be torn apart."""
    rows = listed(tmp_path)
    for number, row in enumerate(rows):
        row["label"] = ["cat, large/dog", "dog"][number % 2]
    table = write(tmp_path / "labels.tsv", rows)

    assert found(table, task="multilabel", label_separator="/").classes == ("cat, large", "dog")


def test_several_columns_of_yes_and_no(tmp_path: Path) -> None:
    """The table of most competitions would have to be rewritten."""
    ticks = {
        "cat": [str(number % 2) for number in range(IMAGES)],
        "dog": [["yes", "", "no"][number % 3] for number in range(IMAGES)],
    }
    table = write(tmp_path / "labels.csv", listed(tmp_path, **ticks))
    dataset = found(table, task="multilabel", label_column="cat, dog")

    assert dataset.classes == ("cat", "dog")
    assert rows_of(dataset)[3] == (0, 1)
    assert rows_of(dataset)[4] == ()
    assert "label is 'cat' and 'dog'" in dataset.notes[0]


def test_labels_have_their_share_in_every_split(tmp_path: Path) -> None:
    """A rare label would be in one split alone, and its figures be no numbers."""
    rows = listed(tmp_path)
    for number, row in enumerate(rows):
        row["label"] = "common" + "|rare" * (number % 10 == 0)
    dataset = found(write(tmp_path / "labels.csv", rows), task="multilabel")
    held = [sum(1 in label for label in dataset.labels[split]) for split in store.SPLITS]

    assert sizes(dataset) == [28, 6, 6]
    assert min(held) >= 1


def test_one_number_or_several(tmp_path: Path) -> None:
    """A price would be a class of its own."""
    numbers = {"price": [f"{number / 2}" for number in range(IMAGES)], "age": ["1e3", "20"] * (IMAGES // 2)}
    table = write(tmp_path / "labels.csv", listed(tmp_path, **numbers))
    one = found(table, task="regression", label_column="price")
    both = found(table, task="regression", label_column="price,age")

    assert one.classes == ("price",)
    assert rows_of(one) == {number: (number / 2,) for number in range(IMAGES)}
    assert one.counts == {}
    assert rows_of(both)[1] == (0.5, 20.0)
    target = both.target
    assert (target.outputs, target.label_shape) == (2, (2,))
    known = both.targets("train")
    np.testing.assert_allclose(target.mean, known.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(target.scaled(known).std(axis=0), 1, rtol=1e-5)
    assert one.fingerprint != both.fingerprint


def test_large_and_small_numbers_are_in_every_split(tmp_path: Path) -> None:
    """The test split would hold other numbers than those that were learned."""
    rows = listed(tmp_path, price=[str(2.0**number) for number in range(IMAGES)])
    dataset = found(write(tmp_path / "labels.csv", rows), task="regression", label_column="price")

    assert min(sizes(dataset)) == 5
    for split in store.SPLITS:
        places = np.log2([label[0] for label in dataset.labels[split]])
        assert places.min() < IMAGES / 4
        assert places.max() > 3 * IMAGES / 4


def test_what_is_no_label_is_named_with_its_line(tmp_path: Path) -> None:
    """One wrong cell among thousands would end the search, or be taken for another value."""
    numbers = ["3", "high", "", "nan", *["1", "2"] * ((IMAGES - 4) // 2)]
    table = write(tmp_path / "labels.csv", listed(tmp_path, price=numbers, cat=["1", "perhaps"] * (IMAGES // 2)))
    prices = dict(found(table, 0.2, task="regression", label_column="price").skipped)
    (ticks,) = faults(table, task="multilabel", label_column="cat,price")

    assert prices == {
        "photos/1.png": "line 3: 'high' in the column 'price' is no number",
        "photos/2.png": "line 4: no label",
        "photos/3.png": "line 5: 'nan' in the column 'price' is no number",
    }
    assert "'perhaps' in the column 'cat' is neither 1 nor 0; 'high' in the column 'price' is neither 1 nor 0" in ticks


def test_what_cannot_be_learned_is_refused(tmp_path: Path) -> None:
    """A search would train for hours, and have nothing to tell apart."""
    rows = listed(tmp_path, price=["7"] * IMAGES, cat=["1", "0"] * (IMAGES // 2), none=[""] * IMAGES)
    table = write(tmp_path / "labels.csv", rows)
    same = faults(table, task="regression", label_column="price")
    empty = faults(table, task="multilabel", label_column="cat,none")

    assert [fault[:40] for fault in same] == [
        f"all numbers of 'price' in {split} are the same"[:40] for split in store.SPLITS
    ]
    assert any("label 'none' has too few images for a split: 0 in all" in fault for fault in empty)


def test_a_label_in_one_split_alone_is_refused(tmp_path: Path) -> None:
    """It would be learned and never tested, or tested and never learned."""
    rows = listed(tmp_path, split=["train", "val", "test", "train"] * (IMAGES // 4))
    for row in rows:
        row["label"] = "cat|rare" if row["split"] == "test" else "cat"
    (fault,) = faults(write(tmp_path / "labels.csv", rows), task="multilabel")

    assert fault.startswith("label 'rare' has too few images for a split: 10 in all, none in train and val")
    assert "at least one of every label" in fault


def test_several_columns_are_for_several_labels_or_numbers(tmp_path: Path) -> None:
    """The second column would be left out without a word."""
    table = write(tmp_path / "labels.csv", listed(tmp_path, more=["1"] * IMAGES))
    (fault,) = faults(table, label_column="label,more")

    assert fault.startswith("label_column=label,more: one class for each image is in one column; several columns are ")


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_only_a_table_says_such_labels(tmp_path: Path, task: str) -> None:
    """The folders would be taken for labels that nobody meant."""
    listed(tmp_path)
    for source in (tmp_path, Path("digits")):
        (fault,) = faults(source, task=task)
        assert fault == f"--set task={task}: such labels are in a table; give one, as in --data labels.csv"


def test_labels_that_are_more_than_a_class_are_mentioned(tmp_path: Path) -> None:
    """A search would learn combinations, or prices, as classes, and nobody say that it could be otherwise."""
    rows = listed(tmp_path, price=[f"{number % 10}.5" for number in range(IMAGES)])
    for number, row in enumerate(rows):
        row["label"] = ["cat|dog", "dog"][number % 2]
    table = write(tmp_path / "labels.csv", rows)
    several, prices = found(table).notes[-1], found(table, label_column="price").notes[-1]

    assert several == "'cat|dog' is taken for one class; --set task=multilabel takes it for several labels"
    assert prices == "labels such as '0.5' are taken for classes; --set task=regression takes them for numbers"
