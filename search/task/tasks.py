"""What is predicted: a table, one row for each kind of target."""

from collections.abc import Mapping

from search.task.classification import CLASSIFICATION
from search.task.multilabel import MULTILABEL
from search.task.regression import REGRESSION
from search.task.task import Task

TASKS: Mapping[str, Task] = {
    "classification": CLASSIFICATION,
    "multilabel": MULTILABEL,
    "regression": REGRESSION,
}
