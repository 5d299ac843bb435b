"""The engine: n models and a rule to one model, in one walk over memory.

The models may be memory-mapped files and so may the result: beyond those, memory is a few blocks of scratch
a thread, for any number of clients. The result is the same, bit for bit, for every block size and number
of threads: reducers and steps treat each element alone, in client order, and scans have their own blocks.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from aggregators import integers
from aggregators.blocks import Scratch, Span, block_size, for_each, spans
from aggregators.computed import ComputedTensor, Tensor
from aggregators.dtypes import Array, Kind, compute_dtype, is_finite, squares
from aggregators.mean import Mean
from aggregators.models import Models
from aggregators.parts import Stored, flat, part
from aggregators.protocols import Block, Joint, Plan, Reducer, ServerStep, Weights, needs_steps, why_no_step
from aggregators.quantities import matching
from aggregators.reach import reach_of
from aggregators.server import Replace
from aggregators.state import ServerState
from flavor.checkpoints import is_odd
from flavor.errors import AggregationError
from flavor.patterns import STATISTICS, no_parameters

BLOCK_ELEMS = 640 * 1024
"""Most elements of a block; rules that keep several rows in cache take fewer."""


Sink: TypeAlias = Mapping[str, Array] | None
"""Where a result goes: writable C-contiguous arrays by name, or None for new arrays in memory."""

FEWEST_SIGNED = 4
"""Elements below which the signs of a tensor show nothing: a bias of one number crosses 0 during training."""


@dataclass(frozen=True)
class Aggregation:
    """The result of an aggregation.

    - `model`: the new global model, each tensor of the clients' shape and dtype, in client 0's order;
    - `state`: the state for the server step's next call, None for a step without memory;
    - `clients`: whose parameters entered the result, by index: Krum and its kin choose clients, and weight 0 never
      enters;
    - `weights` `[n]`: the weight with which each client entered integer and bool tensors;
    - `nonfinite`: the tensors of the model, and `"SLOT/TENSOR"` of the state, that hold NaN or infinity,
      because a model does or because a sum has no room in its type. Do not train from such a model;
    - `huge`: the tensors of the model that are finite and have values whose squares have no room in their type
      (`flavor.checkpoints.is_odd`): what is trained from them will hardly be finite;
    - `differing`: the integer tensors that are not the same for all clients;
    - `statistics`: the float tensors that the server step left alone, with those of no dimensions;
    - `negative`: the tensors with negative values after the server step and none before it, neither in the old global
      model nor in any client's: a variance among them breaks the model. Tensors of three elements or fewer are not
      checked;
    - `warning`: what the rule says is wrong with its decisions, although the model counts; '' for nothing;
    - `reach`: computes how far each client moves the tensors that are not finite or huge, `[n]`
      (`aggregators.reach`); None where there are none.
    """

    model: dict[str, Array]
    state: ServerState | None
    clients: tuple[int, ...]
    weights: Array = field(repr=False)
    nonfinite: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    warning: str = ""
    huge: tuple[str, ...] = ()
    reach: Callable[[], Array] | None = field(default=None, repr=False)


def run(
    models: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float] | Array | None = None,
    *,
    reducer: Reducer | None = None,
    server_step: ServerStep | None = None,
    global_model: Mapping[str, Stored] | None = None,
    state: ServerState | None = None,
    out: Sink = None,
    completed: Callable[[str], None] | None = None,
    threads: int | None = None,
    block_elems: int = BLOCK_ELEMS,
    held: Mapping[str, Tensor] | None = None,
    statistics: Iterable[str] = STATISTICS,
    local_steps: Sequence[float] | Array | None = None,
) -> Aggregation:
    """Reduce the clients' `models` to one and take the server step from `global_model`.

    Args:
        models: for each client its tensors by name; all of the same names, shapes and dtypes. float16,
            bfloat16 and float8 are reduced in float32 and come back in their own type, float64 stays
            float64; integer tensors become the mean or the median that the rule stands for, rounded half to even,
            bool the majority (a tie is False). A `ComputedTensor` is computed block by block, and counts as what it
            decodes to. Never written to.
        weights: `[n]`, num_examples of each client, in any unit; None weighs all alike.
        reducer: by default `Mean()`.
        server_step: by default `Replace()`; applies to float tensors, the others are replaced.
        global_model: the old global model θ, tensors as in `models`; optional unless the rule needs it.
        state: the `state` of the round before; None starts anew.
        out: where the new global model goes; must not overlap `models` or `global_model`.
        completed: called with the name of each tensor of the result as soon as it is final, from any thread.
        threads: how many threads share the work; by default one for each core this process may use, and one where
            the models are small.
        block_elems: the most elements of a block, a matter of speed alone.
        held: tensors by name that come out as they are here, and take part in no distance, norm or state.
        statistics: patterns (`*`, `?`, `[…]`) of float tensors that are no parameters, as a batch norm's variances:
            what the reducer makes of them is the result, and the server step keeps no state for them. The same holds
            for each tensor of no dimensions, under any name.

    Returns:
        The new global model, in `out` where given, and the new state in new arrays, named `"SLOT/TENSOR"`.

    Raises:
        AggregationError: models that do not fit together, weights that cannot be used, a rule outside its
            condition, a missing global model, a state or sink that does not fit. Raised before anything is
            written; if a later step fails (a full disk under a mapped file), `out` holds a torn model.

    """
    reducer = Mean() if reducer is None else reducer
    server_step = Replace() if server_step is None else server_step
    if (threads is not None and threads < 1) or block_elems < 1:
        raise AggregationError(f"threads and block_elems must be >= 1, got {threads} and {block_elems}")
    if global_model is None and (rule := _first_that_needs_global(reducer, server_step)):
        raise AggregationError(f"{rule} needs the old global model, and this aggregation has none")
    if not isinstance(server_step, Replace) and (why := why_no_step(reducer)):
        raise AggregationError(f"{server_step.name}: {why}")
    held = held or {}
    source = Models(models, global_model, threads, held=held)
    reducer.check(source.n)
    checked = Weights.of(weights, source.n, local_steps)
    floats = tuple(source.sizes(Kind.FLOAT))
    has_step, by_steps = not isinstance(server_step, Replace), needs_steps(reducer)
    apart = _not_stepped(source, floats, statistics) if has_step or by_steps else ()
    source.statistics = frozenset(apart if by_steps else ())
    plain = apart if has_step else floats
    stepped = {name: models[0][name] for name in floats if name not in frozenset(plain)}
    if state is not None:
        state = state.without(plain)
        state.check(server_step.name, server_step.slots, stepped)
    model = {name: _claim(out, name, source.shapes[name], source.dtypes[name]) for name in source.names}
    kept = {
        key: np.empty(tensor.shape, compute_dtype(tensor.dtype))
        for slot in server_step.slots
        for name, tensor in stepped.items()
        for key in [f"{slot}/{name}"]
    }
    plan = reducer.plan(source, checked)
    walk = _Walk(source, plan, server_step, (None if state is None else state.tensors, kept), model)
    walk.stepped = frozenset(stepped)
    walk.held = {
        name: flat(np.asarray(tensor) if isinstance(tensor, ComputedTensor) else tensor)
        for name, tensor in held.items()
        if name in source.kinds
    }
    joined = frozenset(name for joint in plan.joint for name in joint.names)
    sizes = {name: size for name, size in source.sizes(*Kind).items() if name not in joined}
    items: list[Span | Joint] = [
        *plan.joint,
        *spans(sizes, {name: walk.block_size(name, block_elems) for name in sizes}),
    ]
    for_each(items, walk.one if completed is None else _Counting(items, walk.one, completed), source.threads)
    after = ServerState(server_step.name, (state.rounds if state else 0) + 1, kept) if server_step.slots else None
    nonfinite = tuple(name for name in (*model, *kept) if name in walk.nonfinite)
    huge = walk.huge()
    beyond = [name for name in source.sizes(Kind.FLOAT) if _is_among(name, server_step, {*nonfinite, *huge})]
    differing = tuple(name for name in model if name in walk.differing)
    return Aggregation(
        model,
        after,
        plan.clients,
        plan.weights,
        nonfinite,
        differing,
        statistics=plain if has_step else (),
        negative=tuple(name for name in model if name in walk.negative and name not in walk.signed),
        warning=plan.warning,
        huge=huge,
        reach=functools.partial(reach_of, source, plan, beyond) if beyond else None,
    )


def _is_among(name: str, step: ServerStep, names: set[str]) -> bool:
    """Return whether a tensor of the model, or of the state that the step keeps for it, is one of `names`."""
    return name in names or any(f"{slot}/{name}" in names for slot in step.slots)


def _names(item: Span | Joint) -> tuple[str, ...]:
    return (item.name,) if isinstance(item, Span) else item.names


class _Counting:
    """Calls `completed` once the last span of a tensor is done."""

    def __init__(
        self,
        items: Sequence[Span | Joint],
        one: Callable[[int, Span | Joint, Scratch], None],
        completed: Callable[[str], None],
    ) -> None:
        self._left = Counter(name for item in items for name in _names(item))
        self._one, self._completed, self._lock = one, completed, threading.Lock()

    def __call__(self, index: int, item: Span | Joint, scratch: Scratch) -> None:
        self._one(index, item, scratch)
        for name in _names(item):
            with self._lock:
                self._left[name] -= 1
                last = not self._left[name]
            if last:
                self._completed(name)


class _Walk:
    """Takes one span, or joint tensors, after another from the clients' rows to the result."""

    def __init__(
        self,
        source: Models,
        plan: Plan,
        step: ServerStep,
        state: tuple[Mapping[str, Stored] | None, Mapping[str, Array]],
        model: Mapping[str, Array],
    ) -> None:
        before, kept = state
        self.source, self.plan, self.server_step = source, plan, step
        self.before = None if before is None else {key: flat(array) for key, array in before.items()}
        self.model = {name: np.asarray(array).reshape(-1) for name, array in model.items()}
        self.kept = {key: np.asarray(array).reshape(-1) for key, array in kept.items()}
        self.voters = [int(i) for i in np.flatnonzero(plan.weights)]
        self.votes = [float(plan.weights[i]) for i in self.voters]
        self.held: Mapping[str, Stored] = {}
        self.stepped: frozenset[str] = frozenset()
        # These five are added to from all threads, one at a time.
        self.sums: list[tuple[str, float]] = []  # of squares, with the tensor of which each is a part
        self.nonfinite: set[str] = set()
        self.differing: set[str] = set()
        self.signed: set[str] = set()  # negative somewhere before the step
        self.negative: set[str] = set()  # and after it

    def block_size(self, name: str, limit: int) -> int:
        if self.source.kinds[name] is not Kind.FLOAT:
            rows = (
                integers.LIVE_ROWS
                if self.plan.whole is integers.integer_mean
                else integers.LIVE_ROWS + len(self.voters)
            )
            return block_size(limit, rows, 8, self.source.threads)
        computed = compute_dtype(self.source.dtypes[name])
        written = self.source.written_rows(name, self.plan.clients, streamed=self.plan.streams)
        rows = self.plan.live_rows + written + 2 * len(self.server_step.slots)
        return block_size(limit, rows, computed.itemsize, self.source.threads)

    def one(self, index: int, item: Span | Joint, scratch: Scratch) -> None:
        if isinstance(item, Span):
            self._span(item, scratch)
            return
        out = {name: self.model[name] for name in item.names}
        item.reduce(out)
        for name, array in out.items():
            self._look_at(name, array)

    def _span(self, span: Span, scratch: Scratch) -> None:
        if self.source.kinds[span.name] is Kind.FLOAT:
            self._float(span, scratch)
            return
        out = self.model[span.name][span.start : span.stop]
        if self.source.kinds[span.name] is Kind.HELD:
            np.copyto(out, part(self.held[span.name], span.start, span.stop, scratch, "held"))
            return
        rows = self.source.slices(span, self.voters, scratch)
        if self.source.kinds[span.name] is Kind.BOOL:
            integers.majority(rows, self.votes, out, scratch)
            return
        if span.name not in self.differing and any(not np.array_equal(rows[0], row) for row in rows[1:]):
            self.differing.add(span.name)
        self.plan.whole(rows, self.votes, out, scratch)

    def _float(self, span: Span, scratch: Scratch) -> None:
        block = self.source.block(span, self.plan.clients, scratch, streamed=self.plan.streams)
        out = self.model[span.name][span.start : span.stop]
        # The result is computed where it will lie if it has the type of the computation, else beside it.
        reduced = out if out.dtype == block.dtype else scratch.row("reduced", out.size, block.dtype)
        self.plan.reduce(block, reduced)
        state: dict[str, Array] = {}
        if span.name in self.stepped:
            state = {slot: self._state(slot, start, span, scratch) for slot, start in self.server_step.slots.items()}
            self.server_step.step(block.base, reduced, state, reduced, scratch)
            self._look_at_signs(span.name, block, reduced)
        if reduced is not out:
            np.copyto(out, reduced, casting="unsafe")
        self._look_at(span.name, out)
        kept = {f"{slot}/{span.name}": array for slot, array in state.items()}
        self.nonfinite.update(name for name, array in kept.items() if not is_finite(array))

    def _look_at(self, name: str, out: Array) -> None:
        """Note a part of the model that is not finite, and the sum of its squares."""
        found = squares(out)
        self.sums.append((name, found))
        if not math.isfinite(found) and not np.isfinite(out).all():
            self.nonfinite.add(name)

    def huge(self) -> tuple[str, ...]:
        """Return the finite tensors of the model with values whose squares have no room, as an inspection judges them.

        Looks only at tensors whose squares have no room all together.
        """
        sums: dict[str, float] = {}
        for name, found in self.sums:
            sums[name] = sums.get(name, 0.0) + found
        return tuple(
            name
            for name in self.model
            if name in sums
            and name not in self.nonfinite
            and not sums[name] < float(np.finfo(compute_dtype(self.source.dtypes[name])).max) / 2
            and is_odd(self.model[name])
        )

    def _look_at_signs(self, name: str, block: Block, after: Array) -> None:
        """Note whether a tensor is negative before the step, as most are in their first block, and after the step."""
        if name in self.signed or self.source.flat[name][0].size < FEWEST_SIGNED:
            return
        before = block.rows if block.base is None else (block.base, *block.rows)
        if any(row.min() < 0 for row in before):
            self.signed.add(name)
        elif after.min() < 0:
            self.negative.add(name)

    def _state(self, slot: str, start: float, span: Span, scratch: Scratch) -> Array:
        key = f"{slot}/{span.name}"
        kept = self.kept[key][span.start : span.stop]
        if self.before is None:
            kept.fill(start)
        else:
            np.copyto(kept, part(self.before[key], span.start, span.stop, scratch, "state before"))
        return kept


def _not_stepped(source: Models, floats: Sequence[str], statistics: Iterable[str]) -> tuple[str, ...]:
    """Return the float tensors that are no parameters: statistics, by their names, and tensors of no dimensions.

    The latter are numbers of the training, such as a learning rate or a count of steps: momentum carries them past what
    any client has, and a learning rate below 0 makes the clients ascend.
    """
    named = frozenset(matching(floats, no_parameters(statistics)))
    return tuple(name for name in floats if name in named or not source.shapes[name])


def _first_that_needs_global(reducer: Reducer, step: ServerStep) -> str | None:
    if reducer.needs_global:
        return type(reducer).__name__
    return step.name if step.needs_global else None


def _claim(sink: Sink, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return the array that tensor `name` of a result goes to."""
    if sink is None:
        return np.empty(shape, dtype)
    if name not in sink:
        raise AggregationError(f"the result has tensor {name!r}, and there is no array for it in out")
    array = sink[name]
    if array.shape != shape or array.dtype != dtype:
        raise AggregationError(f"the array for {name!r} is {array.dtype} {array.shape}, needed {dtype} {shape}")
    if not (array.flags.writeable and array.flags.c_contiguous):
        raise AggregationError(f"the array for {name!r} must be writable and C-contiguous")
    return array
