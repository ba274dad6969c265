"""Pretrain the built-in backbone, and measure what that is worth.

    python benchmarks/tiny_backbone.py pretrain    write search/tiny.weights.h5
    python benchmarks/tiny_backbone.py measure     print the tables of docs/tiny-backbone.md

Pretraining reads no image: it renders letters, in the fonts that matplotlib brings, as small and as blurred as
handwritten digits of 8 by 8 pixels are. Digits, and letters that could be taken for one, are left out.
Needs the extra `bench`.
"""

import argparse
import os
import string
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from search.backbone import tiny
from search.backbone.backbones import between, load

SIZE = 32
LIKE_DIGITS = frozenset("OoQDIiLlJjZzSsBbGgqTtAYy")  # 000 0 11111 11 22 55 8 66 99 77 4 44
SIGNS = "#*+<>"
CHARACTERS = "".join(sorted(set(string.ascii_letters) - LIKE_DIGITS)) + SIGNS
LOSS = "sparse_categorical_crossentropy"
FONT_FAMILIES = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmtt10")

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Parts = dict[str, tuple[Images, Labels]]


def fonts() -> list[ImageFont.FreeTypeFont]:
    """The text fonts of matplotlib, at 40 pixels."""
    folder = Path(mpl.get_data_path(), "fonts", "ttf")
    files = sorted(file for family in FONT_FAMILIES for file in folder.glob(f"{family}*.ttf"))
    return [ImageFont.truetype(file, 40) for file in files if "Display" not in file.stem]


def render(character: str, font: ImageFont.FreeTypeFont, random: np.random.Generator) -> Images:
    """One letter as a grey image (SIZE, SIZE): turned, moved, thick or thin, coarse, noisy, of any contrast."""
    canvas = Image.new("L", (96, 96))
    stroke = int(random.choice([0, 0, 1, 2]))
    ImageDraw.Draw(canvas).text((48, 48), character, 255, font, anchor="mm", stroke_width=stroke)
    canvas = _warped(canvas, random)
    coarse = int(random.choice([8, 8, 8, 12, 16]))
    canvas = canvas.resize((coarse, coarse), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return _shaded(np.asarray(canvas, dtype=np.float64) / 255, random)


def _warped(canvas: Image.Image, random: np.random.Generator) -> Image.Image:
    """Stretch the letter over most of a square with a random affine map and a little blur."""
    left, top, right, bottom = canvas.getbbox() or (24, 24, 72, 72)
    size, centre = np.array([right - left, bottom - top]), np.array([left + right, top + bottom]) / 2
    angle, shear = np.deg2rad(random.uniform(-15, 15)), random.uniform(-0.3, 0.3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.diag(np.maximum(size, size.max() / 2) / 64 * random.uniform([1.0, 1.0], [2.0, 1.4]))
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ stretch
    offset = centre - matrix @ (32 + random.uniform(-4, 4, 2))
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    warped = canvas.transform((64, 64), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return warped.filter(ImageFilter.GaussianBlur(random.uniform(0, 2)))


def _shaded(ink: NDArray[np.float64], random: np.random.Generator) -> Images:
    """Ink in [0, 1] to grey: a background, a contrast, light on dark or dark on light, noise."""
    background, contrast = random.uniform(0, 0.3), random.uniform(0.5, 1)
    grey = background + (1 - background) * contrast * np.clip(ink * random.uniform(1, 1.6), 0, 1)
    grey = 1 - grey if random.random() < 0.25 else grey
    grey += random.normal(0, random.uniform(0, 0.06), grey.shape)
    return np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def letters(count: int, seed: int) -> tuple[Images, Labels]:
    """Images (count, SIZE, SIZE, 3) of random characters in random fonts, and their indices in CHARACTERS."""
    random = np.random.default_rng(seed)
    available = fonts()
    labels = random.integers(0, len(CHARACTERS), count)
    grey = [render(CHARACTERS[label], available[random.integers(len(available))], random) for label in labels]
    return np.stack([np.stack(grey)] * 3, axis=-1), labels


def pretrain(count: int, epochs: int, seed: int, file: Path) -> None:
    """Train the network with a head for the letters, and write the network's weights without the head."""
    started = time.perf_counter()
    images, labels = letters(count, seed)
    held_out = letters(2000, seed + 1)
    print(f"rendered {count} images of {len(CHARACTERS)} characters in {time.perf_counter() - started:.0f} s")
    keras.utils.set_random_seed(seed)
    backbone = load("tiny", "none", SIZE)
    model = keras.Sequential([backbone.preprocess, backbone.network, *_head(len(CHARACTERS))])
    batch_size = 64
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-count // batch_size))
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-3), LOSS, metrics=["accuracy"])
    model.fit(images, labels, batch_size, epochs, validation_data=held_out, verbose=2)
    backbone.network.save_weights(file)
    print(f"wrote {file}, {file.stat().st_size:,} bytes, after {time.perf_counter() - started:.0f} s")


def _head(classes: int) -> list[keras.layers.Layer]:
    return [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, activation="softmax")]


def digits(seed: int) -> Parts:
    """The 1,797 digits at (SIZE, SIZE, 3): train 30 %, val 20 %, test 50 %, stratified."""
    source = load_digits()
    small = [Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)) for image in source.images]
    grey = [np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for image in small]
    images, labels = np.stack([np.stack(grey)] * 3, axis=-1), source.target
    rest, test = train_test_split(np.arange(len(labels)), test_size=897, stratify=labels, random_state=seed)
    train, val = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=seed)
    return {name: (images[rows], labels[rows]) for name, rows in (("train", train), ("val", val), ("test", test))}


@dataclass(frozen=True)
class Case:
    """A way to train: the backbone's weights, how many of its top blocks, for how long, at which learning rates."""

    name: str
    weights: str
    depth: int
    epochs: int
    rates: tuple[float, ...]

    def run(self, seed: int) -> tuple[float, float]:
        """The learning rate that the validation part chose, and the chosen model's accuracy on the test part.

        The frozen blocks' output is computed once.
        """
        backbone = load("tiny", self.weights if self.weights == "own" else random_weights(seed), SIZE)
        top, cut = len(backbone.blocks), len(backbone.blocks) - self.depth
        prefix, suffix = between(backbone, 0, cut), between(backbone, cut, top)
        frozen = keras.Sequential([backbone.preprocess, prefix])
        parts = {name: (frozen.predict(images, verbose=0), labels) for name, (images, labels) in digits(seed).items()}
        untrained = suffix.get_weights()
        trials = []
        for rate in self.rates:
            suffix.set_weights(untrained)
            trials.append((*self._train(suffix, rate, seed, parts), rate))
        _, test_accuracy, rate = max(trials)
        return rate, test_accuracy

    def _train(self, suffix: keras.Model, rate: float, seed: int, parts: Parts) -> tuple[float, float]:
        """Accuracy on the validation part at the best epoch, and on the test part with that epoch's weights."""
        keras.utils.set_random_seed(seed)
        model = WithHead(suffix)
        model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"], steps_per_execution=17)
        best = keras.callbacks.EarlyStopping(
            "val_accuracy", patience=self.epochs, mode="max", restore_best_weights=True
        )
        settings = {"batch_size": 32, "epochs": self.epochs, "validation_data": parts["val"], "callbacks": [best]}
        history = model.fit(*parts["train"], **settings, verbose=0)
        return max(history.history["val_accuracy"]), model.evaluate(*parts["test"], verbose=0)[1]


def random_weights(seed: int) -> str:
    """A file of weights that were drawn by this seed."""
    keras.utils.set_random_seed(seed)
    file = Path(tempfile.gettempdir(), f"tiny-random-{os.getpid()}.weights.h5")
    tiny.build(SIZE).save_weights(file)
    return str(file)


class WithHead(keras.Model):
    """The unfrozen blocks, with batch normalisation in inference mode, and a head: features to ten probabilities."""

    def __init__(self, suffix: keras.Model) -> None:
        super().__init__()
        self.suffix, self.head = suffix, keras.Sequential(_head(10))

    def call(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """`training=False` counts only when it is given here: a fitted functional model would override it."""
        return self.head(self.suffix(features, training=False))


HEAD = {"depth": 0, "epochs": 150, "rates": (3e-2, 1e-1, 3e-1)}
FINE_TUNING = {"epochs": 30, "rates": (3e-4, 1e-3, 3e-3)}
CASES = (
    Case("head alone, random weights", "random", **HEAD),
    Case("head alone, pretrained", "own", **HEAD),
    Case("top 2 blocks and head, pretrained", "own", 2, **FINE_TUNING),
    Case("all 7 blocks and head, pretrained", "own", 7, **FINE_TUNING),
)


def measure() -> None:
    """Print a row for each case: the mean test accuracy, that of each seed, and the learning rates chosen."""
    print("| trained | mean | seed 0 | seed 1 | seed 2 | learning rates |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        rates, accuracies = zip(*(case.run(seed) for seed in range(3)), strict=True)
        values = " | ".join(f"{value:.3f}" for value in [np.mean(accuracies), *accuracies])
        print(f"| {case.name} | {values} | {', '.join(f'{rate:g}' for rate in rates)} |", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pretraining = commands.add_parser("pretrain")
    pretraining.add_argument("--images", type=int, default=16_000)
    pretraining.add_argument("--epochs", type=int, default=6)
    pretraining.add_argument("--seed", type=int, default=0)
    pretraining.add_argument("--file", type=Path, default=tiny.WEIGHTS)
    commands.add_parser("measure")
    request = parser.parse_args()
    if request.command == "pretrain":
        pretrain(request.images, request.epochs, request.seed, request.file)
    else:
        measure()


if __name__ == "__main__":
    main()
