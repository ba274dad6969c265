"""Loads a space by name or from a file, and checks it completely; all faults are reported together."""

import re
import runpy
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

import spaces
from search.budget import Budget
from search.components.tables import OWN, TABLES
from search.errors import SpaceError, unknown
from search.internals.of_optuna import contains
from search.parameters import Choice, Depth, Parameter, ends
from search.setting import Value
from search.space.settings import known
from search.space.space import Space
from search.task.metric import OF_VALIDATION, Metric
from search.task.objective import Objective
from search.task.tasks import TASKS


def faults(space: Space) -> list[str]:
    """The faults of the declaration; empty if there are none. After faults of types, nothing more is checked."""
    if wrong := [*_type_faults(space), *_own_faults(space)]:
        return wrong
    return [
        *_search_faults(space),
        *_fixed_faults(space),
        *_when_faults(space),
        *_start_faults(space),
        *(space.budget.faults() or finish_faults(space)),
        *_objective_faults(space),
        *task_faults(space),
    ]


def _type_faults(space: Space) -> list[str]:
    kinds: dict[str, type] = dict.fromkeys(("search", "fixed", "when", "own"), Mapping)
    kinds |= {"start": Sequence, "objective": Objective, "budget": Budget}
    found = [
        f"{name} must be of type {kind.__name__}; got {value!r}"
        for name, kind in kinds.items()
        if not isinstance(value := getattr(space, name), kind)
    ]
    if found:
        return found
    names = [*space.search, *space.fixed, *space.when]
    found += [f"a parameter's name must be text; got {name!r}" for name in names if not isinstance(name, str)]
    found += [
        f"when[{name!r}] must be a pair of a parameter and its value, or values; got {condition!r}"
        for name, condition in space.when.items()
        if not (isinstance(condition, tuple | list) and len(condition) == 2 and isinstance(condition[0], str))
    ]
    found += [
        f"start[{index}] must be of type Mapping; got {point!r}"
        for index, point in enumerate(space.start)
        if not isinstance(point, Mapping)
    ]
    return found


def _own_faults(space: Space) -> list[str]:
    found = []
    for kind, table in space.own.items() if isinstance(space.own, Mapping) else ():
        if kind == "metric":
            found += _metric_faults(table)
            continue
        if kind not in OWN:
            found.append(f"own: {unknown('kind of component', kind, (*OWN, 'metric'))}")
            continue
        wanted = type(next(iter(TABLES[kind].values())))
        for name, component in table.items():
            if name in TABLES[kind]:
                found.append(f"own[{kind!r}]: {name!r} is one of the project's; take another name")
            elif not isinstance(component, wanted):
                found.append(f"own[{kind!r}][{name!r}] must be of type {wanted.__name__}; got {component!r}")
            else:
                found += [
                    f"own[{kind!r}][{name!r}]: {parameter!r} means something else already; take another name"
                    for parameter, setting in component.parameters.items()
                    if known(TABLES).get(parameter, setting) != setting
                ]
    return found


def _metric_faults(table: Mapping[str, Any]) -> list[str]:
    found = []
    for name, metric in table.items():
        if any(name in task.metrics for task in TASKS.values()):
            found.append(f"own['metric']: {name!r} is one of the project's; take another name")
        elif not re.fullmatch(rf"{OF_VALIDATION}[a-z0-9_]+", name):
            found.append(f"own['metric']: {name!r} must begin with {OF_VALIDATION}, and be small letters, digits and _")
        elif not isinstance(metric, Metric) or not callable(metric.of):
            found.append(f"own['metric'][{name!r}] must be a Metric with a function; got {metric!r}")
        elif metric.mode not in ("max", "min"):
            found.append(f"own['metric'][{name!r}]: mode must be 'max' or 'min'; got {metric.mode!r}")
    return found


def _objective_faults(space: Space) -> list[str]:
    asked = space.objective
    return [] if asked.metric in asked.metrics else [unknown("objective", asked.metric, asked.metrics)]


def task_faults(space: Space) -> list[str]:
    """Faults if what is predicted cannot be trained as the space asks."""
    kind, task, losses = space.objective.kind, space.objective.task, space.tables["loss"]
    fit = [name for name, loss in losses.items() if kind in getattr(loss, "tasks", ())]
    found = [
        f"loss: {name} does not train for task={kind}; {', '.join(fit)} do"
        for name in space.named("loss")
        if name in losses and name not in fit
    ]
    if task.sharpness is None and space.settings.get("calibrate") == "true":
        found.append(f"calibrate is for probabilities; task={kind} has none")
    weighed = "class_weight_exponent"
    if not task.weighted and (weighed in space.search or space.settings.get(weighed)):
        found.append(f"{weighed} is for images of one class each; not for task={kind}")
    return found


def _search_faults(space: Space) -> list[str]:
    found = [] if space.search else ["search: no parameter varies; give at least one"]
    settings, owners = space.known, _owners(space)
    searchable = [name for name, setting in settings.items() if setting.searchable]
    for name, distribution in space.search.items():
        is_distribution = isinstance(distribution, Parameter)
        if name not in settings:
            found.append(f"search: {unknown('parameter', name, searchable)}")
        elif name not in searchable:
            found.append(f"search: '{name}' cannot vary within a search; put it under fixed")
        elif isinstance(distribution, Depth) and name != "unfreeze_depth":
            found.append(f"search['{name}']: a Depth is for unfreeze_depth alone")
        elif not is_distribution:
            found.append(f"search['{name}']: must be Float, Int, Choice or Depth; got {distribution!r}")
        else:
            found += [f"search: {f}" for value in ends(distribution) if (f := settings[name].fault(name, value))]
            if name in owners and not any(one in space.named(kind) for kind, one in owners[name]):
                which = " or ".join(f"{kind}={one}" for kind, one in owners[name])
                found.append(f"search: '{name}' has no effect; it is for {which}, which this space never has")
    return found


def _owners(space: Space) -> dict[str, list[tuple[str, str]]]:
    """Parameter → the components that use it, each as (the setting that names it, its name)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, table in space.tables.items():
        for name, component in table.items():
            for parameter in component.parameters:
                found.setdefault(parameter, []).append((kind, name))
    return found


def _fixed_faults(space: Space) -> list[str]:
    found, settings = [], space.known
    for name, value in space.fixed.items():
        if name in space.search:
            found.append(f"fixed: '{name}' is under search as well; keep one of them")
        elif name not in settings:
            found.append(f"fixed: {unknown('setting', name, settings)}")
        elif fault := settings[name].fault(name, value):
            found.append(f"fixed: {fault}")
    return found


def finish_faults(space: Space) -> list[str]:
    """A fault if `finish_epochs` would give the best trials no more epochs than all others."""
    asked = space.settings["finish_epochs"]
    if space.known["finish_epochs"].fault("", asked) or not asked or space.longest > space.budget.epochs:
        return []
    return [f"finish_epochs must be 0, or more than the {space.budget.epochs} epochs of every trial; got {asked}"]


def _when_faults(space: Space) -> list[str]:
    found = []
    for name in space.when:
        parent, values = space.conditions.of(name)
        if name not in space.search:
            found.append(f"when: {unknown('parameter', name, space.search)}")
        if parent not in space.search:
            found.append(f"when['{name}']: {unknown('parameter', parent, space.search)}")
        elif not isinstance(choice := space.search[parent], Choice):
            found.append(f"when['{name}']: '{parent}' must be a Choice")
        else:
            never = [value for value in values if value not in choice.choices]
            found += [f"when['{name}']: '{parent}' is never {v!r}; its choices are {choice.choices}" for v in never]
            if space.conditions.level(name) > len(space.search):
                found.append(f"when['{name}']: '{name}' would exist under a condition that depends on itself")
    return found


def _start_faults(space: Space) -> list[str]:
    return [
        f"start[{index}]: {fault}"
        for index, point in enumerate(space.start)
        for name, value in point.items()
        if (fault := _point_fault(space, point, name, value))
    ]


def _point_fault(space: Space, point: Mapping[str, Value], name: str, value: Value) -> str | None:
    if name not in space.search:
        return unknown("parameter", name, space.search)
    distribution: object = space.search[name]
    if name in space.when and name in point and not space.conditions.met(name, point):
        parent, wanted = space.conditions.of(name)
        return f"'{name}' applies only where {parent} is {' or '.join(map(repr, wanted))}"
    if isinstance(distribution, Depth):
        return distribution.fault(name, value)
    if name in (settings := space.known) and (fault := settings[name].fault(name, value)):
        return fault
    if isinstance(distribution, BaseDistribution) and not contains(distribution, value):
        return f"'{name}' must be within {distribution}; got {value!r}"
    return None


def load(name_or_file: str) -> Space:
    """Load a space by its name in `spaces/`, or from a user's own `.py` file, and check it completely.

    Raises:
        SpaceError: there is no such space, the file does not run or creates no `space`, or the declaration has faults.
    """
    path = _path(name_or_file)
    try:
        space = runpy.run_path(str(path)).get("space")
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"line {lines[-1]}: " if lines else ""
        raise SpaceError([f"does not run: {where}{type(error).__name__}: {error}"], str(path)) from error
    if not isinstance(space, Space):
        raise SpaceError([f"must make a Space and call it 'space'; found {type(space).__name__}"], str(path))
    if wrong := faults(space):
        raise SpaceError(wrong, str(path) if name_or_file.endswith(".py") else f"space '{path.stem}'")
    about: dict[str, Any] = {"file": str(path), "source": path.read_text("utf-8")} if space.own else {}
    own = {kind: {name: replace(one, **about) for name, one in table.items()} for kind, table in space.own.items()}
    return replace(space, name=path.stem, own=own)


def _path(name_or_file: str) -> Path:
    if name_or_file.endswith(".py"):
        if not Path(name_or_file).is_file():
            raise SpaceError([f"--space {name_or_file}: no such file"])
        return Path(name_or_file).resolve()
    known = {path.stem: path for path in Path(spaces.__path__[0]).glob("[a-z]*.py")}
    if name_or_file not in known:
        raise SpaceError([f"{unknown('space', name_or_file, known)}; or give a file that ends in .py"])
    return known[name_or_file]
