"""One attempt to aggregate a round: claim it, compute, put the result into the store, commit."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregators import engine
from aggregators.registry import parse
from aggregators.state import ServerState
from flavor.bus.runs import RunStore
from flavor.bus.state import GlobalModel, RoundView, RunView
from flavor.config import RunConfig
from flavor.errors import FlavorError, IllegalMove, LeaseLost
from flavor.store.formats import TensorFile, TensorFileWriter, TensorSpec
from flavor.store.info import merge_infos
from flavor.store.objects import check_object, sha256_file
from flavor.store.paths import named, round_prefix
from workers.context import WorkerContext
from workers.updates import open_global, open_updates

_SMALL_BYTES = 2 * 1024 * 1024
"""Below this, starting threads and mapping a file cost more than the aggregation."""

_rule = functools.lru_cache(parse)  # looking for third parties' entry points costs milliseconds


@dataclass(frozen=True)
class Attempt:
    """One worker's attempt at one round."""

    runs: RunStore
    round: int
    number: int
    token: str
    lease_s: float

    def claim(self) -> None:
        """Take or renew the right to commit; `IllegalMove` or `LeaseLost` when it is not, or no longer, ours."""
        self.runs.claim_round(self.round, attempt=self.number, token=self.token, ttl_s=self.lease_s)


def aggregate_round(context: WorkerContext, run: str, round_: int, attempt_number: int) -> None:
    """Run one attempt. A stale or doubled job changes nothing; a failure is reported for the coordinator to judge."""
    runs = context.run(run)
    view = runs.read()
    config = RunConfig.parse(view.config)
    attempt = Attempt(runs, round_, attempt_number, context.name, config.aggregation_lease_s)
    with suppress(IllegalMove, LeaseLost):  # another attempt is current, or another worker has this one
        attempt.claim()
        with _renewing(attempt):
            try:
                model, reason = _aggregated(context, view, config, attempt)
                runs.commit_round(round_, attempt=attempt_number, token=context.name, model=model, reason=reason)
            except (IllegalMove, LeaseLost):
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, FlavorError) else f"{type(error).__name__}: {error}"
                context.tell(f"run {run}, round {round_}, attempt {attempt_number}: {reason}")
                runs.fail_attempt(round_, attempt=attempt_number, token=context.name, reason=reason)
                if not isinstance(error, FlavorError):
                    raise
        context.tell(f"run {run}, round {round_}: {reason}")


@contextmanager
def _renewing(attempt: Attempt) -> Iterator[None]:
    """Renew the lease at a third of its lifetime while the body computes."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(attempt.lease_s / 3):
            with suppress(FlavorError):  # the commit finds out
                attempt.claim()

    thread = threading.Thread(target=renew, name="round-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _aggregated(context: WorkerContext, view: RunView, config: RunConfig, attempt: Attempt) -> tuple[GlobalModel, str]:
    round_view = attempt.runs.read_round(attempt.round)
    if round_view is None:
        raise IllegalMove(f"run {view.run!r}: round {attempt.round} is gone")
    clients = list(round_view.contributors)
    infos = [round_view.verdicts[client].info for client in clients]
    prefix = f"{round_prefix(view.run, attempt.round)}global/"
    with context.store.stage() as staged:
        combined = _combine(context, view, config, round_view, staged, prefix)
        digest, size = combined.digest, combined.size_bytes
        path = named(prefix, "model", digest, ".safetensors")
        context.store.put(path, staged, digest=digest)
    with context.store.stage() as staged:
        staged.write_text(json.dumps(merge_infos(clients, infos), allow_nan=False))
        info_digest, _ = sha256_file(staged)
        info_path = named(prefix, "info", info_digest, ".json")
        context.store.put(info_path, staged, digest=info_digest)
    examples = sum(info["metadata"]["datasetSize"] for info in infos)
    format_ = round_view.verdicts[clients[0]].format
    reason = f"{len(clients)} updates, {examples} examples, {size} bytes"
    model = GlobalModel(
        path,
        digest,
        size,
        info_path,
        format_,
        context.store.seal(path),
        combined.state_path,
        combined.state_digest,
    )
    return model, reason


@dataclass(frozen=True)
class _Combined:
    """What came out of an aggregation: the staged model's SHA-256 and size, and where the server state lies."""

    digest: str
    size_bytes: int
    state_path: str = ""
    state_digest: str = ""


def _combine(
    context: WorkerContext, view: RunView, config: RunConfig, round_view: RoundView, target: Path, prefix: str
) -> _Combined:
    """Aggregate the contributors' tensors into the file `target`, and put the server state into the store."""
    verdicts = [round_view.verdicts[client] for client in round_view.contributors]
    updates = open_updates(context.store, verdicts, view.global_model)
    sizes = [float(verdict.info["metadata"]["datasetSize"]) for verdict in verdicts]
    weights = sizes if any(sizes) else None  # nobody counted examples: all weigh alike
    rule = _rule(config.aggregator, config.server_step)
    old = None
    if rule.needs_global:
        if view.global_model is None:
            rule = rule.without_global()
        else:
            old = open_global(context.store, view.global_model)
    with TensorFileWriter(target, updates[0].specs, updates[0].metadata) as writer:
        small = writer.size_bytes * len(updates) < _SMALL_BYTES
        result = engine.run(
            [update.tensors for update in updates],
            weights,
            reducer=rule.reducer,
            server_step=rule.server_step,
            global_model=_tensors(old) if old else None,
            state=_state(context, view.global_model) if rule.server_step.slots else None,
            out=None if small else writer.map(),
            completed=None if small else writer.completed,
            threads=1 if small else context.threads,
        )
        if small:
            for spec in writer.specs:
                writer.write(spec.name, result.model[spec.name])
        state = result.state
        del result  # the mapped file is closed with the writer
    state_path, state_digest = _put_state(context, state, prefix) if state is not None else ("", "")
    return _Combined(writer.sha256, writer.size_bytes, state_path, state_digest)


def _state(context: WorkerContext, model: GlobalModel | None) -> ServerState | None:
    """The server state that belongs to the old global model; None before the first step."""
    if model is None or not model.state_path:
        return None
    file = TensorFile.open(check_object(context.store, model.state_path, digest=model.state_digest))
    return ServerState.restore(_tensors(file), file.metadata)


def _put_state(context: WorkerContext, state: ServerState, prefix: str) -> tuple[str, str]:
    """Put the server state into the store, beside the model it belongs to: its path and SHA-256."""
    specs = [TensorSpec(key, array.dtype, array.shape) for key, array in state.tensors.items()]
    with context.store.stage() as staged:
        with TensorFileWriter(staged, specs, state.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, state.tensors[spec.name])
        path = named(prefix, "state", writer.sha256, ".safetensors")
        context.store.put(path, staged, digest=writer.sha256)
    return path, writer.sha256


def _tensors(file: TensorFile) -> dict[str, Any]:
    """The tensors in the order of the file, in which they are read, and the result is written and hashed."""
    return {spec.name: file.tensor(spec.name) for spec in file.specs_in_file_order}
