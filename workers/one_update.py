"""Write the whole model of one site's update, as the site had trained it, also where it has sent a difference."""

from __future__ import annotations

from pathlib import Path

from flavor.config import RunConfig
from flavor.errors import RunError
from flavor.records.model import GlobalModel
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.store.paths import global_prefix
from flavor.store.protocol import ObjectStore
from workers.builtin import make
from workers.combiner import Work
from workers.reading import Reading

_PLAIN = {"aggregator": "fedavg", "server_step": None, "weights": "equal", "keep": (), "equal": ()}
"""The mean of one update is that update."""


def write_update(
    store: ObjectStore, view: RunView, round_: RoundView, base: GlobalModel | None, client: str, target: Path
) -> None:
    """Write the model that `client` has handed in for this closed round to the file `target`, as safetensors.

    `base` is the global model that the client trained from, to which an encoded update is a difference. Raises
    `StoreError` for an update that is gone, and `RunError` for a kind of checkpoint without tensors.
    """
    config = RunConfig.of_run(view.run, view.config, by=view.release)
    if not config.kind.has_tensors:
        raise RunError(
            f"run {view.run!r} has {config.checkpoint} checkpoints: flavor does not know which models they are"
        )
    verdict = round_.verdicts[client]
    make(
        Work(
            run=view.run,
            round=round_.round,
            config=config.model_copy(update=_PLAIN),
            store=store,
            prefix=global_prefix(view.run, round_.round),
            old=base,
            updates={client: verdict.inspected},
            constants={client: verdict.constants} if verdict.constants else {},
            infos={client: {"metadata": {"datasetSize": 1, "importance": 1.0}, "metrics": {}}},
            info={},
            opened=Reading(store),
        ),
        target,
        1,
    )
