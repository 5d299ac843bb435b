"""Aggregation by the rules of `aggregators`, over the store's own files."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregators import engine
from aggregators.registry import parse
from aggregators.state import ServerState
from flavor.bus.state import GlobalModel
from flavor.config import COMMAND, DEFAULT_AGGREGATOR
from flavor.errors import AggregatorFailed
from flavor.store.formats import TensorFile, TensorFileWriter, TensorSpec
from flavor.store.objects import ObjectStore
from flavor.store.paths import named
from workers.combination import Combined, Work
from workers.updates import open_global, open_updates

_SMALL_BYTES = 2 * 1024 * 1024
"""Below this, starting threads and mapping a file cost more than the aggregation."""

_rule = functools.lru_cache(parse)  # looking for third parties' entry points costs milliseconds


@dataclass(frozen=True)
class Engine:
    """`Combiner` by the run's `--aggregator` and `--server-step`."""

    threads: int

    def combine(self, work: Work, target: Path) -> Combined:
        """See `Combiner`. The new server state is put into the store, beside the model it belongs to."""
        config = work.config
        if config.is_opaque or config.aggregator == COMMAND:
            what = "carries opaque checkpoints" if config.is_opaque else f"was started with --aggregator {COMMAND}"
            raise AggregatorFailed(
                f"run {work.run!r} {what}, and this worker has no aggregator of its own: "
                "start it as `flavor-agg -m 'python aggregate.py'`"
            )
        verdicts = list(work.verdicts.values())
        updates = open_updates(work.store, verdicts, work.old)
        sizes = [float(verdict.info["metadata"]["datasetSize"]) for verdict in verdicts]
        weights = sizes if any(sizes) else None  # nobody counted examples: all weigh alike
        rule = _rule(config.aggregator or DEFAULT_AGGREGATOR, config.server_step)
        old = None
        if rule.needs_global:
            if work.old is None:
                rule = rule.without_global()
            else:
                old = open_global(work.store, work.old)
        with TensorFileWriter(target, updates[0].specs, updates[0].metadata) as writer:
            small = writer.size_bytes * len(updates) < _SMALL_BYTES
            result = engine.run(
                [update.tensors for update in updates],
                weights,
                reducer=rule.reducer,
                server_step=rule.server_step,
                global_model=_tensors(old) if old else None,
                state=_state(work.store, work.old) if rule.server_step.slots else None,
                out=None if small else writer.map(),
                completed=None if small else writer.completed,
                threads=1 if small else self.threads,
            )
            if small:
                for spec in writer.specs:
                    writer.write(spec.name, result.model[spec.name])
            state = result.state
            del result  # the mapped file is closed with the writer
        state_path, state_digest = _put_state(work, state) if state is not None else ("", "")
        return Combined(writer.sha256, writer.size_bytes, work.info, state_path, state_digest)


def _state(store: ObjectStore, model: GlobalModel | None) -> ServerState | None:
    """The server state that belongs to the old global model; None before the first step."""
    if model is None or not model.state_path:
        return None
    file = TensorFile.open(store.local(model.state_path, digest=model.state_digest))
    return ServerState.restore(_tensors(file), file.metadata)


def _put_state(work: Work, state: ServerState) -> tuple[str, str]:
    """Put the server state into the store: its path and SHA-256."""
    specs = [TensorSpec(key, array.dtype, array.shape) for key, array in state.tensors.items()]
    with work.store.stage() as staged:
        with TensorFileWriter(staged, specs, state.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, state.tensors[spec.name])
        path = named(work.prefix, "state", writer.sha256, ".safetensors")
        work.store.put(path, staged, digest=writer.sha256)
    return path, writer.sha256


def _tensors(file: TensorFile) -> dict[str, Any]:
    """The tensors in the order of the file, in which they are read, and the result is written and hashed."""
    return {spec.name: file.tensor(spec.name) for spec in file.specs_in_file_order}
