"""The model card, `best/README.md`, and the names of the classes, `best/labels.txt`.

What a card tells follows "Model Cards for Model Reporting" (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993).
"""

import shlex
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from search import machine
from search.data.store import SPLITS, Dataset
from search.record.files import CARD, LABELS
from search.record.record import Record, Row, now, read_search, write_text
from search.report import analysis, conclusion
from search.request.request import Request
from search.task.metric import figure

WEAKEST = 3  # classes
TRIAL = ("optimizer", "schedule", "loss", "head", "batch_size")  # told, also where they did not vary
SEARCH = ("augmented_views", "precision", "head_start")  # what all trials have in common


def write(request: Request, record: Record, winner: Row, metrics: Mapping[str, Any]) -> None:
    """Write the card and the names of the classes beside the winner's model.

    Args:
        metrics: of the model, as `metrics.json` holds them.

    Raises:
        OSError: a file cannot be written.
    """
    best = record.files.best
    write_text(best / LABELS, "".join(f"{name}\n" for name in request.workload.images.classes))
    write_text(best / CARD, card(request, record, winner, metrics))


def card(request: Request, record: Record, winner: Row, metrics: Mapping[str, Any]) -> str:
    """The card, in Markdown."""
    templates = Environment(
        loader=PackageLoader("search", "report"),
        autoescape=False,  # noqa: S701 it is Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["cell"] = _cell
    about, images = read_search(record.folder), request.workload.images
    storage = request.storage if request.uri else str(record.folder.parent)
    return templates.get_template("card.md").render(
        name=record.folder.name,
        named=shlex.join([record.folder.name, "--storage", storage]),
        command=about.get("command", ""),
        versions=machine.versions(),
        written=now(),
        image_size=request.image_size,
        classes=images.classes,
        task=request.space.objective.task,
        temperature=metrics.get("temperature"),
        custom_objects=metrics.get("custom_objects", []),
        model={"words": conclusion.model(metrics).capitalize()},
        data=_data(images),
        trained=_trained(request, record, winner, metrics),
        figures=_figures(metrics),
        chance=_chance(metrics, len(images.items["test"])),
        weakest=_weakest(metrics),
    )


def _cell(value: object) -> str:
    """A value within a table: nothing in it ends its cell."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _data(images: Dataset) -> dict[str, Any]:
    counts = [images.counted(split) for split in SPLITS]
    return {
        "source": images.source,
        "fingerprint": images.fingerprint,
        "skipped": images.skipped,
        "notes": images.notes,
        "counts": [(name, *(count[name] for count in counts)) for name in images.classes if name in counts[0]],
        "totals": [len(images.items[split]) for split in SPLITS],
    }


def _trained(request: Request, record: Record, winner: Row, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """How the winner was trained: pairs of a name and a value; of how many trials; whether from random weights."""
    settings, parameters = request.space.settings, request.space.parameters(dict(winner.parameters))
    mixed = metrics.get("soup", {}).get("trials", [])
    rows = {
        "backbone": settings["backbone"],
        "weights that it began with": request.weights,
        "blocks of it that were trained": f"{parameters['unfreeze_depth']} of {len(request.workload.place.shapes)}",
        **{name: value for name, value in winner.parameters.items() if name != "unfreeze_depth"},
        **{name: parameters[name] for name in TRIAL},
        "epochs": f"{winner.best_epoch} (the best of {winner.epochs})",
        **({"weights averaged over trials": ", ".join(mixed)} if mixed else {}),
        **{name: settings[name] for name in SEARCH},
        "seed": winner.parameters.get("seed", request.seed),
    }
    return {"rows": list(rows.items()), "trials": len(record.rows), "random": request.weights == "none"}


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Every metric's value on the validation and on the test images, by its name without the split."""
    names = [name.removeprefix("val_") for name, value in metrics.items() if _number(name, value)]
    return [(name, figure(metrics[f"val_{name}"]), figure(metrics.get(f"test_{name}"))) for name in names]


def _number(name: str, value: object) -> bool:
    return name.startswith("val_") and isinstance(value, int | float)


def _chance(metrics: Mapping[str, Any], count: int) -> str:
    share = metrics.get("test_accuracy")
    return "" if share is None else f"{100 * analysis.margin(share, count):.1f} points"


def _weakest(metrics: Mapping[str, Any]) -> list[str]:
    """The classes or labels of the least recall, with it, unless all are found whole."""
    recalls = zip(*conclusion.recalls(metrics), strict=True)
    known = sorted((recall, name) for name, recall in recalls if recall is not None and recall < 1)
    return [f"{name} ({recall:.0%} of its images)" for recall, name in known[:WEAKEST]]
