"""Features are what the network gives for the images, are computed once, and never change what a trial reports."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Toy
from pool import POOL

from search import features
from search.backbone import backbones
from search.backbone.backbones import Backbone, Source
from search.cache import Array
from search.data import augmentation, store
from search.data.splits import Dataset
from search.data.store import silent
from search.errors import BackboneError
from search.features import IMAGES, Place, Start
from search.space import Budget, Objective, Space
from search.trial import training
from search.trial.preparation import Preparation

PLENTY = 1 << 30
DEFAULTS = Space({}, Budget(1, 1))
PARAMETERS = {
    "unfreeze_depth": 1,
    "learning_rate": 3e-3,
    "optimizer": "adam",
    "weight_decay": 1e-3,
    "dropout": 0.2,
    "batch_size": 16,
    "warmup_epochs": 0.0,
    "plateau_patience": 2,
    "plateau_factor": 0.3,
    "stop_patience": 10,
}
SGD = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 1e-2}
LOSS_TOLERANCE = 1e-3  # relative; of the validation loss after each epoch
ONE_IMAGE = 0.1001  # of the ten to validate with; one that stands on the edge may fall either way
Curve = list[tuple[float, float]]  # (val_loss, val_accuracy) after each epoch


# which cuts are kept


def unmade(shapes: Sequence[tuple[int, ...]], **changes: Any) -> Place:
    """A place for features of 30 images that nobody computes: 20 to train with, 10 to validate with."""
    items = {"train": tuple(map(str, range(20))), "val": tuple(map(str, range(10))), "test": ()}
    labels = {split: (0,) * len(names) for split, names in items.items()}
    dataset = Dataset("somewhere", ("one",), items, labels, (), (), "fingerprint")
    return replace(Place(Path("nowhere"), dataset, 32, "identity", tuple(shapes)), **changes)


WIDE, NARROW, POOLED = (8, 8, 4), (4, 4, 8), (16,)  # 1024, 512 and 64 bytes for each image


@pytest.mark.parametrize(
    ("device", "multiplications", "kept"),
    [
        ("cpu", [30 * 1024, 30 * 512, 30 * 64], [1, 2, 3]),
        ("cpu", [30 * 1024 - 1, 30 * 512, 30 * 64], [2, 3]),  # a wide map after little work is computed again
        ("cpu", [30 * 1024, 30 * 512 - 1, 30 * 64], [1, 3]),
        ("cpu", [30 * 1024, 30 * 512 - 1, 0], [1, 3]),  # work that no kept cut has done counts at the next
        ("cpu", [10, 10, 10], []),
        ("gpu", [100 * 1024, 100 * 512, 100 * 64], [3]),
        ("gpu", [2500 * 1024, 2500 * 512, 2500 * 64], [1, 2, 3]),
        ("gpu", [2500 * 1024 - 1, 0, 2500 * 64], [2, 3]),
    ],
)
def test_a_cut_is_kept_where_reading_costs_less_than_computing(
    device: str, multiplications: list[int], kept: list[int]
) -> None:
    """Trials would read gigabytes to be spared a millisecond, or compute for minutes what takes a moment to read."""
    place = unmade([WIDE, NARROW, POOLED])
    assert features.worthwhile(place, [1, 2, 3], multiplications, device, PLENTY) == kept


def test_only_cuts_that_are_asked_for_are_kept() -> None:
    """The disk would fill with features that no trial of the space starts from; or the images be kept twice."""
    place, much = unmade([WIDE, NARROW, POOLED]), [10**6] * 3
    assert features.worthwhile(place, [], much, "cpu", PLENTY) == []
    assert features.worthwhile(place, [IMAGES], much, "cpu", PLENTY) == []
    assert features.worthwhile(place, [3, IMAGES, 1, 3], much, "cpu", PLENTY) == [1, 3]
    little_between = [30 * 1024, 30 * 512 - 1, 0]
    assert features.worthwhile(place, [2], little_between, "cpu", PLENTY) == [2], "cut 1 is not there to start from"


def test_half_precision_takes_half_the_room() -> None:
    """Cuts would be left out on a GPU that are worth keeping; or the pooled features lose digits."""
    whole, half = (unmade([WIDE, NARROW, POOLED], precision=name) for name in ("float32", "mixed_float16"))
    assert [half.bytes(cut) for cut in (1, 2, 3)] == [whole.bytes(1) / 2, whole.bytes(2) / 2, whole.bytes(3)]
    assert [half.dtype(cut) for cut in (1, 2, 3)] == ["float16", "float16", "float32"]
    enough_for_half = [2500 * 512, 0, 0]
    assert features.worthwhile(whole, [1], enough_for_half, "gpu", PLENTY) == []
    assert features.worthwhile(half, [1], enough_for_half, "gpu", PLENTY) == [1]


@pytest.mark.parametrize(
    ("views", "limit", "kept"),
    [
        *[(1, 30 * 1600, [1, 2, 3]), (1, 30 * 1600 - 1, [2, 3]), (1, 30 * 575, [3]), (1, 30 * 64 - 1, []), (1, 0, [])],
        *[(4, 90 * 1600, [1, 2, 3]), (4, 90 * 1600 - 1, [2, 3])],
    ],
)
def test_those_that_save_most_for_each_byte_are_kept_within_the_limit(views: int, limit: int, kept: list[int]) -> None:
    """The cache would grow beyond what the user allowed; or its room go to the cut that is worth least."""
    place = unmade([WIDE, NARROW, POOLED], views=views)
    multiplications = [40 * 1024, 40 * 1024, 40 * 1024]
    assert features.worthwhile(place, [1, 2, 3], multiplications, "cpu", limit) == kept


# what lies in the cache


class Network:
    """A backbone, and what these tests do with its features.

    Args:
        toy: images of its size.
    """

    def __init__(self, source: Source, toy: Toy) -> None:
        self.source, self._toy = source, toy
        self.described = backbones.describe(POOL.backbone(source))
        self.blocks = len(self.described["blocks"])
        self.cuts = range(1, self.blocks + 1)

    def place(self, folder: Path, **changes: Any) -> Place:
        """Features of the toy images, in a cache of their own that holds the images already."""
        shutil.copytree(self._toy.cache / "images", folder / "images")
        shapes = tuple(map(tuple, self.described["shapes"]))
        toy = self._toy
        return replace(Place(folder, toy.dataset, toy.image_size, self.described["identity"], shapes), **changes)

    def fill(self, place: Place, cuts: Sequence[int], limit: int = PLENTY, progress: store.Progress = silent) -> None:
        """Compute what is missing, in this process."""
        features.fill(place, cuts, POOL.backbone(self.source), limit, progress)

    def expected(self, place: Place, split: str, view: int) -> list[Array]:
        """What the network gives at each cut, in one call and with nothing of ours but the view."""
        import keras

        backbone = POOL.backbone(self.source)
        pixels, _ = store.load(place.dataset, split, place.image_size, place.cache)
        shown = augmentation.view(np.array(pixels), place.dataset.digests[split], view, place.seed)
        whole = keras.Model(backbone.network.inputs, list(backbone.cuts))
        *maps, last = whole(backbone.preprocess(shown.astype("float32")), training=False)
        return [*map(np.asarray, maps), np.asarray(last).mean(axis=(1, 2))]

    def assert_right(self, place: Place, cuts: Sequence[int]) -> None:
        """All features of some cuts are there and what the network gives."""
        parts = [("train", view) for view in range(place.views)] + [("val", 0)]
        for number, (split, view) in enumerate(parts):
            wanted = self.expected(place, split, view)
            for cut in cuts:
                opened = place.opened(cut)
                assert opened is not None
                assert close(opened[number][:], wanted[cut - 1]), f"{split}, view {view}, cut {cut}"

    def curve(self, place: Place, folder: Path, epochs: int = 3, head_start: bool = False, **parameters: Any) -> Curve:
        """Train one configuration."""
        reports: list[dict[str, Any]] = []
        training.train(
            POOL,
            training.Configuration(
                trial="0000",
                parameters=(chosen := DEFAULTS.parameters({**PARAMETERS, **parameters})),
                parts=DEFAULTS.parts(chosen),
                epochs=epochs,
                seed=0,
                objective=Objective("val_loss"),
                backbone=self.source.name,
                weights=self.source.weights,
                place=place,
                head_start=head_start,
                folder=folder,
                tensorboard=folder / "events",
            ),
            reports.append,
        )
        assert len(reports) == epochs
        return [(report["last_val_loss"], report["last_val_accuracy"]) for report in reports]


@pytest.fixture(scope="module")
def small(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A network of four blocks that is traced much faster than `tiny`; its weights are random."""
    import keras

    keras.utils.set_random_seed(0)
    x = images = keras.Input((toy.image_size, toy.image_size, 3))
    for strides in (2, 1, 2, 1):
        x = keras.layers.Conv2D(8, 3, strides=strides, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Dropout(0.5)(x)  # off in inference
    network = keras.Model(images, x)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-0.5, 0.5, 8))  # so that inference and training differ
            layer.moving_variance.assign(np.linspace(0.2, 2, 8))
    path = tmp_path_factory.mktemp("backbone") / "small.keras"
    network.save(path)
    return Network(Source(str(path), "own", toy.image_size), toy)


@pytest.fixture(scope="module")
def tiny(toy: Toy) -> Network:
    """The built-in network of seven blocks, pretrained."""
    return Network(Source("tiny", "own", toy.image_size), toy)


@pytest.fixture
def place(small: Network, tmp_path: Path) -> Place:
    """A place of the small network that is empty."""
    return small.place(tmp_path / "cache")


@dataclass
class Passes:
    """The passes that were made: split, view and cuts."""

    made: list[tuple[str, int, list[int]]]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Watches the passes."""
    watched, run = Passes([]), features._pass

    def watch(place: Place, backbone: Backbone, part: tuple[str, int], paths: dict[Path, int], *more: Any) -> None:
        watched.made.append((*part, sorted(paths.values())))
        run(place, backbone, part, paths, *more)

    monkeypatch.setattr(features, "_pass", watch)
    return watched


def close(found: Array, wanted: Array) -> bool:
    """Whether two arrays are the same but for the order in which their sums were taken."""
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max())


def test_features_are_what_the_network_gives(small: Network, place: Place) -> None:
    """Every trial would train on something else than its frozen layers give: another image, layer or mode."""
    place = replace(place, views=2)
    small.fill(place, small.cuts)
    small.assert_right(place, small.cuts)
    for cut in small.cuts:
        start = features.nearest(place, cut)
        assert (start.cut, start.shape, start.dtype) == (cut, place.shapes[cut - 1], "float32")
        assert start.nbytes == place.bytes(cut)
        arrays = place.opened(cut)
        assert arrays is not None
        some = np.array([3, 1, 7])
        for read, array in zip([*start.train, start.val], arrays, strict=True):
            assert np.array_equal(read(some), array[:][some])


def test_features_are_found_again(small: Network, place: Place, passes: Passes) -> None:
    """The second search over the same data would run all images through the backbone again."""
    told: list[tuple[int, int]] = []
    small.fill(place, [2, 4], progress=lambda _, done, total: told.append((done, total)))
    assert sorted(passes.made) == [("train", 0, [2, 4]), ("val", 0, [2, 4])]
    assert (told[0], told[-1]) == ((0, 50), (50, 50))
    assert told == sorted(told)

    small.fill(replace(place), [4, 2])
    small.fill(place, [4])
    small.fill(place, [])
    assert len(passes.made) == 2


def test_only_what_is_missing_is_computed(small: Network, place: Place, passes: Passes) -> None:
    """A search with another space would pay for all features again; or damage would last for ever."""
    small.fill(place, [2, 4])
    first = {path: path.stat().st_mtime_ns for path in [*place.arrays(2), *place.arrays(4)]}
    passes.made.clear()

    small.fill(replace(place, views=2), [2, 3, 4])
    assert sorted(passes.made) == [("train", 0, [3]), ("train", 1, [2, 3, 4]), ("val", 0, [3])]
    passes.made.clear()

    damaged = next(path for path, (split, _) in place.arrays(4).items() if split == "val")
    os.truncate(damaged, damaged.stat().st_size - 4)
    small.fill(place, [2, 3, 4])
    assert passes.made == [("val", 0, [4])]
    changed = {path for path, time in first.items() if path.stat().st_mtime_ns != time}
    assert changed == {damaged}
    small.assert_right(replace(place, views=2), [2, 3, 4])


def test_a_trial_starts_from_the_nearest_cut_below(small: Network, place: Place) -> None:
    """Trials would start above the layers that they train, or from the images although features are there."""
    small.fill(place, [1, 3, 4])
    assert [features.nearest(place, cut).cut for cut in range(5)] == [IMAGES, 1, 1, 3, 4]

    next(iter(place.arrays(4))).unlink()
    assert [features.nearest(place, cut).cut for cut in range(5)] == [IMAGES, 1, 1, 3, 3]
    os.truncate(list(place.arrays(3))[-1], 1000)
    assert [features.nearest(place, cut).cut for cut in range(5)] == [IMAGES, 1, 1, 1, 1]
    assert features.nearest(replace(place, views=2), 4).cut == IMAGES, "not all views are there"


def test_without_features_a_trial_starts_from_the_images(place: Place) -> None:
    """A search whose cache holds nothing could not run; or its views would differ from those that are cached."""
    place = replace(place, views=3, seed=5)
    start = features.nearest(place, 4)
    assert (start.cut, start.shape, start.dtype, len(start.train)) == (IMAGES, (16, 16, 3), "uint8", 3)
    assert start.nbytes == (3 * 40 + 10) * 16 * 16 * 3
    pixels = {split: np.array(store.load(place.dataset, split, 16, place.cache)[0]) for split in ("train", "val")}
    some = np.array([11, 2, 30])
    assert np.array_equal(start.val(some % 10), pixels["val"][some % 10])
    for view, read in enumerate(start.train):
        wanted = augmentation.view(pixels["train"], place.dataset.digests["train"], view, 5)
        assert np.array_equal(read(some), wanted[some])


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "another network"},
        {"precision": "mixed_float16"},
        {"image_size": 64},
        {"fingerprint": "other images"},
        {"skipped": (("bad.png", "cannot be read"),)},
    ],
)
def test_other_features_have_other_names(changes: dict[str, Any]) -> None:
    """Features of other data or of another network would be taken for those that were asked for."""
    place = unmade([WIDE, NARROW, POOLED], views=2)
    of_place = {name: value for name, value in changes.items() if hasattr(place, name)}
    of_dataset = {name: value for name, value in changes.items() if name not in of_place}
    other = replace(place, **of_place, dataset=replace(place.dataset, **of_dataset))
    for cut in (1, 2, 3):
        assert not set(place.arrays(cut)) & set(other.arrays(cut))


def test_views_are_shared_where_they_are_the_same() -> None:
    """With another seed or number of views a search would compute view 0 again; or train on another seed's views."""
    place = unmade([WIDE, NARROW, POOLED], views=3, seed=1)
    names = {part: path for path, part in place.arrays(2).items()}
    assert names.keys() == {("train", 0), ("train", 1), ("train", 2), ("val", 0)}
    assert len({*names.values(), *place.arrays(1)}) == 8
    for other, shared in (
        (replace(place, views=2), {("train", 0), ("train", 1), ("val", 0)}),
        (replace(place, seed=2), {("train", 0), ("val", 0)}),
    ):
        assert set(names.values()) & set(other.arrays(2)) == {names[part] for part in shared}


def test_another_backbone_has_another_identity(small: Network, tiny: Network) -> None:
    """After `--weights` or `--set backbone` changed, trials would train on the features of the network before."""
    without_weights = backbones.describe(backbones.load("tiny", "none", 16))
    identities = {small.described["identity"], tiny.described["identity"], without_weights["identity"]}
    assert len(identities) == 3
    assert backbones.describe(backbones.load("tiny", "none", 16))["identity"] == without_weights["identity"]


# caching never changes a result


def assert_same(found: Curve, wanted: Curve) -> None:
    """Two curves agree within the stated tolerances."""
    losses, accuracies = ([[point[part] for point in one] for one in (found, wanted)] for part in (0, 1))
    assert losses[0] == pytest.approx(losses[1], rel=LOSS_TOLERANCE)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=ONE_IMAGE)


@dataclass(frozen=True)
class Caches:
    """Where trials find all features, where only those at one cut far below, and where none.

    Args:
        lowest: that cut.
    """

    network: Network
    lowest: int
    full: Place
    lower: Place
    empty: Place


def make_caches(network: Network, lowest: int, root: Path) -> Caches:
    """Three caches of the same images, three views of each."""
    full, lower, empty = (network.place(root / name, views=3) for name in ("full", "lower", "empty"))
    network.fill(full, network.cuts)
    network.fill(lower, [lowest])
    return Caches(network, lowest, full, lower, empty)


@pytest.fixture(scope="module")
def caches(small: Network, tmp_path_factory: pytest.TempPathFactory) -> Caches:
    """Those of the small network."""
    return make_caches(small, 1, tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="module")
def caches_of_tiny(tiny: Network, tmp_path_factory: pytest.TempPathFactory) -> Caches:
    """Those of the built-in network."""
    return make_caches(tiny, 2, tmp_path_factory.mktemp("tiny"))


def agree(caches: Caches, folder: Path, views: int, **parameters: Any) -> None:
    """One configuration has one learning curve, whatever is cached."""
    network, cut = caches.network, caches.network.blocks - parameters["unfreeze_depth"]
    full, lower, empty = (replace(cache, views=views) for cache in (caches.full, caches.lower, caches.empty))
    starts = [features.nearest(place, cut).cut for place in (full, lower, empty)]
    assert starts == [cut, min(caches.lowest, cut), IMAGES]
    wanted = network.curve(empty, folder / "empty", **parameters)
    assert_same(network.curve(full, folder / "full", **parameters), wanted)
    assert_same(network.curve(lower, folder / "lower", **parameters), wanted)


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"unfreeze_depth": 1}, id="adam"),
        pytest.param({"unfreeze_depth": 2, **SGD}, id="sgd", marks=pytest.mark.slow),
    ],
)
def test_caching_never_changes_a_result(parameters: dict[str, Any], caches: Caches, tmp_path: Path) -> None:
    """Two runs of one search would have other winners, for no reason but what the cache held."""
    agree(caches, tmp_path, views=3, epochs=4, **parameters)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [{"optimizer": "adam"}, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("depth", [0, 1, 3, 7])
def test_caching_never_changes_a_result_of_a_pretrained_network(
    depth: int, optimizer: dict[str, Any], caches_of_tiny: Caches, tmp_path: Path
) -> None:
    """The same, for the head alone, some blocks and all of them."""
    for views in (1, 3):
        agree(caches_of_tiny, tmp_path / str(views), views, epochs=4, unfreeze_depth=depth, **optimizer)


@pytest.mark.slow
def test_the_probe_does_not_depend_on_the_cache_either(caches: Caches, tmp_path: Path) -> None:
    """The head would start from another probe, so that the same trial ends elsewhere."""
    found = []
    for place in (caches.full, caches.empty):
        own = replace(place, views=1)
        found.append(caches.network.curve(own, tmp_path / own.cache.name, head_start=True, unfreeze_depth=0))
    assert_same(*found)


# augmentation


@pytest.mark.parametrize("kept", [True, False])
def test_an_epoch_uses_its_view_and_validation_the_images_themselves(
    kept: bool, caches: Caches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials would train on one view for ever, or be judged on distorted images."""
    read: list[str] = []
    nearest = features.nearest

    def watch(name: str, reader: features.Read) -> features.Read:
        def watched(rows: Array) -> Array:
            read.append(name)
            return reader(rows)

        return watched

    def watched(place: Place, cut: int) -> Start:
        start = nearest(place, cut)
        views = tuple(watch(f"view {view}", reader) for view, reader in enumerate(start.train))
        return replace(start, train=views, val=watch("val", start.val))

    monkeypatch.setattr(features, "nearest", watched)
    place, network = caches.full if kept else caches.empty, caches.network
    network.curve(place, tmp_path, epochs=5)

    in_turn = [(name, len(list(times))) for name, times in groupby(read) if name != "val"]
    assert in_turn == [(f"view {view}", 3) for view in (0, 1, 2, 0, 1)]
    values = nearest(place, 3).val(np.arange(10))
    pixels, _ = store.load(place.dataset, "val", place.image_size, place.cache)
    wanted = network.expected(place, "val", 0)[2]
    assert close(values, wanted) if kept else np.array_equal(values, pixels)


# faults


def left(place: Place) -> list[str]:
    """The files of features, whole or not."""
    return sorted(path.name for path in place.folder.iterdir() if path.suffix in (".npy", ".tmp", ".json"))


def test_a_file_truncated_between_two_trials_is_noticed(small: Network, place: Place, tmp_path: Path) -> None:
    """The second trial would die, or train on what is left of the features."""
    small.fill(place, [3])
    first = small.curve(place, tmp_path / "first")
    for path in place.arrays(3):
        os.truncate(path, path.stat().st_size // 2)

    assert features.nearest(place, 3).cut == IMAGES
    assert_same(small.curve(place, tmp_path / "second"), first)
    small.fill(place, [3])
    assert features.nearest(place, 3).cut == 3
    small.assert_right(place, [3])


def test_an_error_in_the_middle_of_a_pass_leaves_nothing(small: Network, place: Place) -> None:
    """Features of half of the images would stay on the disk, or be taken for all of them."""

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small.fill(place, [3, 4], progress=interrupt)
    assert left(place) == []
    assert features.nearest(place, 4).cut == IMAGES
    small.fill(place, [3, 4])
    small.assert_right(place, [3, 4])


def test_of_several_at_once_one_makes_the_pass(small: Network, place: Place, passes: Passes) -> None:
    """Trials that start together would all run the whole dataset through the backbone, over each other's files."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: small.fill(place, [4]), range(3)))
    assert sorted(passes.made) == [("train", 0, [4]), ("val", 0, [4])]
    small.assert_right(place, [4])


def test_who_waits_finds_the_features_of_the_other(small: Network, place: Place, passes: Passes) -> None:
    """A trial would run the frozen layers itself because it asked a moment too early; or compute what is there."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_what: str, _done: int, _total: int) -> None:
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(small.fill, place, [3, 4], progress=hold)
        assert begun.wait(60)
        second = pool.submit(small.fill, place, [4])
        third = pool.submit(features.nearest, place, 4)
        waited = wait([second, third], timeout=0.2).not_done
        go_on.set()
        assert waited == {second, third}
        assert third.result().cut == 4
        first.result()
        second.result()
    assert sorted(passes.made) == [("train", 0, [3, 4]), ("val", 0, [3, 4])]


def test_those_used_least_lately_make_room(small: Network, place: Place) -> None:
    """The cache of a user who tries many networks would grow beyond its limit; or lose what is asked for."""
    other = replace(place, identity="another network")
    small.fill(other, [3])
    small.fill(place, [3])
    small.fill(place, [3, 4], limit=place.bytes(3) + place.bytes(4) + 1000)
    assert place.opened(3)
    assert place.opened(4)
    assert other.opened(3) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the toy images and some features."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("only root can mount a small disk to fill")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=140k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(folder: Path) -> None:
    """Leave no byte free on a disk."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass


def test_a_disk_that_fills_during_the_pass_leaves_nothing(
    small: Network, caches: Caches, tmp_path: Path, small_disk: Path
) -> None:
    """The process would die; or trials train on features that are cut short, or not at all."""
    place, told = small.place(small_disk / "cache"), []
    with pytest.raises(OSError, match="space"):
        small.fill(place, [1, 4], progress=lambda _, done, __: told.append(done))
    assert told == [0, 32], "it failed in the middle of the pass"
    assert left(place) == []
    assert features.nearest(place, 3).cut == IMAGES
    wanted = small.curve(replace(caches.empty, views=1), tmp_path / "wanted")
    assert small.curve(place, tmp_path / "found") == wanted


@pytest.mark.slow
def test_a_full_disk_stops_no_trial(small: Network, caches: Caches, tmp_path: Path, small_disk: Path) -> None:
    """Every trial would fail because the probe's head cannot be kept."""
    place = small.place(small_disk / "cache")
    fill_up(small_disk)
    with pytest.raises(OSError, match="space"):
        small.fill(place, [4])
    wanted = small.curve(replace(caches.empty, views=1), tmp_path / "wanted", head_start=True)
    for number in range(2):
        assert small.curve(place, tmp_path / str(number), head_start=True) == wanted


# the process that computes them


@pytest.fixture(scope="module")
def digits(tiny: Network, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Enough images for a pass that takes a while: some 500 to train with, in many views, and 350 to validate with."""
    cache = tmp_path_factory.mktemp("digits")
    found = store.find("digits", seed=0, max_bad_files=0)
    dataset = store.decode(found, max_bad_files=0, image_size=16, cache=cache)
    shapes = tuple(map(tuple, tiny.described["shapes"]))
    return Place(cache, dataset, 16, tiny.described["identity"], shapes, views=6)


@pytest.mark.slow
def test_the_process_that_fills_is_killed(tiny: Network, digits: Place, tmp_path: Path) -> None:
    """Out of memory in the middle of a pass: the next search would open what is incomplete, or never get features."""
    train, seen = len(digits.dataset.items["train"]), [(0, 0)]
    with Preparation(tiny.source, digits.cache) as preparation:

        def kill(_what: str, done: int, total: int) -> None:
            seen.append((done, total))
            if done > train:
                os.kill(process_of(preparation), signal.SIGKILL)

        preparation.start()
        preparation.describe()
        preparation.fill(digits, [3, 7], PLENTY, None)
        with pytest.raises(RuntimeError, match="could not be prepared"):
            preparation.wait(kill)
    done, total = seen[-1]
    assert train < done < total, "it was killed in the middle"
    assert list(digits.folder.glob("*.tmp")), "there is something half written"
    assert digits.opened(3) is digits.opened(7) is None
    view_0 = next(iter(digits.arrays(7)))
    assert view_0.exists(), "what was finished can be used"

    assert features.nearest(digits, 7).cut == IMAGES
    parameters = {"unfreeze_depth": 0, "epochs": 2, "batch_size": 64}
    nowhere = replace(digits, cache=tmp_path / "cache")
    assert tiny.curve(digits, tmp_path / "found", **parameters) == tiny.curve(nowhere, tmp_path / "none", **parameters)

    made = view_0.stat().st_mtime_ns
    tiny.fill(digits, [3, 7])
    tiny.assert_right(digits, [3, 7])
    assert list(digits.folder.glob("*.tmp")) == []
    assert view_0.stat().st_mtime_ns == made, "computed again"


def process_of(preparation: Preparation) -> int:
    """The number of the process that does the work."""
    assert preparation._process is not None
    return preparation._process.pid


def prepared(network: Network, place: Place, cuts: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """Have a process of its own fill a place; what it says of it, and its progress."""
    told: list[tuple[int, int]] = []
    with Preparation(network.source, place.cache) as preparation:
        preparation.start()
        assert json.dumps(preparation.describe()) == json.dumps(network.described)
        preparation.fill(place, cuts, PLENTY, None)
        return preparation.wait(lambda _, done, total: told.append((done, total))), told


@pytest.mark.slow
def test_a_process_describes_and_fills_and_the_next_search_starts_none(small: Network, place: Place) -> None:
    """A search would not know its backbone or when its features are there; or wait for TensorFlow to do nothing."""
    fault, told = prepared(small, place, [3, 4])
    assert fault == ""
    assert (told[0], told[-1]) == ((0, 50), (50, 50))
    assert told == sorted(told)
    small.assert_right(place, [3, 4])

    with Preparation(small.source, place.cache) as preparation:
        preparation.start()
        assert preparation.describe()["identity"] == place.identity
        preparation.fill(place, [4], PLENTY, None)
        assert preparation.wait(silent) == ""
        assert preparation._process is None


@pytest.mark.slow
def test_of_two_searches_one_makes_the_pass(small: Network, place: Place) -> None:
    """Two searches that start together would make every pass twice, or write over each other's files."""
    place = replace(place, views=3)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: prepared(small, place, [3, 4]), range(2)))
    assert [fault for fault, _ in both] == ["", ""]
    assert sorted(max(told, default=(0, 0)) for _, told in both) == [(0, 0), (130, 130)]
    small.assert_right(place, [3, 4])


@pytest.mark.slow
def test_the_disk_fills_under_the_process(small: Network, caches: Caches, tmp_path: Path, small_disk: Path) -> None:
    """The search would end, though it can go on without features; or go on and not say why it is slow."""
    place = small.place(small_disk / "cache")
    fault, told = prepared(small, place, [1, 4])
    assert "No space left on device" in fault
    assert told[0] == (0, 50)
    assert left(place) == []
    wanted = small.curve(replace(caches.empty, views=1), tmp_path / "wanted")
    assert small.curve(place, tmp_path / "found") == wanted


@pytest.mark.slow
def test_a_backbone_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """The user would see a traceback of a process that they did not start, or a search without a backbone."""
    with Preparation(Source("tiny", "own", 8), tmp_path) as preparation:
        preparation.start()
        with pytest.raises(BackboneError) as caught:
            preparation.describe()
    assert "8 pixels" in str(caught.value)
    assert list(tmp_path.rglob("*.json")) == [], "a fault is no description to keep"


@pytest.mark.slow
def test_a_bug_in_the_process_is_shown(small: Network, place: Place) -> None:
    """A search would hang, or end without a word, where its process died."""
    wrong = replace(place, shapes=tuple((*shape[:-1], shape[-1] + 1) for shape in place.shapes))
    with pytest.raises(RuntimeError, match=r"Traceback(.|\n)*values are missing"):
        prepared(small, wrong, [4])
