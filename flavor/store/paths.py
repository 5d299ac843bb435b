"""Object paths: where each thing of a run lies in the store, and what a legal path is."""

from __future__ import annotations

import re

from flavor.bus.names import checked_name
from flavor.errors import BadObjectPath

OPAQUE = "opaque"
"""What stands for the format of a checkpoint that nothing looks into."""
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def run_prefix(run: str) -> str:
    """Everything of one run."""
    return f"runs/{checked_name(run, 'run')}/"


def round_prefix(run: str, round_: int) -> str:
    """Everything of one round."""
    return f"{run_prefix(run)}rounds/{round_}/"


def global_prefix(run: str, round_: int) -> str:
    """What a round made: its global model, information and server state, and the manifest on its way."""
    return f"{round_prefix(run, round_)}global/"


def run_record_path(run: str) -> str:
    """The record of a run's creation: its settings and its initial model."""
    return f"{run_prefix(run)}run.json"


def manifest_path(run: str, round_: int) -> str:
    """The manifest of a closed round."""
    return f"{round_prefix(run, round_)}manifest.json"


def updates_prefix(run: str, round_: int) -> str:
    """The updates of one round: what `--keep-rounds` prunes."""
    return f"{round_prefix(run, round_)}clients/"


def update_prefix(run: str, round_: int, client: str) -> str:
    """What one client may write in one round."""
    return f"{updates_prefix(run, round_)}{checked_name(client, 'client')}/"


def named(prefix: str, stem: str, digest: str, extension: str) -> str:
    """An object's path below `prefix`; its digest in the name makes a repeated upload the same object."""
    return f"{prefix}{stem}-{digest[:16]}{extension}"


def checked_path(path: str) -> str:
    """`path` if it is relative and stays inside the store; raises `BadObjectPath`."""
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise BadObjectPath(
            f"object path {path[:200]!r} is refused: parts of letters, digits, '.', '_' and '-', none hidden or '..'"
        )
    return path
