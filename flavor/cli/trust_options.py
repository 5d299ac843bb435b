"""The options of `flavor verify` and `flavor recover` that say which records to trust."""

from __future__ import annotations

import re

import click

from flavor.errors import InvalidSetting

trust_option = click.option(
    "--trust",
    "trusted",
    multiple=True,
    metavar="KEY",
    help="Public key that you have from its owner: a file (aggregator.key.pub, client.key.pub, or a file with one key "
    "per line), or the key itself: `ed25519:HEX` of an aggregator, `CLIENT ed25519:HEX` of a client. May be repeated.",
)


_SHA256 = re.compile("[0-9a-f]{64}")
_RUN_ID = re.compile("[0-9a-f]{32}")

run_id_option = click.option(
    "--run-id",
    metavar="ID",
    default="",
    help="Id of the run, as `flavor serve`, `flavor-fl` and `flavor status --json` show it. It distinguishes the run "
    "from an earlier run of the same name.",
)


def check_ids(head: str, run_id: str) -> None:
    """Raise `InvalidSetting` unless `head` is a SHA-256 and `run_id` an id of a run; each may be ''."""
    if head and not _SHA256.fullmatch(head):
        raise InvalidSetting(f"--head {head[:80]!r} is no SHA-256: give all 64 hexadecimal digits that were printed")
    if run_id and not _RUN_ID.fullmatch(run_id):
        raise InvalidSetting(f"--run-id {run_id[:80]!r} is no run's id: give all 32 hexadecimal digits")
