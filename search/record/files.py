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
# In the folder of a trial's checkpoints
OWNER, BEST_WEIGHTS, LAST_STATE, STATE_BEFORE = "owner", "best.npz", "last.npz", "previous.npz"
# In the folder of a trial in TensorBoard's directory
RUN_TRAIN, RUN_VALIDATION, RUN_BEST = "train", "validation", "best"
# In the folder of the winner
MODEL, METRICS, SPLIT, READING, MISTAKES, PICTURES = (
    "model.keras",
    "metrics.json",
    "split.json",
    "reading.json",
    "mistakes.json",
    "mistakes",
)
CARD, LABELS, EXPORTS = "README.md", "labels.txt", "export"
COMPARISON = "comparison.html"


@dataclass(frozen=True)
class Files:
    """The paths of the files of one search.

    Args:
        folder: `<storage>/<name>`.
    """

    folder: Path

    @property
    def search(self) -> Path:
        """The request, and the state of the search."""
        return self.folder / SEARCH

    @property
    def previous(self) -> Path:
        """The version of `search` before its last change."""
        return self.folder / PREVIOUS

    @property
    def history(self) -> Path:
        """The history: what happened to every trial."""
        return self.folder / HISTORY

    @property
    def trials(self) -> Path:
        """The table of trials, one row per trial."""
        return self.folder / TRIALS

    @property
    def lock(self) -> Path:
        """The lock, which names the process that writes the folder."""
        return self.folder / LOCK

    @property
    def journal(self) -> Path:
        """The Optuna study, for optuna-dashboard."""
        return self.folder / JOURNAL

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's directory, which all trials share."""
        return self.folder / TENSORBOARD

    @property
    def ray(self) -> Path:
        """The folder of the logs of the search and of Ray; on a cluster it also holds the mark for nodes."""
        return self.folder / RAY

    @property
    def log(self) -> Path:
        """The driver's log: its output that is not shown to the user."""
        return self.ray / "driver.log"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / "report.html"

    @property
    def comparison(self) -> Path:
        """The page that compares several searches, in the storage of the first of them."""
        return self.folder.parent / COMPARISON

    @property
    def best(self) -> Path:
        """The folder of the winner."""
        return self.folder / BEST

    @property
    def model(self) -> Path:
        """The winner's model."""
        return self.best / MODEL

    @property
    def metrics(self) -> Path:
        """The winner's metrics."""
        return self.best / METRICS

    @property
    def exports(self) -> Path:
        """The folder of the winner's model in other formats, with a folder for each."""
        return self.best / EXPORTS

    def checkpoints(self, trial: str) -> Path:
        """The folder of one trial's checkpoints."""
        return self.folder / CHECKPOINTS / trial


def searches(storage: Path) -> Mapping[str, Path]:
    """The searches of a storage, by name."""
    return {path.parent.name: path.parent for path in sorted(storage.glob(f"*/{SEARCH}"))}
