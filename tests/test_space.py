"""Spaces and settings: every fault is named, conditions hold, and the shipped spaces are good."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

import spaces
from search import errors
from search.components.optimizers import OPTIMIZERS
from search.errors import SpaceError
from search.parameters import sample
from search.setting import Value
from search.space import Budget, Choice, Depth, Float, Int, Objective, Space
from search.space.settings import SETTINGS, read_assignments
from search.space.spacefile import faults, load
from search.task.classification import METRICS

SHIPPED = sorted(path.stem for path in Path(spaces.__path__[0]).glob("[a-z]*.py"))
BUDGET = Budget(trials=4, epochs=2)
SEARCH = {
    "unfreeze_depth": Depth(),
    "learning_rate": Float(1e-4, 1e-1, log=True),
    "optimizer": Choice(["adam", "sgd"]),
    "momentum": Float(0.8, 0.95),
    "batch_size": Int(16, 64, step=16),
}
GOOD = Space(search=SEARCH, budget=BUDGET, when={"momentum": ("optimizer", "sgd")})
SEARCHABLE = ", ".join(sorted(name for name, setting in SETTINGS.items() if setting.searchable))
SEARCHED = ", ".join(sorted(SEARCH))
RATE = "must be a number, above 0 and at most 100"


def start(**point: Value | list[int]) -> dict[str, Any]:
    """A space's start with one point."""
    return {"start": [point]}


def suggestions(space: Space, count: int) -> list[tuple[dict[str, Value], dict[str, Any]]]:
    """What a space suggests to random trials, and what Optuna noted of each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    return [(space.suggest(partial(sample, trial)), trial.params) for trial in trials]


def test_a_good_space_has_no_faults() -> None:
    """Nothing passes the checks."""
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"search": {}}, "search: no parameter varies; give at least one"),
        (
            {"search": {"learning_rates": Float(0.1, 1)}},
            f"search: unknown parameter 'learning_rates'; did you mean 'learning_rate'? known are {SEARCHABLE}",
        ),
        (
            {"search": {"image_size": Int(32, 64)}},
            "search: 'image_size' cannot vary within a search; put it under fixed",
        ),
        ({"search": {"batch_size": Depth(1, 8)}}, "search['batch_size']: a Depth is for unfreeze_depth alone"),
        ({"search": {"dropout": [0.1]}}, "search['dropout']: must be Float, Int, Choice or Depth; got [0.1]"),
        ({"search": {"learning_rate": Float(0.0, 1)}}, f"search: learning_rate {RATE}; got 0.0"),
        ({"search": {"learning_rate": Float(0.1, 101)}}, f"search: learning_rate {RATE}; got 101.0"),
        ({"search": {"learning_rate": Choice([0.1, None])}}, f"search: learning_rate {RATE}; got None"),
        (
            {"search": {"unfreeze_depth": Depth(-1)}},
            "search: unfreeze_depth must be a whole number, at least 0; got -1",
        ),
        (
            {"search": {"batch_size": Choice([8.5])}},
            "search: batch_size must be a whole number, at least 1 and at most 65536; got 8.5",
        ),
        (
            {"search": {"optimizer": Choice(["adam", "sdg"])}},
            f"search: optimizer: unknown value 'sdg'; did you mean 'sgd'? known are {', '.join(sorted(OPTIMIZERS))}",
        ),
        ({"fixed": {"momentum": 0.5}}, "fixed: 'momentum' is under search as well; keep one of them"),
        (
            {"fixed": {"sampeler": "tpe"}},
            f"fixed: unknown setting 'sampeler'; did you mean 'sampler'? known are {', '.join(sorted(SETTINGS))}",
        ),
        ({"fixed": {"dropout": 1}}, "fixed: dropout must be a number, at least 0 and at most 0.95; got 1"),
        ({"fixed": {"stop_patience": True}}, "fixed: stop_patience must be a whole number, at least 1; got True"),
        ({"fixed": {"data": None}}, "fixed: data must be text, and not empty; got None"),
        ({"fixed": {"weights": 3}}, "fixed: weights must be text, and not empty; got 3"),
        (
            {"when": {"dropout": ("optimizer", "sgd")}},
            f"when: unknown parameter 'dropout'; known are {SEARCHED}",
        ),
        (
            {"when": {"momentum": ("optimiser", "sgd")}},
            f"when['momentum']: unknown parameter 'optimiser'; did you mean 'optimizer'? known are {SEARCHED}",
        ),
        ({"when": {"momentum": ("batch_size", 16)}}, "when['momentum']: 'batch_size' must be a Choice"),
        (
            {"when": {"momentum": ("optimizer", "lamb")}},
            "when['momentum']: 'optimizer' is never 'lamb'; its choices are ('adam', 'sgd')",
        ),
        (
            {"when": {"optimizer": ("optimizer", "sgd")}},
            "when['optimizer']: 'optimizer' would exist under a condition that depends on itself",
        ),
        (start(dropout=0.1), f"start[0]: unknown parameter 'dropout'; known are {SEARCHED}"),
        (start(optimizer="adam", momentum=0.9), "start[0]: 'momentum' applies only where optimizer is 'sgd'"),
        (start(momentum=0.9), "start[0]: 'momentum' applies only where optimizer is 'sgd'"),
        (
            start(unfreeze_depth="most"),
            "start[0]: 'unfreeze_depth' must be a whole number from 0, 'half' or 'all'; got",
        ),
        (start(unfreeze_depth=True), "start[0]: 'unfreeze_depth' must be a whole number from 0, 'half' or 'all'; got"),
        (start(unfreeze_depth=[1]), "start[0]: 'unfreeze_depth' must be a whole number from 0, 'half' or 'all'; got"),
        (
            {"search": {"unfreeze_depth": Depth(1, 3)}, "when": {}, **start(unfreeze_depth=4)},
            "start[0]: 'unfreeze_depth' must be a whole number from 1 to 3, 'half' or 'all'; got 4",
        ),
        (start(learning_rate=0.5), "start[0]: 'learning_rate' must be within FloatDistribution("),
        (start(batch_size=17), "start[0]: 'batch_size' must be within IntDistribution("),
        (start(learning_rate="0.01"), f"start[0]: learning_rate {RATE}; got '0.01'"),
        (start(batch_size=16.0), "start[0]: batch_size must be a whole number, at least 1 and at most 65536; got 16.0"),
        (start(optimizer="sdg"), "start[0]: optimizer: unknown value 'sdg'; did you mean 'sgd'?"),
        ({"budget": Budget(0, 1)}, "budget: trials must be a whole number, 1 or more; got 0"),
        ({"budget": Budget(1, 1.5)}, "budget: epochs must be a whole number, 1 or more; got 1.5"),
        ({"budget": Budget(1, 1, first_rung=0)}, "budget: first_rung must be a whole number, 1 or more; got 0"),
        (
            {"budget": Budget(1, 1, reduction_factor=1)},
            "budget: reduction_factor must be a whole number, 2 or more; got 1",
        ),
        ({"budget": Budget(1, 1, time_s=0)}, "budget: time_s must be more than 0 seconds; got 0"),
        ({"budget": Budget(1, 1, time_s=math.nan)}, "budget: time_s must be more than 0 seconds; got nan"),
        (
            {"objective": Objective("val_acuracy")},
            f"unknown objective 'val_acuracy'; did you mean 'val_accuracy'? known are {', '.join(sorted(METRICS))}",
        ),
        ({"objective": "val_loss"}, "objective must be of type Objective; got 'val_loss'"),
        ({"budget": None}, "budget must be of type Budget; got None"),
        ({"search": [Depth()]}, "search must be of type Mapping; got ["),
        ({"start": {"unfreeze_depth": 1}}, "start must be of type Sequence; got {'unfreeze_depth': 1}"),
        ({"start": [3]}, "start[0] must be of type Mapping; got 3"),
        (
            {"when": {"momentum": "optimizer"}},
            "when['momentum'] must be a pair of a parameter and its value, or values; got",
        ),
        ({"fixed": {3: 4}}, "a parameter's name must be text; got 3"),
    ],
)
def test_every_fault_is_named(changed: dict[str, Any], fault: str) -> None:
    """A faulty declaration starts a search, is named in vague words, or ends in a traceback."""
    (found,) = faults(replace(GOOD, **({"when": {}} if "search" in changed else {}) | changed))
    assert found.startswith(fault)


def test_faults_add_up() -> None:
    """Faults of one kind hide those of another."""
    space = Space(
        search={"optimizer": Choice(["adam"]), "image_size": Int(1, 2)},
        fixed={"batch_size": 0},
        when={"optimizer": ("dropout", 0)},
        start=[{}, {"optimizer": "sgd"}],
        budget=Budget(0, 0),
        objective=Objective("loss"),
    )
    beginnings = ["search:", "fixed:", "when['optimizer']:", "start[1]:", "budget: trials", "budget: epochs", "unknown"]
    assert len(beginnings) == len(faults(space))
    assert all(fault.startswith(word) for word, fault in zip(beginnings, faults(space), strict=True))


@pytest.mark.parametrize(("low", "high"), [(3, 1), ("0", None), (0, 1.5), (None, 3), (True, 3)])
def test_depth_that_is_no_range(low: Any, high: Any) -> None:
    """A range that ends before it begins is found only once the backbone is known."""
    with pytest.raises(ValueError, match="whole numbers with low <= high"):
        Depth(low, high)


@pytest.mark.parametrize("blocks", [1, 6, 18])
def test_depth_reaches_the_whole_backbone(blocks: int) -> None:
    """The deepest unfreezing is never tried, or more blocks than there are."""
    points = [{"unfreeze_depth": value} for value in (0, "half", "all")]
    resolved = replace(GOOD, start=points).resolve(blocks)
    assert resolved.search["unfreeze_depth"] == Int(0, blocks)
    assert [point["unfreeze_depth"] for point in resolved.start] == [0, math.ceil(blocks / 2), blocks]
    assert {**GOOD.search, "unfreeze_depth": Int(0, blocks)} == resolved.search


@pytest.mark.parametrize("depth", [Depth(0, 2), Depth(4), Depth(4, 5), Depth(6, 6)])
def test_half_and_all_keep_to_the_range(depth: Depth) -> None:
    """A start point lies outside the range that the space declares."""
    points = [{"unfreeze_depth": "half"}, {"unfreeze_depth": "all"}]
    resolved = Space({"unfreeze_depth": depth}, BUDGET, start=points).resolve(6)
    assert faults(resolved) == []
    assert resolved.start[1]["unfreeze_depth"] == depth.resolve(6).high


@pytest.mark.parametrize(
    "space",
    [
        Space({"unfreeze_depth": Depth(7)}, BUDGET),
        Space({"unfreeze_depth": Depth(0, 7)}, BUDGET),
        Space({"unfreeze_depth": Int(0, 7)}, BUDGET),
        Space({"unfreeze_depth": Choice([0, 7])}, BUDGET),
        Space({"unfreeze_depth": Depth()}, BUDGET, start=[{"unfreeze_depth": 7}]),
        Space({"dropout": Float(0, 0.5)}, BUDGET, fixed={"unfreeze_depth": 7}),
    ],
    ids=["low", "high", "int", "choice", "start", "fixed"],
)
def test_deeper_than_the_backbone(space: Space) -> None:
    """Every trial that is too deep fails, one after the other."""
    assert faults(space) == []
    assert faults(space.resolve(7)) == []
    with pytest.raises(SpaceError, match="unfreeze_depth 7 is asked for; the backbone has 6 blocks"):
        space.resolve(6)


def test_conditions_hold() -> None:
    """A parameter is sampled where it means nothing, or is missing where it is needed."""
    found = suggestions(GOOD.resolve(6), 60)
    for configuration, noted in found:
        assert set(SEARCH) - set(configuration) == ({"momentum"} if configuration["optimizer"] == "adam" else set())
        assert configuration == noted
    assert {configuration["optimizer"] for configuration, _ in found} == {"adam", "sgd"}


NESTED = Space(
    search={
        "focal_gamma": Choice([1.0, 2.0]),
        "momentum": Choice([0.8, 0.9]),
        "loss": Choice(["cross_entropy", "focal"]),
        "optimizer": Choice(["adam", "lion", "rmsprop", "sgd"]),
    },
    budget=BUDGET,
    when={"loss": ("optimizer", ("adam", "sgd")), "momentum": ("optimizer", "sgd"), "focal_gamma": ("loss", ["focal"])},
)


def test_conditions_of_several_values_and_levels() -> None:
    """A parameter would be there without its parent, or lack where one of several values holds."""
    assert faults(NESTED) == []
    # adam: cross-entropy, or focal with 2 gammas; lion, rmsprop; sgd: the same as adam, each with 2 momenta
    assert NESTED.size == 3 + 1 + 1 + 3 * 2
    found = [configuration for configuration, _ in suggestions(NESTED, 200)]
    for configuration in found:
        assert ("loss" in configuration) == (configuration["optimizer"] in ("adam", "sgd"))
        assert ("momentum" in configuration) == (configuration["optimizer"] == "sgd")
        assert ("focal_gamma" in configuration) == (configuration.get("loss") == "focal")
    assert len({tuple(sorted(configuration.items())) for configuration in found}) == NESTED.size
    assert json.loads(json.dumps(NESTED.declaration())) == NESTED.declaration()


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ({"loss": ("optimizer", ["adam", "lamb", "ftrl"])}, ["'lamb'", "'ftrl'"]),
        (
            {"loss": ("optimizer", "adam"), "optimizer": ("loss", "focal")},
            ["'loss' would exist under a condition", "'optimizer' would exist under a condition"],
        ),
    ],
)
def test_every_fault_of_a_condition_is_named(when: Any, fault: list[str]) -> None:
    """A circle of conditions would leave all of its parameters out of every trial."""
    found = faults(replace(NESTED, when=when))

    assert len(found) == len(fault)
    assert all(part in one for part, one in zip(fault, found, strict=True))


def test_conditions_hold_whatever_the_order() -> None:
    """A condition is decided before its parent has a value."""
    backwards = replace(GOOD, search=dict(reversed(GOOD.search.items()))).resolve(6)
    for configuration, _ in suggestions(backwards, 20):
        assert ("momentum" in configuration) == (configuration["optimizer"] == "sgd")


def test_suggestions_are_allowed() -> None:
    """A space that passes the check gives a trial a value that its setting does not allow."""
    for configuration, _ in suggestions(GOOD.resolve(6), 40):
        assert [SETTINGS[name].fault(name, value) for name, value in configuration.items()] == [None] * len(
            configuration
        )


def test_unresolved_depth_is_no_number() -> None:
    """A forgotten `resolve` samples something else."""
    with pytest.raises(TypeError, match="not resolved"):
        suggestions(GOOD, 1)


def test_applies() -> None:
    """A condition holds where the parent is absent."""
    assert GOOD.conditions.met("learning_rate", {})
    assert GOOD.conditions.met("momentum", {"optimizer": "sgd"})
    assert not GOOD.conditions.met("momentum", {"optimizer": "adam"})
    assert not GOOD.conditions.met("momentum", {})


@pytest.mark.parametrize(
    ("search", "fixed", "depths"),
    [
        ({"unfreeze_depth": Depth(1)}, {}, [1, 2, 3, 4, 5, 6]),
        ({"unfreeze_depth": Int(0, 6, step=3)}, {}, [0, 3, 6]),
        ({"unfreeze_depth": Choice([5, 2])}, {}, [5, 2]),
        ({"dropout": Float(0, 0.5)}, {"unfreeze_depth": 4}, [4]),
        ({"dropout": Float(0, 0.5)}, {}, [0]),
    ],
    ids=["depth", "int", "choice", "fixed", "default"],
)
def test_depths(search: dict[str, Any], fixed: dict[str, Value], depths: list[int]) -> None:
    """Features are computed that no trial starts from, or lack where one does."""
    assert depths == Space(search, BUDGET, fixed=fixed).resolve(6).depths


def test_depths_with_a_condition() -> None:
    """The trials that have no depth of their own are at one whose features are never kept."""
    search = {"unfreeze_depth": Depth(2), "optimizer": Choice(["adam", "sgd"])}
    assert Space(search, BUDGET, when={"unfreeze_depth": ("optimizer", "sgd")}).resolve(3).depths == [2, 3, 0]


@pytest.mark.parametrize(
    ("search", "when", "size"),
    [
        ({"optimizer": Choice(["adam"]), "batch_size": Choice([8])}, {}, 1),
        ({"unfreeze_depth": Depth(1), "optimizer": Choice(["adam", "sgd"])}, {}, 12),
        ({"optimizer": Choice(["adam", "sgd"]), "momentum": Float(0.5, 0.7, step=0.1)}, {"momentum": "sgd"}, 4),
        (
            {"optimizer": Choice(["adam", "sgd"]), "batch_size": Int(8, 24, step=8), "unfreeze_depth": Int(0, 1)},
            {"batch_size": "sgd", "unfreeze_depth": "adam"},
            5,
        ),
        ({"optimizer": Choice(["sgd", "adam"]), "batch_size": Choice([8, 8, 16])}, {"batch_size": "sgd"}, 3),
        ({"dropout": Float(0.1, 0.1), "stop_patience": Int(1, 3, log=True)}, {}, 3),
    ],
)
def test_size(search: dict[str, Any], when: dict[str, str], size: int) -> None:
    """A space is searched for longer than it has configurations, or some are never run."""
    space = Space(search, BUDGET, when={name: ("optimizer", value) for name, value in when.items()}).resolve(6)
    assert size == space.size == len({tuple(sorted(found.items())) for found, _ in suggestions(space, 40 * size)})


@pytest.mark.parametrize("space", [GOOD, Space({"optimizer": Choice(["adam"]), "dropout": Float(0, 0.5)}, BUDGET)])
def test_size_without_end(space: Space) -> None:
    """A space of numbers without steps is taken for one that can be run through."""
    assert space.resolve(6).size == math.inf


def test_settings_leave_out_what_varies() -> None:
    """A parameter is fixed and varies at once, or a default is lost."""
    found = replace(GOOD, fixed={"dropout": 0.3}).settings
    assert set(SETTINGS) - set(SEARCH) == set(found)
    assert found["dropout"] == 0.3
    assert all(found[name] == SETTINGS[name].default for name in found if name != "dropout")


def test_declaration_is_plain_data() -> None:
    """The record cannot be written, or does not hold what was declared."""
    space = replace(GOOD, start=[{"unfreeze_depth": "half"}], name="mine")
    written = json.loads(json.dumps(space.declaration()))
    assert written == space.declaration()
    assert list(written["search"]) == list(SEARCH)
    assert (written["name"], written["objective"]) == ("mine", "val_accuracy")
    assert written["when"] == {"momentum": ["optimizer", "sgd"]}
    assert written["start"] == [{"unfreeze_depth": "half"}]
    assert Budget(**written["budget"]) == BUDGET


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_objective(metric: str) -> None:
    """The worst trial wins."""
    objective, better, worse = Objective(metric), *((0.9, 0.1) if METRICS[metric].mode == "max" else (0.1, 0.9))
    assert objective.better(better, worse)
    assert objective.better(worse, None)
    assert not objective.better(worse, better)
    assert not objective.better(better, better)
    assert not objective.better(math.nan, worse)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_space_is_good(name: str) -> None:
    """A space that comes with the project does not run, or a first guess lies outside it."""
    space = load(name)
    assert (space.name, faults(space)) == (name, [])
    for blocks in (6, 18):
        resolved = space.resolve(blocks)
        assert faults(resolved) == []
        assert space.start
        for point in resolved.start:
            assert {parameter for parameter in space.search if space.conditions.met(parameter, point)} == set(point)
        for configuration, _ in suggestions(resolved, 10):
            assert set(configuration) <= set(space.search)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_space_is_explained(name: str) -> None:
    """A reader must guess what a space asks, how to run it, and what it costs."""
    text = Path(spaces.__path__[0], f"{name}.py").read_text()
    question, lines = text.split('"""')[1].split("\n\n", 1)
    assert "?" in question
    told: Mapping[str, str] = dict(re.findall(r"^(\w+) +(\S.*)$", lines, re.MULTILINE))
    assert list(told) == ["Run", "Cost", "Expect", "Compare"]
    assert told["Run"].startswith(f"python -m search.run --space {name}")


def test_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space of the user's own is not found, or is named after its folder."""
    text = 'from search.space import *\nspace = Space({"dropout": Float(0, 0.5)}, Budget(3, 2))\n'
    (tmp_path / "mine.py").write_text(text)
    expected = Space({"dropout": Float(0, 0.5)}, Budget(3, 2), name="mine")
    assert expected == load(str(tmp_path / "mine.py"))
    monkeypatch.chdir(tmp_path)
    assert expected == load("mine.py")


@pytest.mark.parametrize("name", ["mine", "spaces/finetune", "__init__", "", ".", "search.space"])
def test_no_such_space(name: str) -> None:
    """A name that is no space of the project is looked for elsewhere."""
    with pytest.raises(SpaceError, match=re.escape(errors.unknown("space", name, SHIPPED))):
        load(name)


def test_faults_of_a_shipped_space_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user does not see whose fault it is."""
    (tmp_path / "broken.py").write_text("from search.space import *\nspace = Space({}, Budget(0, 1))\n")
    monkeypatch.setattr(spaces, "__path__", [str(tmp_path)])
    with pytest.raises(SpaceError, match=r"^space 'broken' has 2 faults:\n  search: no parameter .*\n  budget: trials"):
        load("broken")


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_default_passes_its_own_check(name: str) -> None:
    """What nobody changed is refused, or a text that means the default is read as something else."""
    setting = SETTINGS[name]
    assert setting.fault(name, setting.default) is None
    if setting.default is not None:
        assert read_assignments([f"{name}={setting.default}"], SETTINGS) == ({name: setting.default}, [])


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.low > -math.inf])
def test_ends_of_a_range(name: str) -> None:
    """The last allowed value is refused, or the first forbidden one is not."""
    setting = SETTINGS[name]
    kind = type(setting.default)
    assert bool(setting.fault(name, kind(setting.low))) == setting.above
    assert setting.fault(name, kind(setting.low - 1))
    if setting.high < math.inf:
        assert setting.fault(name, kind(setting.high)) is None
        assert setting.fault(name, kind(setting.high + 1))
    for wrong in (None, "1", True, [1], math.nan):
        assert setting.fault(name, wrong)


def test_read_assignments() -> None:
    """`--set` reads a number as text or a text as a number, or forgets one of its faults."""
    good = ["batch_size=8", "dropout=.5", "learning_rate=1", "data=a=b", "sampler=qmc", "batch_size=16"]
    values, faults = read_assignments([*good, "batch_size=8.0", "x=1", "seed", "weights="], SETTINGS)
    expected = {"batch_size": 16, "dropout": 0.5, "learning_rate": 1.0, "data": "a=b", "sampler": "qmc"}
    assert expected == values
    assert {name: type(value) for name, value in expected.items()} == {name: type(values[name]) for name in values}
    assert [fault.partition(": ")[0] for fault in faults] == [
        "--set batch_size=8.0",
        "--set x=1",
        "--set seed",
        "--set weights=",
    ]
