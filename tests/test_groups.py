"""Groups of images: the images of one patient or scene stay in one split."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.data import groups, store
from search.data.scan import Found
from search.data.settings import DataSettings
from search.errors import DataError

SHARES = {"test": 0.15, "val": 0.15}


def images(sizes: dict[str, dict[str, int]]) -> list[Found]:
    """Images without files: group → class → how many."""
    rows = [(group, name) for group, held in sizes.items() for name, count in held.items() for _ in range(count)]
    return [Found(f"{row}", name, "", f"digest {row}", group=group) for row, (group, name) in enumerate(rows)]


def drawn(seed: int, count: int, classes: int, pure: bool) -> list[Found]:
    """Groups of 1 to 30 images, of one class each or of several."""
    numbers = np.random.default_rng(seed)
    sizes: dict[str, dict[str, int]] = {}
    for group in range(count):
        names = [group % classes] if pure else numbers.permutation(classes)[: numbers.integers(1, classes + 1)]
        sizes[f"g{group}"] = {f"class {name}": int(numbers.integers(1, 31)) for name in names}
    return images(sizes)


def table(root: Path, rows: list[tuple[int, str, str]]) -> Path:
    """A table of images, each as (what is painted, its class, its group, and more), and its header."""
    lines = ["path,label,group,split"[: 22 if len(rows[0]) == 4 else 16]]
    for line, (number, *texts) in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{line}.png")
        lines.append(",".join([f"{line}.png", *texts]))
    (root / "labels.csv").write_text("\n".join(lines))
    return root / "labels.csv"


def found(source: Path, **settings: str) -> store.Dataset:
    """The data set, with the seed that is the default."""
    return store.find(str(source), seed=0, max_bad_files=0, settings=DataSettings(**settings))


def faults(source: Path, **settings: str) -> list[str]:
    """What is wrong with a table, sentence by sentence."""
    with pytest.raises(DataError) as caught:
        found(source, **settings)
    return caught.value.faults


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pure", [True, False], ids=["one class each", "mixed"])
def test_groups_stay_together_and_classes_keep_their_shares(seed: int, pure: bool) -> None:
    """A patient is in two splits; or a class is hardly tested, or hardly trained on."""
    given = drawn(seed, 60, 3, pure)
    parted = groups.assign(given, seed, SHARES)
    assert groups.torn(parted) == groups.faults(given, SHARES) == []
    assert [(image.path, image.class_name) for image in parted] == [(image.path, image.class_name) for image in given]
    total = Counter(image.class_name for image in parted)
    held = Counter((image.class_name, image.split) for image in parted)
    for name, count in total.items():
        for split, share in (SHARES | {"train": 0.7}).items():
            assert held[name, split] / count == pytest.approx(share, abs=0.05)
    assert groups.assign(given, seed, SHARES) == parted
    assert groups.assign(given, seed + 1, SHARES) != parted


@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_is_in_every_split(seed: int) -> None:
    """Three groups of a rare class all go to one split, and the search is refused though it could be done."""
    common = {f"c{number}": {"common": 10 + number} for number in range(30)}
    rare = {"r0": {"rare": 4, "common": 2}, "r1": {"rare": 4}, "r2": {"rare": 5}}
    parted = groups.assign(images(common | rare), seed, SHARES)
    assert {image.split for image in parted if image.class_name == "rare"} == {*store.SPLITS}


def test_without_groups_every_image_is_its_own() -> None:
    """Images whose group is empty all go to one split, as one large group."""
    given = images({"": {"a": 40, "b": 40}, "p": {"a": 4, "b": 4}})
    parted = groups.assign(given, 0, SHARES)
    assert Counter(image.split for image in parted) == {"train": 60, "val": 14, "test": 14}
    assert len({image.split for image in parted if image.group}) == 1
    assert len({image.split for image in parted if not image.group}) == 3


def test_a_table_with_groups(tmp_path: Path) -> None:
    """The column of groups is not read, so that a patient is trained on and tested; or copies tear groups apart."""
    rows = [(number, "ab"[number % 2], f"p{number // 5}") for number in range(100)]
    rows += [(0, "a", "p99"), (99, "b", "p98"), (3, "b", "")]
    dataset = found(table(tmp_path, rows))
    where = {int(Path(item).stem): split for split in store.SPLITS for item in dataset.items[split]}
    for group in range(20):
        assert len({where[5 * group + number] for number in range(5) if 5 * group + number in where}) == 1
    assert where[0] == where[100]
    assert where[99] == where[101]
    assert dataset.notes[-2:] == (
        "groups of images: 22; all images of a group are in one split",
        "files that are copies of others: 3; all copies of an image are in one split",
    )
    assert dataset.skipped == ()


def test_validation_is_split_off_by_groups(tmp_path: Path) -> None:
    """Where test images are given, a patient is trained on and validated."""
    rows = [(n, "ab"[n % 2], f"p{n // 5}", "test" if n < 30 else "train") for n in range(100)]
    dataset = found(table(tmp_path, rows))
    sizes = [len(dataset.items[split]) for split in store.SPLITS]
    assert (sizes[2], sum(sizes)) == (30, 100)
    assert 5 <= sizes[1] <= 15
    held = {split: {int(Path(item).stem) // 5 for item in dataset.items[split]} for split in store.SPLITS}
    assert not held["train"] & held["val"]


def test_given_splits_that_tear_groups_apart(tmp_path: Path) -> None:
    """A split that leaks is accepted, and its test accuracy believed."""
    rows = [(n, "ab"[n % 2], f"p{n // 10}", ("train", "val", "test")[n // 20 % 3]) for n in range(60)]
    rows[25] = (25, "b", "p1", "val")
    rows[59] = (59, "b", "p0", "test")
    (fault,) = faults(table(tmp_path, rows))
    assert fault == (
        "groups whose images are in more than one split: 'p0' (train 10, test 1), 'p1' (train 10, val 1); "
        "give each group one split, or leave the splits out to have them made"
    )


def test_groups_that_no_split_can_hold(tmp_path: Path) -> None:
    """A group that is nearly everything leaves other splits nearly empty; the user learns only that images lack."""
    rows = [(n, "ab"[n % 2], "hospital" if n < 80 else f"p{n}") for n in range(100)]
    (fault,) = faults(table(tmp_path, rows))
    assert fault == (
        "the group 'hospital' (80 of 100 images) is larger than any split, of which train has 70%: "
        "divide it, or do without groups"
    )
    rows = [(n, "ab"[n < 20], "north" if n < 12 else "south" if n < 20 else f"p{n}") for n in range(100)]
    *_, fault = faults(table(tmp_path, rows))
    told = "2 groups alone, and 3 splits need one each: 'north' (12), 'south' (8)"
    assert fault == f"the images of class 'b' are in {told}"
