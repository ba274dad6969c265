"""What shows how the best trials work: their surest mistakes and what spoke for them, their features, their weights.

Of each of them it is what they make of validation images, in their runs, for TensorBoard; of the winner, once it is
exported, also what it makes of the test images, there and beside the model, for the report.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from google.protobuf import text_format
from PIL import Image, ImageDraw, ImageFont
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from search.backbone.backbones import without_xla
from search.cache import Array
from search.features import Place, Read, images
from search.internals import of_keras
from search.record import files
from search.record.record import write_json
from search.task import metrics
from search.task.metrics import Metric
from search.task.task import Task
from search.trial.model import Network
from search.trial.tensorboard import Events

MISTAKES, FEW_MISTAKES = 16, 8
PROJECTED = 1000
THUMBNAIL, PICTURE = 48, 160  # pixels
HOT = (255, 110, 0)


@dataclass(frozen=True)
class Answers:
    """What a model says of images.

    Args:
        features: (images, channels), what its last layer gets.
        probabilities: (images, classes).
        labels: (images,), the true classes.
        task: says what the probabilities mean.
    """

    features: Array
    probabilities: Array
    labels: Array
    task: Task

    @property
    def predicted(self) -> Array:
        """(images,), what the probabilities say."""
        return self.task.answer(self.probabilities)

    @property
    def confusion(self) -> Array:
        """(classes, classes) counts: rows are true classes, columns predicted ones."""
        counts = np.zeros((self.probabilities.shape[1],) * 2, int)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    @property
    def accuracy(self) -> float:
        """The share of the images that are right."""
        return float((self.predicted == self.labels).mean())

    @property
    def loss(self) -> float:
        """The mean cross-entropy, in nats."""
        return metrics.log_loss(self.labels, self.probabilities)

    def metrics(self, known: Mapping[str, Metric]) -> dict[str, float]:
        """All metrics, of whatever images these are."""
        computed = metrics.of_answers(self.labels, self.probabilities, known)
        return {"val_accuracy": self.accuracy, "val_loss": self.loss, **computed}

    def mistakes(self, limit: int) -> list[int]:
        """The images that the model was most sure of and wrong about, the surest first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        surest = np.argsort(-self.task.confidence(self.probabilities[wrong]), kind="stable")
        return [int(index) for index in wrong[surest][:limit]]


def answering(model: keras.Model) -> keras.Model:
    """The exported model, giving what its last layer gets as well as its probabilities."""
    return without_xla(keras.Model(model.inputs[0], [model.layers[-1].input, model.outputs[0]]))


def answers(model: keras.Model, read: Read, labels: Array, batch_size: int, task: Task) -> Answers:
    """What `answering` gives of the first images, as many as there are labels."""
    ends = [min(row + batch_size, len(labels)) for row in range(0, len(labels), batch_size)]
    parts = [model.predict_on_batch(read(slice(row, end))) for row, end in zip([0, *ends], ends, strict=False)]
    features, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(features, probabilities, labels, task)


def activation(model: keras.Model, pixels: Array, classes: Array) -> Array | None:
    """What spoke for a class, place by place: (images, height, width) in [0, 1]; `None` where the network has no map.

    The head is asked at each place as if its features were those of the whole image, beside what it says of none. For a
    head of one layer these are class activation maps (Zhou et al. 2016, arXiv:1512.04150), and so those of Grad-CAM
    (Selvaraju et al. 2017, arXiv:1610.02391, section 3.1).
    """
    pooled = model.get_layer("dropout").input
    pooling = of_keras.origin(pooled)
    if not isinstance(pooling, keras.layers.GlobalAveragePooling2D):
        return None
    maps = np.asarray(keras.Model(model.inputs[0], pooling.input)(pixels, training=False), "float32")
    last = model.layers[-1]
    if last.input is not model.get_layer("dropout").output:
        hidden = keras.Model(pooled, last.input)
        places = np.concatenate([maps.reshape(-1, maps.shape[-1]), np.zeros((1, maps.shape[-1]), "float32")])
        found = np.asarray(hidden(places, training=False), "float32")
        maps = (found[:-1] - found[-1]).reshape(*maps.shape[:-1], -1)
    kernel = np.asarray(last.kernel)[:, classes]
    spoke = np.maximum(np.einsum("nhwc,cn->nhw", maps, kernel), 0)
    spoke -= spoke.min(axis=(1, 2), keepdims=True)
    return np.asarray(spoke / np.maximum(spoke.max(axis=(1, 2), keepdims=True), 1e-9))


def write(place: Place, model: keras.Model, network: Network, shown: Answers, run: Path) -> None:
    """Write what shows how one of the best trials works.

    Args:
        model: the whole network with the trial's best weights; `shown` is what it says of the first validation images.
        network: the trial's, with the same weights.
        run: of its events, for TensorBoard.
    """
    classes, count = place.dataset.classes, len(shown.labels)
    with Events(run) as events:
        events.image("confusion matrix, validation images", confusion(classes, shown.confusion), 0)
        for number, mistake in enumerate(_mistakes(place, model, shown, "val", FEW_MISTAKES), 1):
            events.image(f"worst mistakes, validation images/{number:02d}: {mistake.text}", mistake.picture, 0)
        for variable in network.suffix.trainable_variables:
            events.histogram(f"weights/{variable.path}", np.asarray(variable), 0)
    project(run, shown, classes, place.dataset.items["val"][:count], images(place, "val", 0)(slice(0, count)))


def write_tested(place: Place, model: keras.Model, tested: Answers, *, folder: Path, run: Path) -> None:
    """Write what the winner makes of the test images.

    Args:
        model: as exported; `tested` is what it says of the test images.
        folder: of the winner; `mistakes.json` and `mistakes/` go there.
        run: of its events, for TensorBoard.
    """
    (folder / files.PICTURES).mkdir(exist_ok=True)
    told = []
    with Events(run) as events:
        events.image("confusion matrix, test images", confusion(place.dataset.classes, tested.confusion), 0)
        for number, mistake in enumerate(_mistakes(place, model, tested, "test", MISTAKES), 1):
            events.image(f"worst mistakes, test images/{number:02d}: {mistake.text}", mistake.picture, 0)
            mistake.picture.save(folder / files.PICTURES / f"{number:02d}.png")
            told.append({**mistake.about, "picture": f"{number:02d}.png"})
    write_json(folder / files.MISTAKES, told)


@dataclass(frozen=True)
class _Mistake:
    """An image that was taken for another class: `image`, `true`, `predicted` and `confidence`; and its picture."""

    about: dict[str, Any]
    picture: Image.Image

    @property
    def text(self) -> str:
        return "{true} taken for {predicted} ({confidence:.0%})".format(**self.about)


def _mistakes(place: Place, model: keras.Model, answers: Answers, split: str, limit: int) -> list[_Mistake]:
    """The surest mistakes."""
    rows, read, classes = answers.mistakes(limit), images(place, split, 0), place.dataset.classes
    if not rows:
        return []
    pixels = np.concatenate([read(slice(row, row + 1)) for row in rows])
    spoke = activation(model, pixels, answers.predicted[rows])
    found = []
    for number, row in enumerate(rows):
        true, predicted = classes[answers.labels[row]], classes[answers.predicted[row]]
        named = {"image": str(place.dataset.items[split][row]), "true": true, "predicted": predicted}
        about = {**named, "confidence": float(answers.task.confidence(answers.probabilities[[row]])[0])}
        found.append(_Mistake(about, beside(pixels[number], None if spoke is None else spoke[number])))
    return found


def beside(pixels: Array, spoke: Array | None) -> Image.Image:
    """An image (size, size, 3), and beside it the same with what spoke for a class in colour."""
    image = Image.fromarray(np.asarray(pixels, "uint8")).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
    if spoke is None:
        return image
    heat = Image.fromarray((spoke * 180).astype("uint8")).resize(image.size, Image.Resampling.BILINEAR)
    both = Image.new("RGB", (2 * PICTURE, PICTURE))
    both.paste(image, (0, 0))
    both.paste(Image.composite(Image.new("RGB", image.size, HOT), image, heat), (PICTURE, 0))
    return both


def confusion(classes: Sequence[str], counts: Array) -> Image.Image:
    """A picture of how often images of each true class (row) were taken for each class (column)."""
    cell = max(18, min(56, 900 // len(classes)))
    font, title = ImageFont.load_default(max(10, cell // 3)), ImageFont.load_default(18)
    names = [name if len(name) <= 16 else name[:15] + "…" for name in classes]
    width = int(max(font.getlength(name) for name in names)) + 12
    side = cell * len(classes)
    left, top = width + 26, width + 30
    image = Image.new("RGB", (left + side + 10, top + side + 10), "white")
    pen = ImageDraw.Draw(image)
    pen.text((left, 4), "predicted", "black", title)
    _upright(image, (2, top), "true", title)
    for row, name in enumerate(names):
        pen.text((left - 6, top + (row + 0.5) * cell), name, "black", font, anchor="rm")
        _upright(image, (int(left + (row + 0.5) * cell), top - 4), name, font, low=True)
        for column, count in enumerate(counts[row]):
            share = count / max(1, counts[row].sum())
            corner = (left + column * cell, top + row * cell)
            colour = tuple(int(255 - share * (255 - end)) for end in (8, 81, 156))
            pen.rectangle((*corner, corner[0] + cell - 1, corner[1] + cell - 1), colour)
            if count:
                middle = (corner[0] + cell / 2, corner[1] + cell / 2)
                pen.text(middle, str(count), "white" if share > 1 / 2 else "black", font, anchor="mm")
    return image


def _upright(image: Image.Image, at: tuple[int, int], text: str, font: Any, low: bool = False) -> None:
    """Write from bottom to top; `at` is the upper left corner, or the middle of the lower edge."""
    box = Image.new("RGB", (int(font.getlength(text)) + 2, int(font.size * 1.3)), "white")
    ImageDraw.Draw(box).text((0, 0), text, "black", font)
    turned = box.rotate(90, expand=True)
    image.paste(turned, (at[0] - turned.width // 2, at[1] - turned.height) if low else at)


def project(run: Path, shown: Answers, classes: Sequence[str], names: Sequence[Any], pixels: Array) -> None:
    """Write features for TensorBoard's projector, with labels and thumbnails.

    Args:
        pixels: (images, size, size, 3).
    """
    np.savetxt(run / "features.tsv", shown.features, "%.5g", "\t")
    with (run / "labels.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, "excel-tab", lineterminator="\n")
        writer.writerow(["class", "predicted", "correct", "image"])
        for label, predicted, name in zip(shown.labels, shown.predicted, names, strict=True):
            writer.writerow([classes[label], classes[predicted], "yes" if label == predicted else "no", name])
    across = int(np.ceil(np.sqrt(len(pixels))))
    sprite = Image.new("RGB", (across * THUMBNAIL, across * THUMBNAIL))
    for index, one in enumerate(pixels):
        small = Image.fromarray(np.asarray(one, "uint8")).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
        sprite.paste(small, (index % across * THUMBNAIL, index // across * THUMBNAIL))
    sprite.save(run / "sprite.png")
    named = f"penultimate features of {len(pixels)} validation images"
    config = ProjectorConfig()
    shown_there = config.embeddings.add(tensor_name=named, tensor_path="features.tsv", metadata_path="labels.tsv")
    shown_there.sprite.image_path = "sprite.png"
    shown_there.sprite.single_image_dim.extend([THUMBNAIL, THUMBNAIL])
    (run / "projector_config.pbtxt").write_text(text_format.MessageToString(config, as_utf8=True), "utf-8")
