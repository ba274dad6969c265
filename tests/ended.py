"""A search that has ended, as the files that it leaves: over toy images, with a model that tells light from dark."""

from pathlib import Path

import keras
import numpy as np
from conftest import Toy

from search import machine
from search.data.store import SPLITS
from search.record import record
from search.record.record import Record

GREYS = (0.0, 4095.0)  # of images with more than 8 bits of grey
SHARPNESS = 8.0


def model(side: int) -> keras.Model:
    """Images (batch, side, side, 3) in [0, 255] → the probabilities of dark and light, by the mean brightness."""
    images = keras.Input((side, side, 3), name="images")
    scaled = keras.layers.Normalization(mean=[127.5] * 3, variance=[127.5**2] * 3)(images)
    bright = keras.layers.GlobalAveragePooling2D()(keras.Model(images, scaled, name="preprocess")(images))
    answer = keras.layers.Dense(2, activation="softmax", name="probabilities")
    found = keras.Model(images, answer(bright), name="network")
    answer.set_weights([SHARPNESS / 3 * np.array([[-1.0, 1.0]] * 3), np.zeros(2)])
    return found


def ended(folder: Path, toy: Toy, status: str = "done") -> Path:
    """The storage of one search, `toy`, that has ended."""
    kept = Record(folder / "results" / "toy")
    kept.folder.mkdir(parents=True)
    found = toy.dataset
    kept.create(
        status=status,
        space={"name": "toy"},
        settings={"data": found.source, "folders": "auto", "image_size": toy.image_size},
        seed=0,
        data={
            "fingerprint": found.fingerprint,
            "classes": list(found.classes),
            "images": {split: len(found.items[split]) for split in SPLITS},
        },
        versions=machine.versions(),
    )
    best = kept.files.best
    best.mkdir()
    model(toy.image_size).save(best / "model.keras")
    record.write_json(best / "metrics.json", {"trial": "0000", "classes": list(found.classes), "test_accuracy": 0.75})
    record.write_json(best / "split.json", {"data": found.source, **{s: list(found.items[s]) for s in SPLITS}})
    record.write_reading(best, GREYS, toy.image_size)
    return kept.folder.parent
