"""Converts between the files that edges exchange and the vectors that a coordinator averages.

A trainer's float tensors are the parameters. What is no float (step counters, masks) takes no part in averages or outer
steps: its weighted mean, or majority, goes into the next checkpoint, as in any run. Constant buffers that hold
infinities (attention masks) take no part either: they stay as they are, the same at every site.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from aggregators import run as aggregate
from aggregators.dtypes import Kind, kind_of
from aumai_fedtrain.files import explained
from aumai_fedtrain.models import GlobalState, LocalUpdate, OuterState, Reports
from aumai_fedtrain.vectors import Array, as_array
from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec, is_odd
from flavor.config import RunConfig
from flavor.errors import AggregationError, CheckpointError, StoreError
from flavor.records.merging import merge_infos
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.store.digests import sha256_file
from flavor.store.paths import global_prefix, named
from flavor.store.protocol import ObjectStore
from workers.combiner import of_most
from workers.held import Held
from workers.infos import accepted_infos, read_client_info
from workers.reading import Reading, reading
from workers.updates import open_global, open_update, open_updates

_STATE_KEY = "fedtrain.state"
_CONSTANTS_KEY = "fedtrain.constants"
_WEIGHTS = "weights/"
_OUTER = "outer/"


def read_updates(
    store: ObjectStore, round_: RoundView, base: GlobalModel | None, expects: Reports, *, loss_metric: str
) -> list[LocalUpdate]:
    """The accepted updates of a round, in the order of its contributors, after checking each file's seal or SHA-256.

    Their `gradients` are the tensors of the files (`Reports.WEIGHTS`), or float64 differences to the global model
    `base` that they were trained from. `loss` is the metric of that name, None where it was not reported. Constant
    buffers that hold infinities are left out; `UpdatesRefused` names the nodes where one is another than elsewhere.
    """
    constants = _constants(round_)
    if constants:
        _check_constants(store, round_, base, constants)
    start = None
    if expects is Reports.PSEUDOGRADIENTS:
        if base is None:
            raise AggregationError("there is no global model yet, so nodes cannot report pseudogradients")
        with reading(store) as opened:
            start = floats_of(open_global(opened, base), constants)
    with reading(store) as opened:
        return [_update(opened, round_, client, start, constants, loss_metric) for client in round_.contributors]


def _update(
    opened: Reading,
    round_: RoundView,
    client: str,
    start: Mapping[str, Array] | None,
    constants: Collection[str],
    loss_metric: str,
) -> LocalUpdate:
    handed_in = round_.inspected(client)
    local = floats_of(open_update(opened, handed_in), constants)
    if start is not None:
        with np.errstate(invalid="ignore"):
            local = {name: start[name].astype(np.float64) - array.astype(np.float64) for name, array in local.items()}
    info = read_client_info(opened.store, handed_in.info)
    try:
        return LocalUpdate(
            node_id=client,
            round_id=round_.round,
            gradients=local,
            loss=info["metrics"].get(loss_metric),
            samples_used=handed_in.num_examples,
        )
    except ValidationError as error:
        raise AggregationError(f"the update of node {client!r} cannot be used: {explained(error)}") from None


def _constants(round_: RoundView) -> tuple[str, ...]:
    """Return the names of float tensors in which the inspection of a contributor found infinities."""
    found = (name for client in round_.contributors for name in round_.verdicts[client].constants)
    return tuple(dict.fromkeys(found))


def _check_constants(store: ObjectStore, round_: RoundView, base: GlobalModel | None, names: Sequence[str]) -> None:
    """Raise `UpdatesRefused` unless each of these tensors is the same at all contributors, and in `base`."""
    verdicts = {client: round_.verdicts[client] for client in round_.contributors}
    constants = {client: verdict.constants for client, verdict in verdicts.items()}
    accepted = [verdict.inspected for verdict in verdicts.values()]
    with reading(store) as opened:
        updates = dict(zip(verdicts, open_updates(opened, accepted, base), strict=True))
        old = None if base is None else open_global(opened, base)
        Held(RunConfig(rounds=1, store=store.url), updates, constants, old).settle()


def floats_of(file: TensorFile, without: Collection[str] = ()) -> dict[str, Array]:
    """Return the float tensors of a file by name, as views, except for those in `without`."""
    return {
        spec.name: file.tensor(spec.name)
        for spec in file.specs
        if kind_of(spec.dtype) is Kind.FLOAT and spec.name not in without
    }


def read_parameters(store: ObjectStore, model: GlobalModel) -> dict[str, Array]:
    """Return the float tensors of a model that no round made, by name, but for the constants that hold infinities.

    Raises `StoreError` unless the object is what was recorded.
    """
    with reading(store) as opened:
        tensors = floats_of(open_global(opened, model))
        return {name: array for name, array in sorted(tensors.items()) if not is_odd(array)}


def put_round(store: ObjectStore, run: str, round_: RoundView, state: GlobalState) -> GlobalModel:
    """Put the results of a round into the store: the global checkpoint, the merged client information, and the state.

    The checkpoint has the tensors, types and nesting of the first contributor's. Raises `AggregationError` when the
    state lacks one of its parameters, or a number is too large for its type.
    """
    updates = [round_.inspected(client) for client in round_.contributors]
    prefix = global_prefix(run, round_.round)
    constants = _constants(round_)
    with reading(store) as opened:
        files = [open_update(opened, update) for update in updates]
        floats = {
            spec.name: _narrowed(state.global_weights, spec)
            for spec in files[0].specs
            if kind_of(spec.dtype) is Kind.FLOAT and spec.name not in constants
        }
        tensors = floats | _others(files, [update.num_examples for update in updates])
        tensors |= {name: files[0].tensor(name) for name in constants}
        specs, metadata = files[0].specs, files[0].metadata
    model = _put(store, prefix, "model", specs, tensors, metadata)
    memory = _put_state(store, prefix, state, floats, constants)
    with store.stage() as staged:
        infos = accepted_infos(store, updates)
        staged.write_text(json.dumps(merge_infos(list(round_.contributors), infos), allow_nan=False), encoding="utf-8")
        digest, _ = sha256_file(staged)
        info = ObjectRef(named(prefix, "info", digest, ".json"), digest)
        store.put(info, staged)
    format_ = of_most([update.format for update in updates])
    sealed = model.sealed(store.seal(model.path))
    return GlobalModel(sealed, info, replace(memory, size_bytes=None), format_)


def put_initial(store: ObjectStore, run: str, weights: Mapping[str, Any]) -> GlobalModel:
    """Put initial weights into the store as the model of round 0, and return it; lists become float32."""
    tensors = {
        name: value if isinstance(value, np.ndarray) else as_array(value).astype(np.float32)
        for name, value in weights.items()
    }
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
    model = _put(store, global_prefix(run, 0), "model", specs, tensors, {})
    return GlobalModel(model.sealed(store.seal(model.path)))


def read_state(store: ObjectStore, model: GlobalModel) -> GlobalState:
    """Return the state that `put_round` put beside a global model; the state of round 0 for one that no round made."""
    if model.state is None:
        if model.info is not None:
            raise StoreError(f"{model.model.path}: its round was not coordinated by aumai_fedtrain: choose another run")
        return GlobalState(round_id=0, global_weights=read_parameters(store, model))
    with reading(store) as opened:
        return _state_of(opened, model, model.state)


def _state_of(opened: Reading, model: GlobalModel, state: ObjectRef) -> GlobalState:
    file = opened.open(state)
    other = StoreError(f"{state.path}: this is no state of aumai_fedtrain: choose another run")
    try:
        fields = dict(json.loads(file.metadata[_STATE_KEY]))
        constants = frozenset(json.loads(file.metadata.get(_CONSTANTS_KEY, "[]")))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise other from None
    floats = floats_of(open_global(opened, model), constants)
    exact = {name: file.tensor(_WEIGHTS + name) if _WEIGHTS + name in file else floats[name] for name in floats}
    tensors = {name.removeprefix(_OUTER): file.tensor(name) for name in file.names if name.startswith(_OUTER)}
    try:
        if fields["outer_state"] is not None:
            fields["outer_state"] = OuterState(**fields["outer_state"], tensors=tensors)
        return GlobalState(**fields, global_weights=dict(sorted(exact.items())))
    except (KeyError, TypeError, ValueError):
        raise other from None


def _put_state(
    store: ObjectStore, prefix: str, state: GlobalState, narrowed: Mapping[str, Array], constants: Sequence[str]
) -> ObjectRef:
    """Put what the checkpoint lacks: the fields of the state, the optimizer's memory, and weights that were rounded."""
    exact = {
        _WEIGHTS + name: as_array(value)
        for name, value in state.global_weights.items()
        if name in narrowed and not np.array_equal(narrowed[name].astype(np.float64), as_array(value))
    }
    fields = state.model_dump(mode="json", exclude={"global_weights": True, "outer_state": {"tensors"}})
    outer = state.outer_state
    if outer is not None:
        exact |= {_OUTER + key: as_array(value) for key, value in outer.tensors.items()}
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in exact.items()]
    metadata = {_STATE_KEY: json.dumps(fields), _CONSTANTS_KEY: json.dumps(constants)}
    return _put(store, prefix, "state", specs, exact, metadata)


def _put(
    store: ObjectStore,
    prefix: str,
    stem: str,
    specs: Sequence[TensorSpec],
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str],
) -> ObjectRef:
    """Put these tensors into the store as a safetensors file, and return the object."""
    with store.stage() as staged:
        with TensorFileWriter(staged, specs, metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, tensors[spec.name])
        path = named(prefix, stem, writer.sha256, ".safetensors")
        ref = ObjectRef(path, writer.sha256, writer.size_bytes)
        store.put(ref, staged)
    return ref


def _narrowed(weights: Mapping[str, Any], spec: TensorSpec) -> Array:
    """Return one parameter in the dtype and shape of the training scripts' checkpoints."""
    if spec.name not in weights:
        raise AggregationError(f"the state has no {spec.name!r}, which the nodes' checkpoints have")
    array = as_array(weights[spec.name])
    if array.size != int(np.prod(spec.shape)):
        raise AggregationError(f"{spec.name!r} has shape {array.shape} in the state, {spec.shape} in the checkpoints")
    with np.errstate(over="ignore"):
        narrowed = array.astype(spec.dtype).reshape(spec.shape)
    if is_odd(narrowed):  # no update with such a value would be accepted
        raise CheckpointError(f"a number of {spec.name!r} is too large for {spec.dtype}: lower the learning rates")
    return narrowed


def _others(files: Sequence[TensorFile], sizes: Sequence[int]) -> dict[str, Array]:
    """Aggregate the tensors that are not floats."""
    names = [spec.name for spec in files[0].specs if kind_of(spec.dtype) is not Kind.FLOAT]
    if not names:
        return {}
    models = [{name: file.tensor(name) for name in names} for file in files]
    return aggregate(models, [float(size) for size in sizes] if any(sizes) else None, threads=1).model
