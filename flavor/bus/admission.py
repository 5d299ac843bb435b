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


def check_replaceable(runs: RunStore, client: str, public_key: str = "") -> None:
    """Raise what `replace_key` would raise, before anything has changed."""
    if public_key and public_key in runs.replaced().get(client, ()):
        raise _was_replaced(runs, client)
    runs.find()


def replace_key(runs: RunStore, client: str, public_key: str = "") -> None:
    """Pin this key for a client in place of another. Without a key, the next one that the client announces is pinned.

    For operators alone: no edge may write these hashes. The run may begin later; a run that exists keeps the replaced
    key, for its manifests. Raises `InvalidSetting` for a key that was replaced before; nothing has changed then. Raises
    `DamagedRecord` for a run whose record cannot be read; the key is replaced then, and the log does not say so.
    """
    if not runs.replace_key(client, public_key):
        raise _was_replaced(runs, client)
    if runs.find() is not None:
        what = "pinned by an operator" if public_key else "forgotten by an operator: the next one is pinned"
        runs.log("client.key_replaced", client=client, reason=f"its key is {what}")


def _was_replaced(runs: RunStore, client: str) -> InvalidSetting:
    return InvalidSetting(
        f"--public-key: an operator has replaced this key of {client!r} in run {runs.run!r}, and a replaced key is "
        "never pinned again: name another key"
    )
