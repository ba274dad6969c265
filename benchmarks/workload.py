"""Make what every tool of the benchmark is given: images, a backbone's weights, configurations.

    python -m benchmarks.workload FOLDER --workload equal --backbone MobileNetV2

writes `FOLDER/workload.json` and what it names. The same options give the same workload. Nothing is downloaded: the
images are generated, and the weights are random, with the statistics of batch normalisation taken from the images.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from search.machine import cpus

BACKBONES = ("MobileNetV2", "ResNet50", "tiny")
KINDS = ("equal", "search")
DEEPEST = 3
IMAGE_SIZES = {"tiny": 32}
IMAGE_SIZE = 96
PRETRAINING_SIZE = 48
IMAGES = {"train": 512, "val": 128, "test": 40}
FEW_IMAGES = {"train": 64, "val": 32, "test": 16}
CLOUDS = ((0.35, -0.2), (0.35, 0.2), (0.65, -0.2), (0.65, 0.2))  # grain and slope of each class
BATCH_SIZE = 32

Images = NDArray[np.uint8]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which workload it is."""
    add = parser.add_argument
    add("--workload", choices=KINDS, default="equal", help="given configurations, or a whole search (default: equal)")
    add("--backbone", choices=BACKBONES, default="MobileNetV2", help="(default: MobileNetV2)")
    add("--depth", type=int, choices=range(DEEPEST + 1), help="of workload equal: this unfreeze depth alone")
    add("--small", action="store_true", help="few images, trials and epochs: to see that everything works")
    add("--seed", type=int, default=0, help="of the images and weights (default: 0)")


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """The workload that the options ask for, without the paths of its files.

    `equal` has a grid of `unfreeze_depths` and `learning_rates`, of which every configuration is trained for all
    `epochs`. `search` has `trials` configurations from the ranges between their ends, chosen by the tool.
    """
    equal, small = options.workload == "equal", options.small
    epochs = (2 if small else 8) if equal else (4 if small else 16)
    depths = list(range(DEEPEST + 1)) if options.depth is None or not equal else [options.depth]
    rates = ([1e-3] if small else [1e-4, 5e-4, 2e-3, 1e-2]) if equal else [1e-5, 1e-1]
    return {
        "kind": options.workload,
        "backbone": options.backbone,
        "image_size": IMAGE_SIZES.get(options.backbone, IMAGE_SIZE),
        "images": FEW_IMAGES if small else IMAGES,
        "classes": len(CLOUDS),
        "batch_size": BATCH_SIZE,
        "unfreeze_depths": depths,
        "learning_rates": rates,
        "trials": len(depths) * len(rates) if equal else (4 if small else 64),
        "epochs": epochs,
        # In `equal` nothing may happen before the last epoch; in `search` these are those of spaces/finetune.py.
        "plateau_patience": epochs if equal else 2,
        "plateau_factor": 0.3,
        "stop_patience": epochs if equal else 5,
        "first_rung": epochs if equal else 2,
        "reduction_factor": 3,
        "cores": cpus(),
        "seed": options.seed,
    }


def make(folder: Path, workload: dict[str, Any]) -> None:
    """Write the images, the weights and `workload.json`, which names them."""
    write_images(folder / "images", workload)
    weights, layers = write_weights(folder, workload)
    paths = {"data": str(folder / "images"), "weights": str(weights), "layers": layers}
    (folder / "workload.json").write_text(json.dumps({**workload, **paths}, indent=2) + "\n", encoding="utf-8")


def write_images(folder: Path, workload: dict[str, Any]) -> None:
    """Write `folder/{train,val,test}/<class>/*.png`, the classes in turn."""
    random = np.random.default_rng(workload["seed"])
    for split, count in workload["images"].items():
        for index in range(count):
            label = index % workload["classes"]
            path = folder / split / f"class{label}" / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render(*CLOUDS[label], workload["image_size"], random)).save(path)


def render(grain: float, slope: float, size: int, random: np.random.Generator) -> Images:
    """Clouds of noise in one colour over another, (size, size, 3).

    How coarse they are is about `grain`, from 0 to 1, less `slope` in the left half and more by it in the right one.
    """
    grains = grain + random.normal(0, 0.1) + np.array([-1, 1]) * (slope + random.normal(0, 0.1))
    left, right = (gaussian_filter(random.normal(0, 1, (size, size)), 0.7 * np.exp(2 * each)) for each in grains)
    clouds = np.where(np.arange(size) < size / 2, left / left.std(), right / right.std())
    colour, background = random.uniform(0.3, 1, 3), random.uniform(0.3, 0.7, 3)
    image = (
        background + random.uniform(0.1, 0.25) * clouds[..., None] * colour + random.normal(0, 0.05, (size, size, 3))
    )
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def write_weights(folder: Path, workload: dict[str, Any]) -> tuple[Path, list[list[str]]]:
    """Write the backbone's weights file.

    Returns:
        Its path, and for each unfreeze depth the names of the layers that are trained and have weights.
    """
    import keras

    from search.backbone import backbones, tiny

    name, size = workload["backbone"], workload["image_size"]
    path = tiny.WEIGHTS
    if name != "tiny":
        path = folder / "backbone.weights.h5"
        network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
        files = sorted((folder / "images" / "train").rglob("*.png"))
        network.set_weights(pretrain(name, workload["seed"]))
        preprocess = backbones.load(name, "none", size).preprocess
        calibrate(network, preprocess.predict(np.stack([np.asarray(Image.open(file)) for file in files]), verbose=0))
        network.save_weights(path)
    backbone = backbones.load(name, str(path), size)
    weighted = {layer.name for layer in backbone.network.layers if layer.weights}
    tops = [backbone.blocks[len(backbone.blocks) - depth :] for depth in range(DEEPEST + 1)]
    return path, [[layer for block in top for layer in block.layers if layer in weighted] for top in tops]


def pretrain(name: str, seed: int) -> list[NDArray[np.float32]]:
    """The weights of a backbone that has learned a little of a like task: eight grains, in small images."""
    import keras

    from search.backbone import backbones

    random, labels = np.random.default_rng(seed + 1), np.arange(1024) % 8
    images = np.stack([render(label / 7, 0.0, PRETRAINING_SIZE, random) for label in labels])
    keras.utils.set_random_seed(seed)
    constructor = getattr(keras.applications, name)
    network = constructor(include_top=False, weights=None, input_shape=(PRETRAINING_SIZE, PRETRAINING_SIZE, 3))
    preprocess = backbones.load(name, "none", PRETRAINING_SIZE).preprocess
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(8, activation="softmax")]
    model = keras.Sequential([preprocess, network, *head])
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, 6 * 16)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images, labels, batch_size=64, epochs=6, verbose=0)
    return network.get_weights()


def calibrate(network: Any, pixels: NDArray[np.float32]) -> None:
    """Set the statistics of batch normalisation to their mean over batches of these images, as training would."""
    import keras

    normalisations = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalisations]
    order = np.random.default_rng(0).permutation(len(pixels))
    for count, rows in enumerate(np.array_split(order, max(1, len(order) // 64)), start=1):
        for layer in normalisations:
            layer.momentum = 1 - 1 / count
        network(pixels[rows], training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    add_options(parser)
    options = parser.parse_args()
    make(options.folder.absolute(), describe(options))


if __name__ == "__main__":
    main()
