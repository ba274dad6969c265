"""The request, fully checked: first what can be checked at once, then the backbone and the images.

Nothing is written to the storage and no search starts here, so that a wrong request leaves no search behind.
"""

import argparse
import math
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search import cache, features, machine
from search.backbone import backbones
from search.backbone.backbones import Source
from search.components.stopping.finish import Finish
from search.components.stopping.rule import Rule
from search.data import shards, sources, store
from search.data.settings import DataSettings, user_cache
from search.errors import RequestError
from search.features import Place
from search.record import mirror, objects
from search.record.objects import joined, local, remote
from search.record.record import NAME, SEED, Record
from search.request import resources
from search.request.options import Numbers
from search.request.requirements import Question
from search.request.resources import Resources
from search.request.workload import Workload
from search.setting import Value, Values
from search.space import space, spacefile
from search.space.settings import SETTINGS, read_assignments
from search.trial.preparation import Preparation
from search.trial.training import Configuration

LOCATED = ("data", "backbone", "weights")


@dataclass(frozen=True)
class Request:
    """A checked request; once it has `known` it is complete, and a search can start.

    Args:
        space: with the budget and the settings that were requested; resolved for the backbone once complete.
        folder: of the search; it does not exist yet, unless the search is resumed.
        weights: `imagenet`, `none`, `own` or a file.
        image_size: side in pixels; 0 until the backbone's own size is known.
        resources: what the search and each trial may use.
        storage: where searches are kept, as given: a folder, or the URI of object storage, which `folder` mirrors.
        known: what the trials work on; `None` until the request is complete.
        notes: what the user should know about the space and the backbone.
        question: the question for nodes that join the cluster later; `None` on a local Ray.
    """

    space: space.Space
    folder: Path
    weights: str
    image_size: int
    cache: Path
    seed: int
    resources: Resources
    storage: str = ""
    known: Workload | None = None
    notes: tuple[str, ...] = ()
    question: Question | None = None

    @property
    def uri(self) -> str:
        """The URI of the search in object storage; empty if the storage is a folder."""
        return joined(self.storage, self.folder.name) if remote(self.storage) else ""

    @property
    def workload(self) -> Workload:
        """What the trials work on.

        Raises:
            ValueError: the request is not complete.
        """
        if self.known is None:
            raise ValueError("the request is not complete")
        return self.known

    @property
    def source(self) -> Source:
        """What the backbone is made from."""
        settings = self.space.settings
        return Source(settings.text("backbone"), self.weights, self.image_size, settings.text("precision"))

    @property
    def rule(self) -> Rule:
        """The stopping rule, which decides which trials stop early so that others get their resources."""
        budget, objective = self.space.budget, self.space.objective
        rule = self.space.stopping.build(budget, objective)
        return Finish(rule, budget, objective) if self.space.longest > budget.epochs else rule

    def configuration(self, number: str, chosen: Mapping[str, Value], deadline: float = math.inf) -> Configuration:
        """The configuration of trial `number`, with the parameters that were chosen for it.

        Args:
            chosen: the parameters; with a `seed` if it differs from the search's.
            deadline: when the time budget is used up, in seconds since 1970.
        """
        record, settings, parameters = Record(self.folder), self.space.settings, self.space.parameters(chosen)
        return Configuration(
            trial=number,
            parameters=parameters,
            parts=self.space.parts(parameters),
            epochs=self.space.longest,
            seed=Values({SEED: chosen.get(SEED, self.seed)}).whole(SEED),
            objective=self.space.objective,
            backbone=settings.text("backbone"),
            weights=self.weights,
            place=self.workload.place,
            head_start=settings["head_start"] == "probe",
            folder=record.files.checkpoints(number),
            tensorboard=record.run(number, chosen),
            rungs=self.rule.rungs,
            deadline=deadline,
        )


def check(options: argparse.Namespace) -> Request:
    """Check everything that can be checked without reading an image or importing Keras.

    Raises:
        RequestError: names every fault.
    """
    numbers = Numbers(options)
    faults = _not_text(options)
    asked = _space(options, numbers, faults)
    found = resources.read(options, numbers, faults)
    kept = cache_folder(options.cache)
    folder = _folder(options, kept, asked.name if asked else "search", faults)
    if fault := machine.unwritable(kept):
        faults.append(f"--cache {kept}: {fault}")
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        faults.append(f"temporary files have no place: {error.strerror}; name a folder that can be written with TMPDIR")
    seed = numbers.whole("seed", 0, high=2**32 - 1)
    if asked is None or faults or numbers.faults or seed is None:
        raise RequestError([*numbers.faults, *faults])
    backbone, weights = asked.settings.text("backbone"), asked.settings["weights"]
    return Request(
        space=asked,
        folder=folder,
        weights=str(weights or backbones.default_weights(backbone)),
        image_size=int(asked.settings["image_size"] or 0),
        cache=kept,
        seed=seed,
        resources=found,
        storage=options.storage,
    )


def cache_folder(given: str | None) -> Path:
    """This node's cache: the given folder, or one in the user's cache folder.

    Raises:
        RequestError: this user has no home folder, which Ray needs too.
    """
    if os.path.expanduser("~") == "~":  # noqa: PTH111 it never raises
        raise RequestError(["HOME is not set, and this user has no home folder: set HOME to a folder"])
    return Path(given or user_cache()).absolute()


def find(request: Request, progress: store.Progress) -> store.Dataset:
    """Scan the dataset and split it, see `store.find`.

    Raises:
        DataError: names every fault.
    """
    settings = request.space.settings
    bad = settings.number("max_bad_files")
    asked = DataSettings.of(settings, request.cache)
    return store.find(settings.text("data"), seed=request.seed, max_bad_files=bad, settings=asked, progress=progress)


def complete(request: Request, found: store.Dataset, preparation: Preparation, progress: store.Progress) -> Request:
    """Get the description of the backbone, and decode the images.

    Args:
        found: the dataset that `find` returned.
        preparation: was started for the request's backbone.

    Raises:
        BackboneError, DataError, SpaceError: name every fault.
    """
    settings = request.space.settings
    bad = settings.number("max_bad_files")
    described = preparation.describe()
    image_size, blocks = int(described["image_size"]), len(described["blocks"])
    space = request.space.resolve(blocks)
    budget = replace(space.budget, trials=int(min(space.budget.trials, space.size)))
    dataset = store.decode(
        found,
        max_bad_files=bad,
        image_size=image_size,
        cache=request.cache,
        near_duplicates=settings.text("near_duplicates"),
        progress=progress,
    )
    place = Place(
        cache=request.cache,
        dataset=dataset,
        image_size=image_size,
        identity=described["identity"],
        shapes=tuple(map(tuple, described["shapes"])),
        precision=settings.text("precision"),
        views=settings.whole("augmented_views"),
        seed=request.seed,
    )
    limit = cache.allowed(place.root, settings.number("cache_gib"))
    wanted = [blocks - depth for depth in space.depths] + [blocks] * (settings["head_start"] == "probe")
    device = "gpu" if request.resources.gpus_per_trial else "cpu"
    cuts = features.worthwhile(place, wanted, described["multiplications"], device, limit)
    head = (described["shapes"][-1][0] + 1) * len(dataset.classes)
    trained = {depth: head + sum(described["parameters"][blocks - depth :]) for depth in space.depths}
    return replace(
        request,
        space=replace(space, budget=budget),
        image_size=image_size,
        known=Workload(place, tuple(cuts), limit, trained),
        notes=(*_space_notes(space), *_backbone_notes(described["left_off"])),
    )


def _space_notes(asked: space.Space) -> list[str]:
    """A note if the space has fewer configurations than the requested trials."""
    size, trials = asked.size, asked.budget.trials
    if size >= trials:
        return []
    return [f"the space has {size} configuration{'s' * (size > 1)}, fewer than {trials} trials: each is run once"]


def _backbone_notes(left_off: Sequence[str]) -> list[str]:
    if not left_off:
        return []
    names = ", ".join(left_off)
    return [f"the backbone's augmentation is left off ({names}); --set augmented_views=4 trains on random views"]


def _not_text(options: argparse.Namespace) -> list[str]:
    """Faults of names that are not UTF-8: the record, which is UTF-8, cannot hold them.

    Raises:
        RequestError: the current folder, to which relative paths refer, is gone.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 as text
    except FileNotFoundError as error:
        raise RequestError(["the current folder is gone: change into one that is there"]) from error
    named = {f"--{name}": getattr(options, name) for name in ("space", "storage", "cache", *LOCATED)}
    named |= {"--set": " ".join(options.set), "the current folder": here}
    return [
        f"{option}: {name}: this name is not UTF-8, which the record is written in; rename it"
        for option, name in named.items()
        if name and not _is_text(name)
    ]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _space(options: argparse.Namespace, numbers: Numbers, faults: list[str]) -> space.Space | None:
    """The space with all changes of the options; also checks backbone, weights, data and components."""
    changes: dict[str, Any] = {
        "trials": numbers.whole("trials", 1),
        "epochs": numbers.whole("epochs", 1),
        "time_s": numbers.amount("time_budget"),
    }
    given = {name: value for name in LOCATED if (value := getattr(options, name)) is not None}
    faults += [f"--{fault}" for name, value in given.items() if (fault := SETTINGS[name].fault(name, value))]
    loading: list[str] = []
    try:
        asked = spacefile.load(options.space)
    except RequestError as error:
        loading.append(str(error).replace("\n", "\n  "))
        asked = None
    settings, wrong = read_assignments(options.set, asked.known if asked else SETTINGS)
    faults[:0] = wrong
    faults += loading
    settings |= {name: value for name, value in given.items() if value}
    settings |= {name: _located(name, str(settings[name])) for name in LOCATED if settings.get(name)}
    if asked:
        faults += [
            f"--set {name}: this space searches '{name}'; change its range in a space file of your own"
            for name in settings
            if name in asked.search
        ]
        budget = replace(asked.budget, **{name: value for name, value in changes.items() if value is not None})
        asked = replace(asked, budget=budget, fixed={**asked.fixed, **settings})
        faults += [] if options.resume else _rule_faults(asked, settings.get("stopping", "none"))
    defaults = {name: setting.default for name, setting in SETTINGS.items()}
    known = asked.settings if asked else Values({**defaults, **settings})
    faults += _named_faults(known)
    faults += spacefile.task_faults(asked) if asked else []
    faults += [fault for component in asked.components() for fault in component.missing()] if asked else []
    return asked


def _rule_faults(asked: space.Space, name: Value) -> list[str]:
    """Faults if the requested stopping rule would never decide, or the best trials would get no further epochs."""
    budget = asked.budget
    if found := spacefile.finish_faults(asked):
        return found
    if name == "none" or spacefile.faults(asked) or asked.stopping.build(budget, asked.objective).rungs:
        return []
    return [
        f"stopping {name} would never decide: its first rung comes no earlier than the last epoch, {budget.epochs}; "
        "give more epochs, a smaller first_rung in the space's budget, or stopping=none"
    ]


def _located(name: str, value: str) -> str:
    """Make an existing path absolute, so that it is still valid when the search is resumed; a known name is kept."""
    known = {"data": sources.names(), "backbone": backbones.names(), "weights": ("imagenet", "own", "none")}
    if name == "data" and shards.owns(value):
        return shards.whole(value)
    return value if value in known[name] or not Path(value).exists() else str(Path(value).absolute())


def _named_faults(settings: Values) -> list[str]:
    backbone, weights = settings.text("backbone"), settings["weights"]
    found = backbones.check(backbone, str(weights or backbones.default_weights(backbone)))
    return found + store.faults(settings.text("data"))


def _folder(options: argparse.Namespace, kept: Path, space_name: str, faults: list[str]) -> Path:
    """The folder of the search; in object storage, the local folder that mirrors it."""
    known_as = re.sub(r"[^A-Za-z0-9._-]+", "-", space_name).strip("._-")[:80] or "search"
    name = options.name if options.name is not None else f"{known_as}-{time.strftime('%Y%m%d-%H%M%S')}"
    away = remote(options.storage)
    storage = local(options.storage, kept) if away else Path(options.storage)
    if misplaced := _storage_fault(options.storage):
        faults.append(f"--storage {misplaced}")
    if not NAME.fullmatch(name):
        faults.append(f"--name {name!r}: letters, digits, '.', '_' and '-' are allowed, and a letter or digit first")
    elif not misplaced and not options.resume:
        uri = joined(options.storage, name)
        if not (mirror.empty(uri) if away else Record(storage / name).vacant):
            there = uri if away else storage / name
            faults.append(f"--name {name}: {there} exists already; take another name, or --resume {name}")
    return storage.absolute() / name


def _storage_fault(storage: str) -> str | None:
    if not storage:
        return "must not be empty"
    fault = objects.fault(storage) if remote(storage) else machine.unwritable(Path(storage))
    return fault and f"{storage}: {fault}"
