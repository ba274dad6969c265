"""The shared TensorBoard directory: what its HParams page needs, right while trials run.

One experiment summary at the root says which columns there are; it is made from the declared space, once. Every trial
is one session: a record at its start, its best values while it runs, its status at its end. A parameter that does not
apply to a trial is left out of its record, so that its column stays numeric. Keras's own callback writes the scalars
of every epoch to `<trial>/train` and `<trial>/validation`. TensorFlow is not needed here, and not imported.

Reference: https://github.com/tensorflow/tensorboard/tree/master/tensorboard/plugins/hparams
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.record_writer import RecordWriter

from search.record.record import run_name
from search.setting import Setting, Value
from search.space import Choice, Float, Int, Space
from search.task.objective import Objective

BUCKETS = 30


class Events:
    """One events file, written through to disk at every call.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("ab"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def summary(self, summary: Summary) -> None:
        """Write a summary."""
        self._write(Event(wall_time=time.time(), summary=summary))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars of one step."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def forget(self, step: int) -> None:
        """Have TensorBoard forget what other files of the run say from this step on: it comes once more."""
        for _ in range(2):  # TensorBoard takes the first one of a run for its beginning
            self._write(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def image(self, tag: str, image: Image.Image, step: int) -> None:
        """Write a picture."""
        png = io.BytesIO()
        image.save(png, "PNG")
        about = {"width": image.width, "height": image.height, "colorspace": 3}
        picture = Summary.Image(encoded_image_string=png.getvalue(), **about)
        self._write(
            Event(wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=tag, image=picture)]))
        )

    def histogram(self, tag: str, values: NDArray[Any], step: int) -> None:
        """Write how values are distributed."""
        flat = np.asarray(values, "float64").ravel()
        counts, edges = np.histogram(flat, BUCKETS)
        found = HistogramProto(min=flat.min(), max=flat.max(), num=flat.size, sum=flat.sum())
        found.sum_squares = float(np.square(flat).sum())
        found.bucket_limit.extend(edges[1:])
        found.bucket.extend(counts)
        self._write(
            Event(wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=tag, histo=found)]))
        )

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()


class Directory:
    """The directory of one search.

    Args:
        folder: its root, which TensorBoard is started on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: dict[str, Events] = {}

    def declare(self, space: Space) -> None:
        """Write the experiment summary of a resolved space."""
        columns = [_column(name, distribution, space.known[name]) for name, distribution in space.search.items()]
        with Events(self._folder) as events:
            events.summary(hparams.hparams_config_pb(columns, _figures(space.objective), time.time()))

    def start(self, trial: str, parameters: Mapping[str, Value]) -> None:
        """Write a trial's session record; TensorBoard makes one row of all sessions that have one id, of any search."""
        self._sessions[trial] = Events(self._folder / run_name(trial, parameters))
        self._sessions[trial].summary(hparams.hparams_pb(parameters, trial_id=f"{trial} {self._folder.parent.name}"))

    def best(self, trial: str, figures: Mapping[str, float], epoch: int) -> None:
        """Write the metrics of a trial's best epoch so far, after `epoch` epochs; steps count from 0, as Keras's."""
        self._sessions[trial].scalars({f"best/{name}": value for name, value in figures.items()}, epoch - 1)

    def end(self, trial: str, succeeded: bool) -> None:
        """Write a trial's status; nothing follows it."""
        if events := self._sessions.pop(trial, None):
            status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
            info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
            content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=info))
            value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=content, tensor=metadata.NULL_TENSOR)
            events.summary(Summary(value=[value]))
            events.close()


def _figures(objective: Objective) -> list[hparams.Metric]:
    """The columns of figures: of a trial's best epoch, and Keras's own of every epoch."""
    best = [
        hparams.Metric(
            f"best/{name}",
            display_name=f"best {metric.words}" if name == objective.metric else f"{metric.words} of the best epoch",
        )
        for name, metric in objective.metrics.items()
    ]
    epochs = [
        hparams.Metric(name.replace("val_", "epoch_"), group="validation", display_name=objective.metrics[name].words)
        for name in objective.leading
    ]
    return [*best, *epochs]


def _column(name: str, distribution: object, setting: Setting) -> hparams.HParam:
    match distribution:
        case Int():
            domain = hparams.IntInterval(distribution.low, distribution.high)
        case Float():
            domain = hparams.RealInterval(float(distribution.low), float(distribution.high))
        case Choice():
            domain = hparams.Discrete(distribution.choices)
        case BaseDistribution() | _:
            raise TypeError(f"{name}: {distribution!r} is not resolved")
    return hparams.HParam(name, domain, description=setting.meaning)
