"""The environment of an evaluator: a command that judges one model, and is run once for each evaluation.

It has no address of the bus and no events: the command's end says that it is done.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from flavor.programs.trainer_environment import TrainerFiles, trainer_environment

ROLE = "evaluator"
"""The value of `FLAVOR_ROLE` by which `flavor.cook.utils` knows that it is called by an evaluator."""
_KEPT_OUT = (
    *("FLAVOR_REDIS_URL", "FLAVOR_JOIN", "FLAVOR_TLS_CA", "FLAVOR_TLS_CERT", "FLAVOR_TLS_KEY"),
    *("FLAVOR_PROXY", "FLAVOR_EDGE", "FLAVOR_RELAY"),
)


def folders_named(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment by which the folders of a site that only judges are chosen (`Workspace.prepare`).

    `WEIGHT_PATH` names the file of the model, as in images of the ancestor.
    """
    own = {name: value for name, value in environment.items() if name != "LOCAL_MODEL_PATH"}
    return {**own, "GLOBAL_MODEL_PATH": model} if (model := own.get("WEIGHT_PATH")) else own


def evaluator_environment(
    base: Mapping[str, str],
    files: TrainerFiles,
    *,
    round_: int,
    rounds: int,
    run: str,
    client: str,
    settings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return what an evaluator finds in its environment: what a trainer finds, without the bus, and its round.

    `files` are those of the evaluation: the judged model is at `GLOBAL_MODEL_PATH`, which `WEIGHT_PATH` names as well.
    `round_` is the round that has made the model.
    """
    found = trainer_environment(base, files, rounds=rounds, run=run, client=client, settings=settings)
    return {
        **{name: value for name, value in found.items() if name not in _KEPT_OUT},
        "WEIGHT_PATH": os.fspath(files.global_model),
        "FLAVOR_ROUND": str(round_),
        "FLAVOR_ROLE": ROLE,
    }
