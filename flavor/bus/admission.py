"""A client's admission, as the client may read it, and the replacement of its key by the operator."""

from __future__ import annotations

from flavor.bus.connection import translated
from flavor.bus.runs import RunStore
from flavor.errors import InvalidSetting
from flavor.records.admission import Admission


def tell_admission(runs: RunStore, client: str, admission: Admission) -> None:
    """Tell a client whether it may take part, and why not: write its admission and publish it."""
    key = runs.keys.client(client).admission
    with translated(runs.where), runs.redis.pipeline(transaction=True) as step:
        step.hset(key, mapping=admission.to_hash())
        step.publish(key, "")
        step.execute()


def replace_key(runs: RunStore, client: str, public_key: str = "") -> None:
    """Pin this key for a client in place of another. Without a key, the next one that the client announces is pinned.

    For operators alone: no edge may write these hashes. The run may begin later; a run that exists keeps the replaced
    key, for its manifests. Raises `InvalidSetting` for a key that was replaced before.
    """
    if not runs.replace_key(client, public_key):
        raise InvalidSetting(
            f"--public-key: {client!r} had this key in run {runs.run!r} until an operator replaced it: a key that was "
            "replaced is pinned no more; name another"
        )
    if runs.find() is not None:
        what = "pinned by an operator" if public_key else "forgotten by an operator: the next one is pinned"
        runs.log("client.key_replaced", client=client, reason=f"its key is {what}")
