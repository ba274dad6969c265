"""The names of all files of a search."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SEARCH, PREVIOUS, HISTORY, TRIALS, JOURNAL = (
    "search.json",
    "search.json.previous",
    "history.jsonl",
    "trials.csv",
    "optuna.journal",
)
LOCK, CHECKPOINTS, TENSORBOARD, RAY, BEST = "lock", "trials", "tensorboard", "ray", "best"
# Of a trial's checkpoints
OWNER, BEST_WEIGHTS, LAST_STATE, STATE_BEFORE = "owner", "best.npz", "last.npz", "previous.npz"
# Below the run of a trial in TensorBoard's directory
RUN_TRAIN, RUN_VALIDATION, RUN_BEST = "train", "validation", "best"
# Of the winner
MODEL, METRICS, SPLIT, READING, MISTAKES, PICTURES = (
    "model.keras",
    "metrics.json",
    "split.json",
    "reading.json",
    "mistakes.json",
    "mistakes",
)
COMPARISON = "comparison.html"


@dataclass(frozen=True)
class Files:
    """Where the files of one search lie.

    Args:
        folder: `<storage>/<name>`.
    """

    folder: Path

    @property
    def search(self) -> Path:
        """What was asked, and how it stands."""
        return self.folder / SEARCH

    @property
    def previous(self) -> Path:
        """The same as it was before it was last changed."""
        return self.folder / PREVIOUS

    @property
    def history(self) -> Path:
        """What happened to every trial."""
        return self.folder / HISTORY

    @property
    def trials(self) -> Path:
        """One row per trial."""
        return self.folder / TRIALS

    @property
    def lock(self) -> Path:
        """Who writes the folder."""
        return self.folder / LOCK

    @property
    def journal(self) -> Path:
        """The study, for optuna-dashboard."""
        return self.folder / JOURNAL

    @property
    def tensorboard(self) -> Path:
        """The shared directory."""
        return self.folder / TENSORBOARD

    @property
    def ray(self) -> Path:
        """The logs, of the search and of what Ray says."""
        return self.folder / RAY

    @property
    def log(self) -> Path:
        """What the driver says that is not for the user's eyes."""
        return self.ray / "driver.log"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    @property
    def comparison(self) -> Path:
        """The page that shows several searches, beside the first of them."""
        return self.folder.parent / COMPARISON

    @property
    def best(self) -> Path:
        """What is kept of the winner."""
        return self.folder / BEST

    @property
    def model(self) -> Path:
        """The winner."""
        return self.best / MODEL

    @property
    def metrics(self) -> Path:
        """Its figures."""
        return self.best / METRICS

    def checkpoints(self, trial: str) -> Path:
        """The folder of one trial's checkpoints."""
        return self.folder / CHECKPOINTS / trial


def searches(storage: Path) -> Mapping[str, Path]:
    """The searches of a storage, by name."""
    return {path.parent.name: path.parent for path in sorted(storage.glob(f"*/{SEARCH}"))}
