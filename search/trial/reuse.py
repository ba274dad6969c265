"""What a process keeps from one trial for the next: the backbone, and every network it has compiled.

Keras and TensorFlow do not give all memory of a network back, so none is dropped; `crowded` tells when the process
should make way for a new one.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from search import machine
from search.backbone import backbones
from search.backbone.backbones import Backbone, Source
from search.cache import Array
from search.components.tables import Parts
from search.features import Start
from search.setting import Values
from search.task.task import Target
from search.trial import model
from search.trial.batches import Split
from search.trial.model import Network

ENOUGH = 8
RESIDENT_SHARE = 0.1  # of the GPU's memory, for features


@dataclass
class _Kept:
    """A backbone with the values of its weights as they were loaded, and networks that share these weights.

    Args:
        splits: what networks read that start alike, the last used last.
    """

    backbone: Backbone
    pristine: dict[int, Array]
    networks: dict[Hashable, Network] = field(default_factory=dict)
    splits: dict[Hashable, tuple[Split, Split]] = field(default_factory=dict)
    used: Network | None = None


class Pool:
    """What one process keeps; it has one of these, for Keras has one precision and one list of networks in each.

    Attributes:
        heads: of probes that could not be kept on disk, by the path that they would have.
    """

    def __init__(self) -> None:
        self.heads: dict[Path, list[Array]] = {}
        self._kept: dict[Source, _Kept] = {}

    def backbone(self, source: Source, *, as_trained: bool = False) -> Backbone:
        """The backbone, with its weights as they were loaded.

        Args:
            source: with its image size. This whole process has its precision from now on.
            as_trained: leave it the weights that the last trial gave it.

        Raises:
            BackboneError: names every fault that was found.
        """
        kept = self._of(source)
        if not as_trained:
            _restore(kept)
        return kept.backbone

    def network(self, source: Source, parts: Parts, values: Values, target: Target, start: Start) -> Network:
        """A network whose backbone has its weights as they were loaded; the rest is for `model.reset`.

        One is built only for what forces a new trace: another unfreeze depth or start, another head, loss or optimizer.

        Args:
            values: the trial's parameters.
        """
        kept, room = self._of(source), int(RESIDENT_SHARE * machine.gpu_memory())
        _restore(kept)
        like = (start.cut, start.dtype, start.nbytes <= room, target)
        splits = _splits(kept, like, start, room)
        key = (values["unfreeze_depth"], parts.built(values), *like)
        found = kept.networks.get(key)
        found = found or model.build(kept.backbone, parts, values, target, start=start, splits=splits)
        kept.networks[key] = kept.used = found
        model.thaw(found.fitted, found.suffix)
        return found

    def crowded(self) -> bool:
        """Whether more networks have been compiled than one process should keep."""
        return any(len(kept.networks) > ENOUGH for kept in self._kept.values())

    def _of(self, source: Source) -> _Kept:
        if source not in self._kept:
            self._kept.clear()
            keras.utils.clear_session()
            keras.config.set_dtype_policy(source.precision)
            loaded = backbones.load(source.name, source.weights, source.image_size)
            pristine = {id(variable): np.array(variable) for variable in loaded.network.variables}
            self._kept[source] = _Kept(loaded, pristine)
        return self._kept[source]


def _restore(kept: _Kept) -> None:
    """Undo what the last trial did to the backbone."""
    if not kept.used:
        return
    for variable in kept.used.suffix.variables:
        if id(variable) in kept.pristine:
            variable.assign(kept.pristine[id(variable)])
    kept.used = None


def _splits(kept: _Kept, like: tuple[int, str, bool, Target], start: Start, room: int) -> tuple[Split, Split]:
    """What a network reads that starts so; what others read stays on the GPU as long as there is room for all.

    Args:
        like: the cut, the type of number, whether all of it lies on the GPU, and what is predicted.
        room: there, in bytes.
    """
    own = kept.splits.pop(like, None)
    for split in (split for pair in kept.splits.values() for split in pair):
        held = sum(other.nbytes for pair in kept.splits.values() for other in pair)
        if not split.nbytes or held + start.nbytes > room:
            split.close()
    _, dtype, resident, target = like
    train, val = own or (Split(start.shape, dtype, resident, target), Split(start.shape, dtype, resident, target))
    kept.splits[like] = train, val
    return train, val
