"""Summaries of a complete request: a line for the user, plain data for the record, and the disk space it needs."""

import statistics
from pathlib import Path
from typing import Any

from search import machine
from search.errors import RequestError
from search.request.request import Request
from search.request.requirements import digest

FILES = ("backbone", "weights")  # settings that may name a file
STATES = 8  # two checkpoints, each with the weights, two optimizer slots and the best weights
SPARE = 64 << 20
FEW = 20
TOLD = ("cpus", "gpus", "cpus_per_trial", "gpus_per_trial")  # of the resources


def summary(request: Request) -> str:
    """The request in one line, for the user."""
    settings, budget = request.space.settings, request.space.budget
    confirming = f", and {request.space.confirming} that confirm the best" if request.space.confirming else ""
    longer = f", the best ones of at most {request.space.longest}" if request.space.longest > budget.epochs else ""
    images = "/".join(str(len(items)) for items in request.workload.images.items.values())
    outputs = request.space.objective.task.counting(len(request.workload.images.classes))
    return (
        f"search {request.folder.name}: {budget.trials} trials of at most {budget.epochs} epochs{longer}{confirming}, "
        f"backbone {settings['backbone']} with weights {request.weights}, "
        f"{images} images of {outputs} at {request.image_size} pixels"
    )


def about_images(request: Request) -> list[str]:
    """Lines for the user about the images: skipped files, other notes, and how many images each class has."""
    dataset = request.workload.images
    skipped = [f"skipped {path}: {reason}" for path, reason in dataset.skipped[:FEW]]
    if len(dataset.skipped) > FEW:
        skipped.append(f"skipped {len(dataset.skipped) - FEW} more; search.json names them all")
    counts = sorted(dataset.counts.items(), key=lambda pair: pair[1])
    more = len(counts) - FEW
    shown = counts[:FEW] if more > 0 else sorted(counts)
    larger = f", and {more} larger ones of up to {counts[-1][1]}" if more > 0 else ""
    named = ", ".join(f"{name} {count}" for name, count in shown)
    counted = [f"images of each class: {named}{larger}"] if shown else []
    return [*skipped, *dataset.notes, *counted]


def trials(request: Request) -> int:
    """How many trials there will be, including the confirming ones."""
    return request.space.budget.trials + request.space.confirming


def described(request: Request) -> dict[str, Any]:
    """The request as plain data, for `search.json`."""
    dataset = request.workload.images
    settings = {**request.space.settings, "weights": request.weights, "image_size": request.image_size}
    return {
        "space": request.space.declaration(),
        "settings": settings,
        "files": {name: digest(Path(str(settings[name]))) for name in FILES if Path(str(settings[name])).is_file()},
        "seed": request.seed,
        "data": {
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "images": {split: len(items) for split, items in dataset.items.items()},
            "counts": {split: dataset.counted(split) for split in dataset.items},
            "skipped": [list(item) for item in dataset.skipped],
            "notes": list(dataset.notes),
        },
        "notes": list(request.notes),
        "trained_parameters": {str(depth): count for depth, count in request.workload.trained.items()},
        "blocks": len(request.workload.place.shapes),
        "resources": {name: getattr(request.resources, name) for name in TOLD},
    }


def demand_room(request: Request, trials: int) -> None:
    """Check that the storage has room for the checkpoints of this many trials, and for the winner.

    Raises:
        RequestError: it has too little room.
    """
    resources = request.resources
    running = resources.max_concurrent or max(1, int(resources.cpus / resources.cpus_per_trial))
    sizes = [4 * count for count in request.workload.trained.values()]
    needed = statistics.mean(sizes) * trials + max(sizes) * STATES * min(running, trials) + SPARE
    free = machine.free(request.folder)
    if free < needed:
        asked = f"{trials} trials may need {_mib(needed)} of storage; {request.folder.parent} has {_mib(free)} free"
        raise RequestError([f"{asked}: make room, take another --storage, or fewer --trials"])


def _mib(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB"
