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
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from search.backbone.backbones import without_xla
from search.cache import Array
from search.features import Place, Read, images
from search.internals import of_keras
from search.record import files
from search.record.record import write_json
from search.task.metric import Metric
from search.task.task import Said, Target
from search.trial import pictures
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
        features: (images, channels), what its output layer gets.
        outputs: (images, outputs), as labels are.
        labels: (images, …), the truth.
        target: says what the outputs mean.
    """

    features: Array
    outputs: Array
    labels: Array
    target: Target

    @property
    def said(self) -> Said:
        """Labels and outputs."""
        return self.labels, self.outputs

    @property
    def predicted(self) -> Array:
        """(images, …), what the outputs say."""
        return self.target.task.answer(self.outputs)

    @property
    def wrong(self) -> Array:
        """(images,), how wrong the model was, and how sure of it; 0 where it was right."""
        return self.target.task.wrong(*self.said)

    def metrics(self, known: Mapping[str, Metric]) -> dict[str, float]:
        """All metrics, of whatever images these are."""
        return self.target.metrics(self.labels, self.outputs, known)

    def mistakes(self, limit: int) -> list[int]:
        """The images that the model was most wrong about, or surest of and wrong, the worst first."""
        wrong = self.wrong
        return [int(index) for index in np.argsort(-wrong, kind="stable")[:limit] if wrong[index] > 0]


def answering(model: keras.Model) -> keras.Model:
    """The exported model, giving what its output layer gets as well as its outputs."""
    return without_xla(keras.Model(model.inputs[0], [output_layer(model).input, model.outputs[0]]))


def output_layer(model: keras.Model) -> keras.layers.Dense:
    """The layer that gives the outputs; only their scale may come after it."""
    return next(layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense))


def answers(model: keras.Model, read: Read, labels: Array, batch_size: int, target: Target) -> Answers:
    """What `answering` gives of the first images, as many as there are labels."""
    ends = [min(row + batch_size, len(labels)) for row in range(0, len(labels), batch_size)]
    parts = [model.predict_on_batch(read(slice(row, end))) for row, end in zip([0, *ends], ends, strict=False)]
    features, outputs = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Answers(features, outputs, labels, target)


def activation(model: keras.Model, pixels: Array, shown: Array) -> Array | None:
    """What spoke for an output, place by place: (images, height, width) in [0, 1]; `None` if the network has no map.

    The head is asked at each place as if its features were those of the whole image, beside what it says of none. For a
    head of one layer these are class activation maps (Zhou et al. 2016, arXiv:1512.04150), and so those of Grad-CAM
    (Selvaraju et al. 2017, arXiv:1610.02391, section 3.1).
    """
    pooled = model.get_layer("dropout").input
    pooling = of_keras.origin(pooled)
    if not isinstance(pooling, keras.layers.GlobalAveragePooling2D):
        return None
    maps = np.asarray(keras.Model(model.inputs[0], pooling.input)(pixels, training=False), "float32")
    last = output_layer(model)
    if last.input is not model.get_layer("dropout").output:
        hidden = keras.Model(pooled, last.input)
        places = np.concatenate([maps.reshape(-1, maps.shape[-1]), np.zeros((1, maps.shape[-1]), "float32")])
        found = np.asarray(hidden(places, training=False), "float32")
        maps = (found[:-1] - found[-1]).reshape(*maps.shape[:-1], -1)
    kernel = np.asarray(last.kernel)[:, shown]
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
    names, count = place.dataset.classes, len(shown.labels)
    with Events(run) as events:
        if picture := pictures.of(names, shown.said, shown.target.task):
            events.image(f"{picture.title}, validation images", picture.image, 0)
        for number, mistake in enumerate(_mistakes(place, model, shown, "val", FEW_MISTAKES), 1):
            events.image(f"worst mistakes, validation images/{number:02d}: {mistake.text}", mistake.picture, 0)
        for variable in network.suffix.trainable_variables:
            events.histogram(f"weights/{variable.path}", np.asarray(variable), 0)
    project(run, shown, names, place.dataset.items["val"][:count], images(place, "val", 0)(slice(0, count)))


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
        if picture := pictures.of(place.dataset.classes, tested.said, tested.target.task):
            events.image(f"{picture.title}, test images", picture.image, 0)
        for number, mistake in enumerate(_mistakes(place, model, tested, "test", MISTAKES), 1):
            events.image(f"worst mistakes, test images/{number:02d}: {mistake.text}", mistake.picture, 0)
            mistake.picture.save(folder / files.PICTURES / f"{number:02d}.png")
            told.append({**mistake.about, "picture": f"{number:02d}.png"})
    write_json(folder / files.MISTAKES, told)


@dataclass(frozen=True)
class _Mistake:
    """An image that the model was wrong about: `image`, `true`, `predicted`, perhaps `confidence`; and its picture."""

    about: dict[str, Any]
    picture: Image.Image

    @property
    def text(self) -> str:
        sure = f" ({self.about['confidence']:.0%})" if "confidence" in self.about else ""
        return f"{self.about['true']} taken for {self.about['predicted']}{sure}"


def _mistakes(place: Place, model: keras.Model, answers: Answers, split: str, limit: int) -> list[_Mistake]:
    """The surest mistakes."""
    rows, read, names = answers.mistakes(limit), images(place, split, 0), place.dataset.classes
    task, wrong, said = answers.target.task, answers.wrong, answers.predicted
    if not rows:
        return []
    pixels = np.concatenate([read(slice(row, row + 1)) for row in rows])
    spoke = activation(model, pixels, task.pointing(answers.labels[rows], answers.outputs[rows]))
    found = []
    for number, row in enumerate(rows):
        true, predicted = (task.told(names, what[row]) for what in (answers.labels, said))
        about: dict[str, Any] = {"image": str(place.dataset.items[split][row]), "true": true, "predicted": predicted}
        about |= {"confidence": float(wrong[row])} if task.sure else {}
        found.append(_Mistake(about, beside(pixels[number], None if spoke is None else spoke[number])))
    return found


def beside(pixels: Array, spoke: Array | None) -> Image.Image:
    """An image (size, size, 3), and beside it the same with what spoke for an output in colour."""
    image = Image.fromarray(np.asarray(pixels, "uint8")).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
    if spoke is None:
        return image
    heat = Image.fromarray((spoke * 180).astype("uint8")).resize(image.size, Image.Resampling.BILINEAR)
    both = Image.new("RGB", (2 * PICTURE, PICTURE))
    both.paste(image, (0, 0))
    both.paste(Image.composite(Image.new("RGB", image.size, HOT), image, heat), (PICTURE, 0))
    return both


def project(run: Path, shown: Answers, names: Sequence[str], items: Sequence[Any], pixels: Array) -> None:
    """Write features for TensorBoard's projector, with labels and thumbnails.

    Args:
        names: of the outputs.
        items: of the images.
        pixels: (images, size, size, 3).
    """
    np.savetxt(run / "features.tsv", shown.features, "%.5g", "\t")
    with (run / "labels.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, "excel-tab", lineterminator="\n")
        writer.writerow(["class", "predicted", "correct", "image"])
        told, columns = shown.target.task.told, (shown.labels, shown.predicted, shown.wrong, items)
        for label, predicted, wrong, item in zip(*columns, strict=True):
            writer.writerow([told(names, label), told(names, predicted), "no" if wrong else "yes", item])
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
