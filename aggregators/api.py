"""Aggregation in one call, on plain dicts of arrays or on checkpoint files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from aggregators.dtypes import Array
from aggregators.engine import Aggregation, Sink, run
from aggregators.protocols import Reducer, ServerStep
from aggregators.quantities import turned_negative
from aggregators.registry import parse, parse_server_step
from aggregators.server import Replace
from aggregators.state import ServerState
from flavor.errors import AggregationError
from flavor.patterns import STATISTICS

if TYPE_CHECKING:
    from aggregators.files import ModelFile

StrPath: TypeAlias = str | os.PathLike[str]
Model: TypeAlias = Mapping[str, npt.ArrayLike] | StrPath
"""One model: a dict of name to array, or the path of a checkpoint."""


def aggregate(
    models: Sequence[Model],
    weights: Sequence[float] | None = None,
    *,
    aggregator: str | Reducer = "fedavg",
    server_step: str | ServerStep | None = None,
    global_model: Model | None = None,
    state: ServerState | None = None,
    out: StrPath | None = None,
    out_format: str | None = None,
    threads: int | None = None,
    statistics: Sequence[str] = STATISTICS,
    local_steps: Sequence[float] | None = None,
) -> dict[str, Array] | tuple[dict[str, Array], ServerState]:
    """Aggregate the clients' `models` into a new global model. In a notebook, with no Redis anywhere::

        from aggregators import aggregate

        new = aggregate(["site1.ckpt", "site2.ckpt"], [600, 400], out="global.ckpt")
        new["fc.weight"].mean()  # and torch.load("global.ckpt", weights_only=True)["state_dict"]

        new, state = aggregate(["a.safetensors", "b.npz"], aggregator="diloco", global_model="global.ckpt")
        new, state = aggregate([a, b], aggregator="diloco", global_model=new, state=state)  # dicts as well
        state.save("global.state")  # and tomorrow ServerState.load("global.state")

    Args:
        models: n clients' parameters, each a dict of name to array, or the path of a checkpoint in any format
            that a trainer may use (torch, pickle, npz, safetensors; told by its content); the same names, shapes
            and dtypes in all, kinds and formats mixed at will. float16/32/64, bfloat16 and, in dicts, float8 go
            through the aggregator; integers become the weighted mean rounded half to even, bool the weighted
            majority. Python lists and numbers become arrays first. Files are mapped, not read, unless compressed;
            nested ones have flat names, keys joined by `/`. Nothing that a pickle names is run.
        weights: `[n]`, each client's num_examples; None weighs all alike.
        aggregator: `"fedavg"`, `"diloco"`, `"trimmed_mean:f=2"`, … (see `catalogue()`), or a reducer.
        server_step: `"nesterov:lr=0.7,momentum=0.9"`, … or a server step; by default the aggregator's own.
        global_model: the old global model, a dict or a path like the clients'; needed by every server step but
            `replace`, and by `norm_clip`.
        state: what the call before returned, for a server step with memory.
        out: a path that the new global model is written to, whole or not at all; it may be that of an input.
            Nested as the first of `models` that is a path (else `global_model`), and in its format; where all are
            dicts a flat safetensors file.
        out_format: `"torch"`, `"pickle"`, `"npz"` or `"safetensors"` instead of that.
        threads: by default one for each core this process may use, and one where the models are small.
        statistics: patterns (`*`, `?`, `[…]`) of float tensors that are no parameters, by default the names that a
            batch norm's means and variances have: the server step leaves them alone, and they become what the reducer
            makes of them. So does every tensor of no dimensions, such as a learning rate. A `UserWarning` names a
            tensor that the step alone made negative.
        local_steps: `[n]`, how many local steps each client has taken, for `aggregator="fednova"`.

    Returns:
        The new global model, name to array of the clients' shapes and dtypes (read-only views of `out` where that
        is a safetensors file); for a server step with memory the tuple of that and the state to hand in next time.
        NaN and infinity in the models may be in both.

    Raises:
        AggregationError: the models, weights, state or number of clients do not fit the algorithm; a model is
            neither dict nor path.
        CheckpointError: a file that is missing, damaged or of no known format, or a format that cannot hold the
            result (bfloat16 in an npz).
        StoreError: `out` cannot be written. After any error it is what it was.
        InvalidSetting: an algorithm, option or format that does not exist; the message lists what does.

    """
    if isinstance(aggregator, str):
        algorithm = parse(aggregator)
        reducer, step = algorithm.reducer, algorithm.server_step
    else:
        reducer, step = aggregator, Replace()
    if server_step is not None:
        step = parse_server_step(server_step) if isinstance(server_step, str) else server_step
    if isinstance(models, str | os.PathLike | Mapping):
        raise AggregationError("models is one model; give a list of the clients' models")
    if out is None and out_format is not None:
        raise AggregationError(f"out_format={out_format!r} without out: say where to write")
    opened = [_opened(model, f"client {client}") for client, model in enumerate(models)]
    base = None if global_model is None else _opened(global_model, "the global model")

    def compute(sink: Sink) -> Aggregation:
        return run(
            [arrays for arrays, _ in opened],
            weights,
            reducer=reducer,
            server_step=step,
            global_model=None if base is None else base[0],
            state=state,
            out=sink,
            threads=threads,
            statistics=statistics,
            local_steps=local_steps,
        )

    if out is None or not opened:
        result = compute(None)
    else:
        from aggregators.files import write_result

        files = [file for _, file in [*opened, *([] if base is None else [base])] if file is not None]
        result = write_result(out, files[0] if files else None, opened[0][0], out_format, compute)
    if result.warning:
        warnings.warn(result.warning, UserWarning, stacklevel=2)
    if result.negative:
        warnings.warn(turned_negative(result.negative), UserWarning, stacklevel=2)
    return result.model if result.state is None else (result.model, result.state)


def _opened(model: Model, whose: str) -> tuple[dict[str, Array], ModelFile | None]:
    """Return the arrays of a model, and the file that holds them if it is one."""
    if isinstance(model, Mapping):
        return {name: np.asarray(tensor) for name, tensor in model.items()}, None
    if isinstance(model, str | os.PathLike):
        from aggregators.files import ModelFile  # dicts alone need no reader of files

        file = ModelFile.open(model)
        return file.checkpoint.tensors, file
    raise AggregationError(f"{whose} is a {type(model).__name__}, neither a dict of arrays nor a path")
