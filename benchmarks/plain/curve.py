"""What the trials of the plain searches compute: a curve, slowly."""

import os
import time
from pathlib import Path

TRIALS, EPOCHS = 6, 20
BUDGET_S = float(os.environ.get("BUDGET_S", "120"))
EPOCH_S = 0.25


def epoch_of(x: float, epoch: int) -> float:
    """The value after an epoch; `FAULT` asks for one that is not a number, or for an error, `IMAGES` names a folder."""
    time.sleep(EPOCH_S)
    fault = os.environ.get("FAULT")
    if fault == "nan" and x < 0.5:
        return float("nan")
    if fault == "errors" or (fault == "error" and x < 0.5):
        raise ValueError("this configuration cannot be trained")
    if images := os.environ.get("IMAGES"):
        read(images)
    return x * (1 - 0.9**epoch)


def read(images: str) -> int:
    """Read a folder of images once, as Keras's documentation shows it."""
    import keras

    found = keras.utils.image_dataset_from_directory(images, image_size=(32, 32), verbose=False)
    return sum(len(labels) for _, labels in found)


def note(folder: Path, x: float, epoch: int) -> None:
    """Add an epoch to a file beside the storage, so that what ran twice is seen."""
    with (folder / "epochs").open("a") as file:
        file.write(f"{os.getpid()} {x:.17g} {epoch}\n")
