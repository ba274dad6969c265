"""What a fit reads: the rows of every batch, looked up and gathered inside the compiled step.

Keras is given nothing but the numbers of the steps, so that no Python runs between them and no input pipeline is built
for every epoch; `Fitted` turns a number into a batch. The order of the rows depends on the seed and the epoch alone, so
that a trial that was interrupted reads on in the order it would have read.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from search.cache import Array
from search.features import Read, Start
from search.task.metric import Metric, of_answers
from search.task.task import Target

STEPS_PER_EXECUTION = 32


class Split:
    """The batches of one split, in variables, so that other rows or another batch size need no new trace.

    Args:
        shape: of one row; `dtype` of its values.
        resident: whether the rows lie whole on the training device; else they are read batch by batch.
        target: says what a label is.

    Attributes:
        answers: (rows, outputs), what the network said of each row when it was last evaluated.
        nbytes: of the rows that lie on the device.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, resident: bool, target: Target) -> None:
        self._shape, self._dtype = shape, dtype
        self._order = _variable((None,), "int32")
        self._labels = _variable((None, *target.label_shape), target.task.label_dtype)
        self._weights = _variable((None,), "float32") if target.task.weighted else None
        self._batch_size = _variable((), "int32")
        self._first = _variable((), "int32")
        self._table = _variable((None, *shape), dtype) if resident else None
        self.answers = _variable((None, None), "float32")
        self._views: Sequence[Read] = ()
        self._read: Read | None = None
        self._held = ""
        self._steps = 0
        self.nbytes = 0

    def steps(self) -> tf.data.Dataset:
        """The numbers of an epoch's steps."""
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        return tf.data.Dataset.range(self._steps).with_options(options)

    def open(self, name: str, views: Sequence[Read], labels: Array, batch_size: int) -> None:
        """Take other rows; their order is that of the labels.

        Args:
            name: of the values; those that lie on the device already under this name are not read again.
            views: a reader of each.
        """
        self._labels.assign(labels)
        self._batch_size.assign(batch_size)
        self._steps = math.ceil(len(labels) / batch_size)
        if self._table is not None and name != self._held:
            rows = np.arange(len(labels))
            table = np.concatenate([read(rows) for read in views])
            self._table.assign(table)
            self._held, self.nbytes = name, table.nbytes
        self._views = views
        self.put(0, np.arange(len(labels)))

    def weigh(self, weights: Array) -> None:
        """Take what the loss of an image of each class is multiplied by, (classes,)."""
        if self._weights is not None:
            self._weights.assign(weights)

    def put(self, view: int, order: Array) -> None:
        """Take the rows of one view, in this order."""
        self._order.assign(order)
        self._first.assign(view * len(order))
        self._read = self._views[view]

    def close(self) -> None:
        """Let go of the rows and of the memory they take."""
        self._views, self._read = (), None
        if self._table is not None:
            self._table.assign(np.zeros((0, *self._shape), self._dtype))
            self._held, self.nbytes = "", 0

    def rows(self, step: Any) -> Any:
        """The numbers of the rows of a step, (batch,). The last batch may be smaller."""
        first = tf.cast(step, "int32") * self._batch_size
        return self._order[first : first + self._batch_size]

    def batch(self, step: Any) -> tuple[Any, Any]:
        """The rows of a step, (batch, …), and their labels, (batch, …)."""
        rows = self.rows(step)
        if self._table is not None:
            values = tf.gather(self._table, self._first + rows)
        else:
            values = tf.numpy_function(self._gather, [rows], self._dtype, stateful=True)
            values = tf.ensure_shape(values, (None, *self._shape))
        return values, tf.gather(self._labels, rows)

    def weights(self, labels: Any) -> Any:
        """What the loss of images of these classes is multiplied by, (batch,); `None` where no image has one class."""
        return None if self._weights is None else tf.gather(self._weights, labels)

    def _gather(self, rows: Array) -> Array:
        if self._read is None:
            raise ValueError("no rows are open")
        return self._read(rows)


class Fitted(keras.Model):  # type: ignore[misc]
    """A functional model that is fitted to step numbers: `fit(model.train.steps(), …)`."""

    train: Split
    val: Split
    target: Target
    mixup: Any = None  # the layer that mixes features, where any does
    _validated: Any = None  # the rows of the step that is being traced

    def train_step(self, data: Any) -> Any:
        """One step, on the batch of its number."""
        values, labels = self.train.batch(data)
        return super().train_step((values, labels, self.train.weights(labels)))

    def test_step(self, data: Any) -> Any:
        """One step of the validation, whose answers are kept."""
        self._validated = self.val.rows(data)
        try:
            return super().test_step(self.val.batch(data))
        finally:
            self._validated = None

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """In training the trial's loss; in validation the task's, so that trials compare whatever theirs is."""
        if training and self.mixup:
            share, weight = self.mixup.share, sample_weight
            own = super().compute_loss(x, y, y_pred, weight, training)
            other = None if weight is None else weight[::-1]
            return share * own + (1 - share) * super().compute_loss(x, y[::-1], y_pred, other, training)
        if training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        return keras.ops.mean(keras.losses.get(self.target.task.loss)(y, y_pred))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Keras's own."""
        if self._validated is not None:
            self.val.answers.scatter_update(tf.IndexedSlices(y_pred, self._validated))
        return super().compute_metrics(x, y, y_pred, sample_weight)


class Feeder(keras.callbacks.Callback):  # type: ignore[misc]
    """Gives a model its rows, view `e` modulo their number in epoch `e`, in an order of its own; and takes its answers.

    Args:
        start: what the model starts from.
        labels: of each split.
        seed: of the order.
        known: the metrics.
    """

    def __init__(
        self,
        start: Start,
        labels: Mapping[str, Array],
        batch_size: int,
        seed: int,
        known: Mapping[str, Metric],
    ) -> None:
        super().__init__()
        self._start, self._labels, self._batch_size, self._seed = start, labels, batch_size, seed
        self._known = known

    def open(self, model: Fitted) -> None:
        """Before `fit`, which asks for the number of steps."""
        name, labels = self._start.name, {split: model.target.scaled(own) for split, own in self._labels.items()}
        model.train.open(name, self._start.train, labels["train"], self._batch_size)
        model.val.open(name, [self._start.val], labels["val"], self._batch_size)
        model.val.answers.assign(np.zeros((len(labels["val"]), model.output_shape[-1]), "float32"))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Lay out the epoch."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._labels["train"]))
        self.model.train.put(epoch % len(self._start.train), order)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Add the metrics that Keras does not compute to its own, for the callbacks that follow."""
        if logs is not None:
            outputs = self.model.target.whole(self.model.val.answers.numpy())
            logs |= of_answers(self._labels["val"], outputs, self._known)


def fit(model: Fitted, feeder: Feeder, epoch: int, epochs: int, steps: Sequence[keras.callbacks.Callback]) -> None:
    """Fit from epoch `epoch`, counted from 0, to `epochs`."""
    feeder.open(model)
    train, validation = model.train.steps(), model.val.steps()
    spread = {"initial_epoch": epoch, "epochs": epochs, "shuffle": False, "verbose": 0}
    model.fit(train, validation_data=validation, callbacks=[feeder, *steps], **spread)


def _variable(shape: tuple[int | None, ...], dtype: str) -> tf.Variable:
    empty = np.zeros([size or 0 for size in shape], dtype)
    return tf.Variable(empty, shape=tf.TensorShape(shape), trainable=False)
