"""Where a network can be cut in two, found from its graph.

A *cut point* is a place through which all data flows as a single tensor. The operations between two neighbouring cut
points are a *step*. Steps are grouped into *units*, and units into *blocks*:

- a unit is a kernel (a convolution, a dense layer) or a whole residual, dense or inception branch, with the
  normalisation, activation, padding and pooling that follow it;
- a block ends where branches merge (`Add`, `Concatenate`), and at the unit before a branch;
- between branches, a block ends where the tensors of one resolution are narrowest before they widen again, such as
  at MobileNetV2's `block_13_project_BN`; in a network without branches every unit is a block;
- while there are more than `MAX_BLOCKS`, the two neighbours that together have the fewest parameters are joined.

Method: the cut points are the single-vertex dominators of the output. They are found by counting the tensors that are
alive along a topological order, as in register allocation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.backbone import graph
from search.backbone.graph import Call

if TYPE_CHECKING:
    import keras

MAX_BLOCKS = 20


@dataclass(frozen=True)
class Block:
    """A part of the backbone between two cut points.

    Attributes:
        name: the name of its last layer.
        layers: the names of its layers, from input to output. A layer without weights that is called in several
            blocks belongs to the first of them.
    """

    name: str
    layers: tuple[str, ...]


@dataclass
class _Unit:
    """Neighbouring calls that stay together.

    Attributes:
        end: the index of its last call.
        kernel: the index of the last call of the step that has the kernel.
    """

    end: int
    kernel: int
    has_kernel: bool
    is_branch: bool


def find(calls: Sequence[Call]) -> list[int]:
    """The indices of the calls that end a block, from input to output; the last one is the index of the last call."""
    units = _units(calls, _cut_points(calls))
    if any(unit.is_branch for unit in units):
        units = [unit for unit, *around in _neighbours(units) if _ends_block(calls, unit, *around)]
    ends = {unit.end for unit in units}
    return _at_most(MAX_BLOCKS, calls, sorted({*ends, len(calls) - 1}))


def _cut_points(calls: Sequence[Call]) -> list[int]:
    """The indices of calls after which only one tensor is alive and no earlier layer with weights is called again."""
    last_use = {id(tensor): index for index, call in enumerate(calls) for tensor in call.inputs}
    last_call = {id(call.operation): index for index, call in enumerate(calls) if graph.weights(call)}
    cut_points, alive, busy_until = [], set[int](), 0
    for index, call in enumerate(calls):
        alive.update(id(tensor) for tensor in call.outputs)
        alive = {tensor for tensor in alive if last_use.get(tensor, len(calls)) > index}
        busy_until = max(busy_until, last_call.get(id(call.operation), 0))
        if len(alive) == 1 and busy_until <= index:
            cut_points.append(index)
    return cut_points


def _units(calls: Sequence[Call], cut_points: Sequence[int]) -> list[_Unit]:
    """Group the steps between cut points into units, each with a kernel unless the whole network has none."""
    units: list[_Unit] = []
    for start, end in itertools.pairwise([0, *(point + 1 for point in cut_points)]):
        step = calls[start:end]
        has_kernel = any(graph.is_kernel(call) for call in step)
        unit = _Unit(end - 1, end - 1, has_kernel, has_kernel and _is_branch(step))
        if units and units[-1].has_kernel and not has_kernel and not _starts_anew(units[-1], step):
            units[-1].end = unit.end
        elif units and not units[-1].has_kernel:
            units[-1] = unit
        else:
            units.append(unit)
    if len(units) > 1 and not units[-1].has_kernel:
        trailing = units.pop()
        units[-1].end = trailing.end
    return units


def _starts_anew(unit: _Unit, step: Sequence[Call]) -> bool:
    """Whether a step without a kernel belongs to the next unit: a pre-activation or a transition after a branch."""
    keeps_shape = step[0].inputs[0].shape == step[-1].outputs[0].shape
    return unit.is_branch and (not keeps_shape or any(graph.weights(call) for call in step))


def _is_branch(step: Sequence[Call]) -> bool:
    """Whether a step ends by merging maps of the same resolution; a gate (squeeze-and-excitation) does not count."""
    meeting = step[-1].inputs
    return len(meeting) > 1 and len({tuple(tensor.shape[1:-1]) for tensor in meeting}) == 1


def _neighbours(units: Sequence[_Unit]) -> Iterable[tuple[_Unit, _Unit | None, _Unit | None]]:
    """Each unit with the unit before it and the unit after it."""
    return zip(units, [None, *units[:-1]], [*units[1:], None], strict=True)


def _ends_block(calls: Sequence[Call], unit: _Unit, before: _Unit | None, after: _Unit | None) -> bool:
    """Whether a unit is a branch, comes before one, is the last, or has a local minimum of channels."""
    if after is None or unit.is_branch or after.is_branch:
        return True
    width = calls[unit.kernel].outputs[0].shape[-1]
    return bool(_width(calls, unit, before) >= width < _width(calls, unit, after))


def _width(calls: Sequence[Call], unit: _Unit, other: _Unit | None) -> float:
    """The channels after the other unit's kernel; infinite without another unit, or if its resolution differs."""
    if other is None:
        return math.inf
    shape, other_shape = (calls[index].outputs[0].shape for index in (unit.kernel, other.kernel))
    return float(other_shape[-1]) if shape[:-1] == other_shape[:-1] else math.inf


def _at_most(limit: int, calls: Sequence[Call], ends: list[int]) -> list[int]:
    """Join the two neighbours that together have the fewest parameters, until there are at most `limit` blocks."""
    counts = [graph.parameters(call.operation for call in part) for part in _parts(calls, ends)]
    while len(ends) > limit:
        lightest = min(range(len(ends) - 1), key=lambda index: counts[index] + counts[index + 1])
        del ends[lightest]
        counts[lightest] += counts.pop(lightest + 1)
    return ends


def _parts(calls: Sequence[Call], ends: Iterable[int]) -> list[Sequence[Call]]:
    return [calls[previous + 1 : end + 1] for previous, end in itertools.pairwise([-1, *ends])]


def name(network: keras.Model, calls: Sequence[Call], ends: Sequence[int]) -> tuple[Block, ...]:
    """The blocks that end at the given calls; together they hold every layer of the network exactly once."""
    import keras

    left = {layer.name for layer in network.layers}
    inputs = [layer.name for layer in network.layers if isinstance(layer, keras.layers.InputLayer)]
    blocks: list[Block] = []
    for part in _parts(calls, ends):
        called = dict.fromkeys(call.operation.name for call in part if isinstance(call.operation, keras.layers.Layer))
        names = [layer for layer in [*([] if blocks else inputs), *called] if layer in left]
        left -= set(names)
        blocks.append(Block(names[-1], tuple(names)))
    return tuple(blocks)
