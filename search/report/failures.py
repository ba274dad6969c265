"""What the report says of the model on the test images: its figures, where it fails, and how far it can be trusted."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.record import files
from search.report import analysis, model_charts
from search.report.analysis import Findings
from search.report.conclusion import alone, missed, model
from search.report.parts import Details, Paragraph, Part, Picture, Pictures, Table, chart

Figures = Mapping[str, Any]


def keys(found: Findings) -> list[tuple[str, str]]:
    """The figures to see first; none while there is no model."""
    tested, main = analysis.metrics(found), found.objective.task.objective
    if not tested:
        return []
    words = found.objective.metrics[main].words.replace("validation", "test")
    first = [(words, f"{tested[main.replace('val_', 'test_')]:.4f}")]
    counts = tested.get("confusion_matrix")
    return [*first, ("balanced over the classes", f"{analysis.balanced(counts):.4f}")] if counts else first


def parts(found: Findings) -> list[Part]:
    """Where the model fails; nothing while there is none."""
    tested = analysis.metrics(found)
    if not tested:
        return []
    of_task = {"confusion_matrix": _classes, "labels": _labels, "numbers": _numbers}
    told = [part for name, shown in of_task.items() if name in tested for part in shown(found, tested)]
    return [*told, *_mistakes(found.record.files.best)]


def trust(found: Findings) -> list[Part]:
    """How sure the model is, beside how often it is right; nothing where it gives no probabilities of classes."""
    tested = analysis.metrics(found)
    if not tested.get("reliability"):
        return []
    error = tested["expected_calibration_error"]
    text = f"On the test images its confidence is {error:.4f} from its accuracy on the average "
    text += "(expected calibration error). On the line, as many answers are right as it is sure; below it, it is too "
    text += "sure."
    return chart(model_charts.reliability(tested["reliability"]), text)


def _of_tests(found: Findings, tested: Figures, images: int) -> str:
    """The model and its main figure, as the beginning of a text."""
    said, main = model(tested), found.objective.task.objective
    words = found.objective.metrics[main].words.removeprefix("validation ")
    return (
        f"{said[0].upper()}{said[1:]} on {images} test images that no trial has seen: {words} "
        f"{tested[main.replace('val_', 'test_')]:.4f}"
    )


def _mean(found: Findings, tested: Figures) -> str:
    return f" The model is a mean of weights, with {alone(tested, found.objective)}." if "soup" in tested else ""


def _never(classes: Sequence[str], recalls: Sequence[float | None], images: int) -> list[Part]:
    never = missed(classes, recalls)
    return [Paragraph(f"With {images} test images, {never}.", warning=True)] if never else []


def _classes(found: Findings, tested: Figures) -> list[Part]:
    classes, counts = tested["classes"], tested["confusion_matrix"]
    images = sum(map(sum, counts))
    error = analysis.margin(tested["test_accuracy"], images)
    text = (
        f"{_of_tests(found, tested, images)} ± {error:.4f} (one standard error), balanced over the classes (the mean "
    )
    text += f"of their recall) {analysis.balanced(counts):.4f}.{_mean(found, tested)}"
    told, known = [sum(column) for column in zip(*counts, strict=True)], analysis.per_class(counts)
    figures = [
        (name, _sure(precision, predicted), _sure(recall, true), f1, *_counts(found, name), true)
        for name, predicted, (precision, recall, f1, true) in zip(classes, told, known, strict=True)
    ]
    figures.sort(key=lambda row: (row[3] is not None, row[3]))
    images_of = ["training images", "validation images"] if _counts(found, classes[0]) else []
    table = Table(["class", "precision (95 %)", "recall (95 %)", "F1", *images_of, "test images"], figures)
    return [
        *_never(classes, [recall for _, recall, _, _ in analysis.per_class(counts)], images),
        *chart(model_charts.confusion(classes, counts), text),
        Details("figures of each class, worst first", [table], unfolded=True),
    ]


def _sure(share: float | None, count: int) -> str:
    """A share of so many images, and where it lies with a probability of 95 %; empty where there are none."""
    if share is None:
        return ""
    low, high = analysis.interval(share * count, count)
    return f"{share:.4f} ({low:.2f} to {high:.2f})"


def _counts(found: Findings, name: str) -> list[int]:
    """The training and the validation images of a class or a label; empty where older records do not tell."""
    counts = found.about["data"].get("counts", {})
    return [counts[split].get(name, 0) for split in ("train", "val") if split in counts]


def _labels(found: Findings, tested: Figures) -> list[Part]:
    images = found.about["data"]["images"]["test"]
    text = f"{_of_tests(found, tested, images)}.{_mean(found, tested)} An image gets a label where its probability is "
    text += "above the label's threshold, at which F1 is largest on the validation images."
    columns = ("label", "average_precision", "f1", "precision", "recall", "threshold", "images")
    rows = [(*(one[name] for name in columns), *_counts(found, one["label"])) for one in tested["labels"]]
    rows.sort(key=lambda row: (row[1] is not None, row[1]))
    head = ["label", "average precision", "F1", "precision", "recall", "threshold", "test images"]
    head += ["training images", "validation images"] if len(rows[0]) > len(head) else []
    return [
        *_never([row[0] for row in rows], [row[4] for row in rows], images),
        *chart(model_charts.labels(rows), text),
        Details("figures of each label, worst first", [Table(head, rows)], unfolded=True),
    ]


def _numbers(found: Findings, tested: Figures) -> list[Part]:
    images, numbers = found.about["data"]["images"]["test"], tested["numbers"]
    text = f"{_of_tests(found, tested, images)}.{_mean(found, tested)}"
    shown = len(numbers[0]["true"])
    text += f" The first {shown} images are drawn." if shown < images else ""
    rows = [(one["name"], one["r2"], one["rmse"], one["mae"]) for one in numbers]
    return [*chart(model_charts.predictions(numbers), text), Table(["number", "R²", "RMSE", "MAE"], rows)]


def _mistakes(best: Path) -> list[Part]:
    """The test images that the model was most sure of and wrong about."""
    path = best / files.MISTAKES
    if not path.exists():
        return []
    shown = []
    for mistake in json.loads(path.read_text("utf-8")):
        png = base64.b64encode((best / files.PICTURES / mistake["picture"]).read_bytes()).decode()
        sure = f" ({mistake['confidence']:.0%})" if "confidence" in mistake else ""
        text = f"{mistake['true']} taken for {mistake['predicted']}{sure}"
        shown.append(Picture(png, text, mistake["image"]))
    text = "The worst mistakes. Beside each image: what spoke for what was predicted (class activation map)."
    return [Paragraph(text), Pictures(shown)] if shown else []
