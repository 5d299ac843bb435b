"""Aggregation in one call, on plain dicts of arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aggregators.dtypes import Array
from aggregators.engine import run
from aggregators.protocols import Reducer, ServerStep
from aggregators.registry import parse, parse_server_step
from aggregators.server import Replace
from aggregators.state import ServerState


def aggregate(
    models: Sequence[Mapping[str, npt.ArrayLike]],
    weights: Sequence[float] | None = None,
    *,
    aggregator: str | Reducer = "fedavg",
    server_step: str | ServerStep | None = None,
    global_model: Mapping[str, npt.ArrayLike] | None = None,
    state: ServerState | None = None,
    threads: int | None = None,
) -> dict[str, Array] | tuple[dict[str, Array], ServerState]:
    """Aggregate the clients' `models` into a new global model.

    Args:
        models: n clients' parameters, each a dict of name to array; the same names, shapes and dtypes in all.
            float16/32/64, bfloat16 and float8 go through the aggregator; integers become the weighted mean
            rounded half to even, bool the weighted majority. Python lists and numbers become arrays first.
        weights: `[n]`, each client's num_examples; None weighs all alike.
        aggregator: `"fedavg"`, `"diloco"`, `"trimmed_mean:f=2"`, … (see `catalogue()`), or a reducer.
        server_step: `"nesterov:lr=0.7,momentum=0.9"`, … or a server step; by default the aggregator's own.
        global_model: the old global model, a dict like the clients'; needed by every server step but
            `replace`, and by `norm_clip`.
        state: what the call before returned, for a server step with memory.
        threads: by default one for each core this process may use.

    Returns:
        The new global model, name to array of the clients' shapes and dtypes; for a server step with memory
        the tuple of that and the state to hand in next time.

    Raises:
        AggregationError: the models, weights, state or number of clients do not fit the algorithm.
        InvalidSetting: an algorithm or option that does not exist; the message lists what does.

    """
    if isinstance(aggregator, str):
        algorithm = parse(aggregator)
        reducer, step = algorithm.reducer, algorithm.server_step
    else:
        reducer, step = aggregator, Replace()
    if server_step is not None:
        step = parse_server_step(server_step) if isinstance(server_step, str) else server_step
    result = run(
        [_arrays(model) for model in models],
        weights,
        reducer=reducer,
        server_step=step,
        global_model=None if global_model is None else _arrays(global_model),
        state=state,
        threads=_cores() if threads is None else threads,
    )
    return result.model if result.state is None else (result.model, result.state)


def _arrays(model: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    return {name: np.asarray(tensor) for name, tensor in model.items()}


def _cores() -> int:
    # Containers and taskset limit the affinity, not cpu_count; macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
