"""A process that runs many trials traces no step twice, mixes up nothing between them, and does not grow."""

import itertools
import os
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Toy
from pool import POOL

from search import cache, features, machine
from search.backbone import backbones
from search.backbone.backbones import Source
from search.cache import Array
from search.components import scheduled
from search.data.store import silent
from search.features import Place, Start
from search.space import Budget, Objective, Space
from search.trial import batches, callbacks, model, reuse, training
from search.trial.training import Configuration

DEFAULTS = Space({}, Budget(1, 1))
PARAMETERS = {
    "unfreeze_depth": 1,
    "learning_rate": 3e-3,
    "optimizer": "adam",
    "weight_decay": 1e-3,
    "dropout": 0.3,
    "batch_size": 16,
    "warmup_epochs": 0.0,
    "plateau_patience": 2,
    "plateau_factor": 0.3,
    "stop_patience": 10,
}
SGD = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 1e-2}
EPOCHS = 3
GROWTH = 1.1  # of what is resident after ten trials
Reports = list[dict[str, Any]]


class Trials:
    """Runs trials of one network in this process, in a folder of their own."""

    def __init__(self, source: Source, place: Place, folder: Path) -> None:
        self.source, self.place = source, place
        self._folders = (folder / str(number) for number in itertools.count())

    def configuration(self, epochs: int = EPOCHS, head_start: bool = False, **parameters: Any) -> Configuration:
        """One that differs from `PARAMETERS`; its files are its own."""
        folder = next(self._folders)
        return Configuration(
            trial="0000",
            parameters=(chosen := DEFAULTS.parameters({**PARAMETERS, **parameters})),
            parts=DEFAULTS.parts(chosen),
            epochs=epochs,
            seed=0,
            objective=Objective("val_loss"),
            backbone=self.source.name,
            weights=self.source.weights,
            place=self.place,
            head_start=head_start,
            folder=folder / "trial",
            tensorboard=folder / "events",
        )

    def run(self, **changes: Any) -> Reports:
        """All that a trial reports but the time it took."""
        reports: Reports = []
        training.train(POOL, self.configuration(**changes), reports.append)
        return [{name: value for name, value in report.items() if name != "seconds"} for report in reports]

    def network(self, **parameters: Any) -> tuple[model.Network, Start]:
        """The network that a trial would be given, and its start."""
        return training._network(POOL, self.configuration(**parameters), None)


def forget() -> None:
    """Make this process like a new one."""
    POOL._kept.clear()


def keep(source: Source, toy: Toy, folder: Path) -> Place:
    """Features of the toy images at every cut of a network."""
    backbone = POOL.backbone(source)
    described = backbones.describe(backbone)
    shapes = tuple(map(tuple, described["shapes"]))
    place = Place(folder, toy.dataset, toy.image_size, described["identity"], shapes, views=2)
    features.fill(place, range(1, len(shapes) + 1), backbone, 1 << 30, silent)
    return place


@pytest.fixture(scope="module")
def trials(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Trials of a network of three blocks that is traced much faster than `tiny`; its weights are random."""
    import keras

    folder = tmp_path_factory.mktemp("warm")
    (folder / "trials").mkdir()
    keras.utils.set_random_seed(0)
    x = images = keras.Input((toy.image_size, toy.image_size, 3))
    for _ in range(3):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    keras.Model(images, x).save(folder / "small.keras")
    source = Source(str(folder / "small.keras"), "own", toy.image_size)
    return Trials(source, keep(source, toy, folder / "cache"), folder / "trials")


# optimizers


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaled"])
def test_an_optimizer_moves_as_kerass_own(name: str, scaled: bool) -> None:
    """A search would find other rates than those that the same network is trained with elsewhere."""
    rate, warmup = 0.1, 4
    own = scheduled.scheduled(scheduled.Adam() if name == "adam" else scheduled.Momentum(keras.Variable(0.9)))
    keras_own = keras.optimizers.Adam(rate) if name == "adam" else keras.optimizers.SGD(rate, momentum=0.9)
    own.learning_rate = rate
    own.follow(np.array([[min(done / warmup, 1.0), 1.0] for done in range(1, warmup + 1)], "float32"))
    numbers = np.random.default_rng(0)
    values = numbers.normal(size=(3, 4)), numbers.normal(size=4)
    moved, expected = ([keras.Variable(value) for value in values] for _ in range(2))
    steps = keras.optimizers.LossScaleOptimizer(own, initial_scale=8.0) if scaled else own

    @tf.function
    def step(gradients: Any) -> None:
        steps.apply([gradient * 8.0 if scaled else gradient for gradient in gradients], moved)

    steps.build(moved)
    for done in range(1, 8):
        gradients = [tf.constant(numbers.normal(size=value.shape), "float32") for value in values]
        step(gradients)
        keras_own.learning_rate = rate * min(done / warmup, 1.0)
        keras_own.apply(gradients, expected)
        for found, wanted in zip(moved, expected, strict=True):
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)


# traces


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Counts, for each network, how often Python runs through its steps: TensorFlow does so only to trace them."""
    counts: Counter[tuple[str, int]] = Counter()
    alive = []
    for name in ("train_step", "test_step"):
        step = getattr(batches.Fitted, name)

        def counted(fitted: Any, data: Any, name: str = name, step: Any = step) -> Any:
            alive.append(fitted)  # so that no other has its number
            counts[name, id(fitted)] += 1
            return step(fitted, data)

        monkeypatch.setattr(batches.Fitted, name, counted)
    return counts


def test_a_step_is_traced_once_for_each_depth_and_optimizer(trials: Trials, traces: Counter[tuple[str, int]]) -> None:
    """Every trial would wait for the tracing of its network, which takes longer than its training."""
    forget()
    kinds = [{"unfreeze_depth": 0}, {"unfreeze_depth": 1, **SGD}]
    values = [
        {"learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "batch_size": 16},
        {"learning_rate": 1e-2, "weight_decay": 1e-2, "dropout": 0.5, "batch_size": 7, "warmup_epochs": 1.5},
        {"learning_rate": 1e-4, "weight_decay": 1e-4, "dropout": 0.0, "batch_size": 64, "momentum": 0.0},
    ]
    for kind in kinds:
        trials.run(epochs=2, **{**kind, **values[0]})
    first = traces.copy()
    assert list(first.values()) == [1, 1, 1, 1]
    for parameters, kind in itertools.product(values, kinds):
        trials.run(epochs=2, **{**kind, **parameters})
    assert traces == first


def test_the_values_that_cost_no_trace_count_all_the_same(trials: Trials) -> None:
    """A search would try many learning rates, and all of them would be the first one."""
    changes = {"learning_rate": 1e-3, "warmup_epochs": 1.0, "weight_decay": 0.5, "dropout": 0.0, "batch_size": 8}
    changes["momentum"] = 0.5
    for kind in ({}, SGD):
        first = trials.run(**kind)
        for name, value in changes.items():
            counts = name != "momentum" or bool(kind)
            assert (trials.run(**{**kind, name: value}) != first) == counts, name


# what is new for every trial


@pytest.fixture(scope="module")
def alone(trials: Trials) -> dict[str, Reports]:
    """What trials of several kinds report in a process that has run none of the kind before."""
    forget()
    return {name: trials.run(**changes) for name, changes in KINDS.items()}


KINDS: dict[str, dict[str, Any]] = {
    "some blocks": {},
    "the head alone": {"unfreeze_depth": 0},
    "the other optimizer": SGD,
    "a probe's head": {"unfreeze_depth": 0, "head_start": True},
}


def assert_as_alone(trials: Trials, alone: dict[str, Reports]) -> None:
    """Trials of all kinds report what they report where no other ran before; to the last bit."""
    for name, changes in KINDS.items():
        assert trials.run(**changes) == alone[name], name


def stopped_after_an_epoch(trials: Trials) -> None:
    """A trial that the scheduler stops."""

    def stop(_metrics: dict[str, Any]) -> None:
        raise callbacks.Stopped

    training.train(POOL, trials.configuration(batch_size=7), stop)


def failed_after_an_epoch(trials: Trials) -> None:
    """A trial that dies of an error, with another batch size."""

    def fail(_metrics: dict[str, Any]) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        training.train(POOL, trials.configuration(batch_size=3), fail)


def diverged(trials: Trials) -> None:
    """Trials that leave nothing but not-a-number behind."""
    for optimizer in ({}, SGD):
        (*_, last) = trials.run(**{**optimizer, "learning_rate": 1e30})
        assert last["ending"] == "diverged"
        network, _ = trials.network(**optimizer)
        assert all(np.isfinite(np.asarray(variable)).all() for variable in network.state)


def others(trials: Trials) -> None:
    """Trials of other values and a depth whose blocks hold those of the rest."""
    trials.run(unfreeze_depth=3, epochs=1)
    trials.run(unfreeze_depth=0, batch_size=40)
    trials.run(learning_rate=0.1, dropout=0.9, weight_decay=0.9, batch_size=5, plateau_patience=1)
    trials.run(**{**SGD, "momentum": 0.1})


@pytest.mark.parametrize(
    "before", [pytest.param(others, marks=pytest.mark.slow), diverged, stopped_after_an_epoch, failed_after_an_epoch]
)
def test_a_trial_does_not_depend_on_those_before_it(before: Any, trials: Trials, alone: dict[str, Reports]) -> None:
    """The winner would owe its place to the order of the trials, and nobody could repeat the search."""
    before(trials)
    assert_as_alone(trials, alone)


@pytest.mark.slow
def test_a_trial_reports_the_same_in_a_process_of_its_own(trials: Trials, alone: dict[str, Reports]) -> None:
    """The same, where no trial of any other kind ran before."""
    for name, changes in KINDS.items():
        forget()
        assert trials.run(**changes) == alone[name], name
        assert len({report["last_val_loss"] for report in alone[name]}) == EPOCHS, "it learns"


@pytest.mark.slow
def test_a_trial_does_not_depend_on_an_export_before_it(trials: Trials, alone: dict[str, Reports]) -> None:
    """The same, where the best weights of another were loaded."""
    configuration = replace(trials.configuration(unfreeze_depth=2), rungs=(EPOCHS,))
    reports: Reports = []
    training.train(POOL, configuration, reports.append)
    training.export(POOL, configuration, configuration.folder, reports[-1]["best_epoch"])
    assert_as_alone(trials, alone)


@pytest.mark.slow
def test_another_backbone_makes_way_for_the_first_again(
    trials: Trials, alone: dict[str, Reports], toy: Toy, tmp_path: Path
) -> None:
    """A process that trains for two searches would mix up their networks, or keep both for ever."""
    tiny = Source("tiny", "own", toy.image_size)
    place = keep(tiny, toy, tmp_path / "cache")
    Trials(tiny, place, tmp_path).run(unfreeze_depth=1)
    assert list(POOL._kept) == [tiny]
    assert_as_alone(trials, alone)
    assert list(POOL._kept) == [trials.source]


def test_everything_is_new_for_every_trial(trials: Trials) -> None:
    """A trial would go on with the weights, the momentum or the random numbers of another."""

    def state(network: model.Network) -> list[Array]:
        return [np.array(variable) for variable in [*network.state, network.dropout.numbers.state]]

    network, _ = trials.network()
    fresh = state(network)
    trials.run()
    changed = sum(not np.array_equal(*pair) for pair in zip(fresh, state(network), strict=True))
    assert changed > len(fresh) / 2, "training changed it"
    again, _ = trials.network()
    assert again is network
    assert all(np.array_equal(*pair) for pair in zip(fresh, state(network), strict=True))


# the order of the rows


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows of each batch that training reads."""
    batches_read: list[list[int]] = []
    nearest = features.nearest

    def watched(place: Place, cut: int) -> Start:
        start = nearest(place, cut)

        def watch(reader: features.Read) -> features.Read:
            def reading(rows: Array) -> Array:
                batches_read.append(rows.tolist())
                return reader(rows)

            return reading

        return replace(start, train=tuple(map(watch, start.train)))

    monkeypatch.setattr(features, "nearest", watched)
    return batches_read


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [16, 16, 8]), (40, [40]), (100, [40]), (39, [39, 1])])
def test_an_epoch_reads_every_image_once(
    batch_size: int, sizes: list[int], trials: Trials, read: list[list[int]]
) -> None:
    """Images would be left out, the last ones above all; or some count twice."""
    trials.run(batch_size=batch_size, epochs=2)
    assert [len(rows) for rows in read] == sizes * 2
    orders = [list(itertools.chain(*read[: len(sizes)])), list(itertools.chain(*read[len(sizes) :]))]
    for order in orders:
        assert sorted(order) == list(range(40))
        assert order != sorted(order)
    assert orders[0] != orders[1], "every epoch has the same order"


def test_the_order_depends_on_the_seed_and_the_epoch_alone(trials: Trials, read: list[list[int]]) -> None:
    """An interrupted trial could not go on where it was; or two trials differ by luck instead of by what they try."""

    def orders() -> list[list[int]]:
        rows = list(itertools.chain(*read))
        read.clear()
        return [rows[start : start + 40] for start in range(0, len(rows), 40)]

    trials.run()
    wanted = orders()
    trials.run(**{**SGD, "batch_size": 7, "dropout": 0.0})
    assert orders() == wanted
    network, start = trials.network()
    batches.fit(network.fitted, batches.Feeder(start, trials.place.labels, 16, seed=0, known={}), 2, 3, [])
    assert orders() == wanted[2:]
    batches.fit(network.fitted, batches.Feeder(start, trials.place.labels, 16, seed=1, known={}), 0, 3, [])
    assert not any(order in wanted for order in orders())


def test_labels_go_with_their_rows(trials: Trials) -> None:
    """A network would be taught wrong classes, and every trial learn nothing."""
    network, start = trials.network()
    labels = {"train": np.arange(40, dtype=np.int32), "val": np.arange(10, dtype=np.int32)}
    feeder = batches.Feeder(start, labels, 16, seed=0, known={})
    feeder.set_model(network.fitted)
    feeder.open(network.fitted)
    feeder.on_epoch_begin(3)
    for split, steps, reader in ((network.fitted.train, 3, start.train[1]), (network.fitted.val, 1, start.val)):
        for step in range(steps):
            values, taught = map(np.asarray, split.batch(step))
            assert np.array_equal(values, reader(taught))


# features on the device


def test_a_table_on_the_device_gives_the_same_numbers(
    trials: Trials, alone: dict[str, Reports], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same search would have other results on a machine whose features fit into its GPU's memory."""
    monkeypatch.setattr(machine, "gpu_memory", lambda: 1 << 40)
    assert trials.run() == alone["some blocks"]
    network = POOL._kept[trials.source].used
    assert network is not None
    tables = [split._table for split in (network.fitted.train, network.fitted.val)]
    assert [len(np.asarray(table)) for table in tables] == [80, 10], "both views lie there"
    monkeypatch.undo()
    assert trials.run() == alone["some blocks"]
    assert [len(np.asarray(table)) for table in tables] == [0, 0], "it takes the memory of the next trial"


@pytest.mark.slow
def test_features_stay_on_the_device_while_there_is_room(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial would read them anew, which takes as long as some epochs; or the device runs out of memory."""
    read: list[int] = []
    take = cache.Rows.__getitem__
    monkeypatch.setattr(cache.Rows, "__getitem__", lambda self, rows: (read.append(len(rows)), take(self, rows))[1])

    def reads(**changes: Any) -> list[int]:
        read.clear()
        trials.run(**changes)
        return list(read)

    every = [40, 40, 10]
    deeper, shallower = ({"unfreeze_depth": depth} for depth in (2, 1))
    starts = [trials.network(**changes)[1] for changes in (deeper, shallower)]
    forget()
    monkeypatch.setattr(machine, "gpu_memory", lambda: 1 << 40)
    assert [reads(**deeper), reads(**shallower), reads(**SGD), reads(**deeper)] == [every, every, [], []]
    forget()
    scarce = int(starts[0].nbytes / reuse.RESIDENT_SHARE) + 10
    assert starts[0].nbytes > starts[1].nbytes
    monkeypatch.setattr(machine, "gpu_memory", lambda: scarce)
    assert [reads(**deeper), reads(**deeper), reads(**shallower)] == [every, [], every]
    held = [split.nbytes for pair in POOL._kept[trials.source].splits.values() for split in pair]
    assert sum(held) <= scarce * reuse.RESIDENT_SHARE
    trials.place = replace(trials.place, seed=1)
    features.fill(trials.place, [1, 2, 3], POOL.backbone(trials.source), 1 << 30, silent)
    read.clear()
    assert reads(**shallower)[:1] == [40], "another view's features pass for this one's"


@pytest.mark.slow
def test_nothing_is_left_to_xla(trials: Trials, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, Keras would have it compile the features' pass and the export, half a minute for each model."""

    make = tf.function

    def function(*given: Any, **options: Any) -> Any:
        assert not (given and options.get("jit_compile")), f"{given}"
        return make(*given, **options)

    assert callable(keras.Model._resolve_auto_jit_compile)
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: True)  # noqa: ARG005 as on a GPU
    monkeypatch.setattr(tf, "function", function)
    place = keep(trials.source, toy, tmp_path / "cache")
    configuration = replace(trials.configuration(epochs=1), place=place, head_start=True)
    training.train(POOL, configuration, lambda report: None)  # noqa: ARG005
    exported = training.export(POOL, configuration, tmp_path, 1)
    training.show_tested(configuration, exported, tmp_path)
    training.show(POOL, configuration, 1, exported)


# memory


@pytest.mark.slow
def test_a_process_tells_when_it_is_crowded(trials: Trials) -> None:
    """A search over many depths would fill the memory with the networks of all of them."""
    forget()
    assert not POOL.crowded()
    kinds = [{"unfreeze_depth": depth, **optimizer} for optimizer in ({}, SGD) for depth in range(4)]
    assert len(kinds) == reuse.ENOUGH
    for kind in kinds:
        trials.network(**kind)
        assert not POOL.crowded()
    trials.place = replace(trials.place, views=1)
    trials.network(**kinds[0])
    assert not POOL.crowded(), "nothing was compiled"


def run_a_hundred(pickled: str, folder: str) -> None:
    """Run a hundred trials, and print what is resident after ten and after all of them, in MiB."""
    source, place = pickle.loads(Path(pickled).read_bytes())  # noqa: S301
    trials = Trials(source, place, Path(folder))
    numbers = np.random.default_rng(0)
    kinds = [{"unfreeze_depth": depth, **optimizer} for optimizer in ({}, SGD) for depth in range(4)]
    in_turn = itertools.chain.from_iterable(numbers.permutation(len(kinds)) for _ in itertools.count())
    for count, kind in enumerate(itertools.islice(in_turn, 100), start=1):
        parameters = {"learning_rate": 10 ** numbers.uniform(-4, -2), "batch_size": int(numbers.integers(4, 40))}
        trials.run(epochs=1, **{**kinds[kind], **parameters})
        if count in (10, 100):
            status = Path("/proc/self/status").read_text("utf-8")
            print("resident", int(status.split("VmRSS:")[1].split()[0]) // 1024)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory is resident")
def test_memory_stays_as_it_was_after_ten_trials(toy: Toy, tmp_path: Path) -> None:
    """A search of some thousand trials would take all memory of the machine, and the system would end it."""
    source = Source("tiny", "own", toy.image_size)
    pickled = tmp_path / "place"
    pickled.write_bytes(pickle.dumps((source, keep(source, toy, tmp_path / "cache"))))
    code = f"import test_reuse; test_reuse.run_a_hundred({str(pickled)!r}, {str(tmp_path)!r})"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    resident = [int(line.split()[1]) for line in ran.stdout.splitlines() if line.startswith("resident")]
    assert len(resident) == 2, ran.stderr
    print(f"resident after 10 trials: {resident[0]} MiB; after 100: {resident[1]} MiB")
    assert resident[1] <= GROWTH * resident[0]
