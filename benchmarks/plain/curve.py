"""What the trials of the plain searches compute: a curve, slowly."""

import os
import time
from pathlib import Path

TRIALS, EPOCHS = 6, 20
BUDGET_S = 120.0
EPOCH_S = 0.25


def epoch_of(x: float, epoch: int) -> float:
    """The value after an epoch; not a number where `FAULT` asks for it."""
    time.sleep(EPOCH_S)
    if os.environ.get("FAULT") == "nan" and x < 0.5:
        return float("nan")
    return x * (1 - 0.9**epoch)


def note(folder: Path, x: float, epoch: int) -> None:
    """Add an epoch to a file beside the storage, so that what ran twice is seen."""
    with (folder / "epochs").open("a") as file:
        file.write(f"{os.getpid()} {x:.17g} {epoch}\n")
