"""The protocols between the engine and the rules: `Reducer`, `Plan` and `ServerStep`.

The engine calls a reducer twice. `plan` comes first and may scan all models (distances, norms). It returns a `Plan`,
whose `reduce` then turns each block of the clients' parameters into one block of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from aggregators.blocks import Scratch
from aggregators.dtypes import Array
from aggregators.integers import WholeRule, integer_mean
from flavor.errors import AggregationError

SCAN_BLOCK = 256 * 1024
"""Elements of a block in a scan: fixed, so that sums over blocks do not depend on the engine's block size."""

SCAN_BYTES = 8 * 2**20


_MOST_EVEN = 2.0**100
MOST_STEPS = 1e12
"""The largest number of local steps of a client."""


def scan_block(rows: int) -> int:
    """Return how many elements a block of a scan takes for `rows` rows of scratch to stay small: 1024 to `SCAN_BLOCK`.

    Depends on the number of clients alone, so that sums stay fixed, as with `SCAN_BLOCK`.
    """
    return max(1024, min(SCAN_BLOCK, SCAN_BYTES // (4 * max(1, rows)) // 4096 * 4096))


@dataclass(frozen=True, slots=True)
class Block:
    """The same elements of every client's flattened tensor.

    `rows` holds one array `[B]` for each client, float32 (float64 for float64 tensors). A row may be a view
    into a mapped file: never write to it. `base` is the old global model's block `[B]`, where there is one.
    `is_parameter` is false for a tensor that is no parameter, as the variances of a batch norm and a tensor of no
    dimensions; it is only told to rules that need local steps.
    """

    rows: Sequence[Array]
    base: Array | None
    scratch: Scratch
    is_parameter: bool = True

    @property
    def size(self) -> int:
        """B, the number of elements."""
        return int(self.rows[0].size)

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """float32 or float64."""
        return self.rows[0].dtype

    def temporary(self, label: str, count: int = 1) -> Array:
        """Return scratch `[count, B]` of this block's dtype; equal labels share memory."""
        return self.scratch.rows(label, count, self.size, self.dtype)


@dataclass(frozen=True)
class Weights:
    """The clients' weights `[n]` as given, such as num_examples: float64, finite, none negative, not all 0."""

    raw: Array
    steps: Array | None = None
    """The clients' local steps `[n]`: float64, finite, more than 0. None where they are not given."""

    @classmethod
    def of(
        cls, weights: Sequence[float] | Array | None, n: int, steps: Sequence[float] | Array | None = None
    ) -> Weights:
        """Check `weights` and `steps` against `n` clients; None weighs all alike. Raises `AggregationError`."""
        raw = np.ones(n) if weights is None else np.array([float(w) for w in weights], np.float64)
        if raw.shape != (n,):
            raise AggregationError(f"{len(raw)} weights for {n} clients: one each is needed")
        for client, weight in enumerate(raw):
            if not (math.isfinite(weight) and weight >= 0):
                raise AggregationError(f"client {client} has weight {weight}: a finite number >= 0 is needed")
        largest = raw.max(initial=0.0)
        if largest == 0:
            raise AggregationError(f"the weights of all {n} clients are 0: at least one must count")
        if not _MOST_EVEN / 2**200 < largest < _MOST_EVEN:  # neither sums nor products with integers may overflow
            raw = raw / largest
        return cls(raw, None if steps is None else _checked_steps(steps, n))

    @property
    def normalised(self) -> Array:
        """The weights divided by their exactly rounded sum: `[n]`, float64."""
        normalised: Array = self.raw / math.fsum(self.raw)
        return normalised


def _checked_steps(steps: Sequence[float] | Array, n: int) -> Array:
    found = np.array([float(each) for each in steps], np.float64)
    if found.shape != (n,):
        raise AggregationError(f"{len(found)} numbers of local steps for {n} clients: one each is needed")
    for client, each in enumerate(found):
        if not 0 < each <= MOST_STEPS:
            raise AggregationError(
                f"client {client} has {each:g} local steps: a number above 0 is needed, of {MOST_STEPS:g} at most"
            )
    return found


class Scan(Protocol):
    """A pass over every float tensor of all models, for rules that need to know more than one block."""

    @property
    def n(self) -> int:
        """The number of clients."""
        ...

    def sum(self, part: Callable[[Block], Array], shape: tuple[int, ...], block_elems: int = SCAN_BLOCK) -> Array:
        """Return the float64 sum of `part(block)`, of `shape`, over all blocks, in a fixed order.

        The blocks of a scan have `block_elems` elements or fewer, at the end of a tensor; they do not depend on the
        engine's block size, so neither does the sum.
        """
        ...


class Joint(Protocol):
    """Tensors that are reduced as a whole and together, because an element of one depends on others."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors."""
        ...

    def reduce(self, out: Mapping[str, Array]) -> None:
        """Write the result of each tensor to `out`, flat arrays in the tensors' own types; called from any thread."""
        ...


def _unmoved(block: Block) -> Block:
    return block


@dataclass(frozen=True)
class Plan:
    """The decisions of a reducer about one set of models.

    - `reduce(block, out)` writes the result of a block to `out` `[B]`; the result for an element depends on that
      element alone, never on the borders of the block;
    - `clients`: the indices of the clients whose rows the blocks hold, in this order; other clients were left out;
    - `weights` `[n]`: the weights of integer and bool tensors;
    - `live_rows`: how many rows `reduce` touches repeatedly, so that the engine keeps them in cache;
    - `streams`: whether `reduce` takes the rows one after another, by index, and looks back at the first alone: then
      the rows that the engine has to read or decode share one row of scratch (`aggregators.models.Streamed`);
    - `whole`: how integer tensors are reduced, of the clients whose weight is not 0; by default by their weighted mean;
    - `warning`: what is wrong with the decisions, although the result counts; '' for nothing;
    - `joint`: the float tensors that `reduce` never gets, because they are reduced together. No server step is taken
      with them;
    - `moved`: returns a block with the rows that the rule behind reduces, where rules go before it that move clients.
    """

    reduce: Callable[[Block, Array], None]
    clients: tuple[int, ...]
    weights: Array
    live_rows: int
    whole: WholeRule = integer_mean
    streams: bool = False
    warning: str = ""
    joint: tuple[Joint, ...] = ()
    moved: Callable[[Block], Block] = _unmoved


@runtime_checkable
class Reducer(Protocol):
    """Reduces n clients' parameters to one set of parameters."""

    @property
    def needs_global(self) -> bool:
        """Whether the rule measures clients against the old global model."""
        ...

    def check(self, n: int) -> None:
        """Raise `AggregationError` with the numbers unless the rule's condition holds for `n` clients."""
        ...

    def plan(self, scan: Scan, weights: Weights) -> Plan:
        """Make the decisions that need whole models; called after `check`."""
        ...


@runtime_checkable
class Prefix(Protocol):
    """A reducer that can go before another, as in `norm_clip:c=1/median`: it changes what the other one gets."""

    @property
    def then(self) -> Reducer:
        """The reducer behind this one."""
        ...

    def before(self, rule: Reducer) -> Reducer:
        """Return this reducer with `rule` behind it."""
        ...


def weighs(reducer: Reducer) -> bool:
    """Return whether the clients' weights count in a rule: they do unless it has `weighs = False`."""
    return bool(getattr(reducer, "weighs", True))


def needs_steps(reducer: Reducer) -> bool:
    """Return whether a rule, or one behind it, needs the clients' local steps: one with `needs_steps = True` does."""
    return bool(getattr(reducer, "needs_steps", False)) or (isinstance(reducer, Prefix) and needs_steps(reducer.then))


def why_no_step(reducer: Reducer) -> str:
    """Return why no server step but `replace` goes with a rule, which it has as `why_no_step`; '' where all do."""
    return str(getattr(reducer, "why_no_step", ""))


def why_alone(reducer: Reducer) -> str:
    """Return why no rule can go before this one, which it has as `why_alone`; '' where each `Prefix` can."""
    return str(getattr(reducer, "why_alone", ""))


@runtime_checkable
class ServerStep(Protocol):
    """Makes the new global model from the old one and the reduced one."""

    @property
    def name(self) -> str:
        """The name under which the state is stored."""
        ...

    @property
    def needs_global(self) -> bool:
        """Whether the step needs an old global model."""
        ...

    @property
    def slots(self) -> Mapping[str, float]:
        """The state tensors kept for each float tensor, and the value each starts from."""
        ...

    def step(
        self, base: Array | None, reduced: Array, state: Mapping[str, Array], out: Array, scratch: Scratch
    ) -> None:
        """Write the new parameters `[B]` to `out` and update `state`, slot to `[B]`, in place.

        `base` (θ) is None only where `needs_global` is false; `out` may be `reduced` itself.
        """
        ...
