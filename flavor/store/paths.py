"""Object paths: where each thing of a run lies in the store, and what a legal path is.

::

    runs/RUN/run.json                       how the run began
    runs/RUN/manifests/round-N.json         what round N was made of; `staged-N-DIGEST.json` before it is committed
    runs/RUN/global/N-WHAT-DIGEST.EXT       what round N made, and as round 0 the initial weights: model, info, state
    runs/RUN/clients/SITE/N-WHAT-DIGEST.EXT what a site hands in: update, info
    runs/RUN/accepted/N-SITE-WHAT-DIGEST.EXT  the same, once a worker has taken it out of its site's reach

Every folder is flat, and each has one kind of writer, so that one prefix says what a party may write or read: a site
writes below `clients/SITE/` and reads below `global/`. The `N` in a name has four digits or more.
"""

from __future__ import annotations

import re

from flavor.errors import BadObjectPath
from flavor.records.names import checked_name

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OF_ROUND = re.compile(r"runs/[^/]+/(?:manifests/(?:round|staged)-|global/|accepted/|clients/[^/]+/)([0-9]{1,9})[-.]")
_INFO = re.compile(r"-info-[0-9a-f]{1,64}\.json$")
_TAIL = re.compile(r"(?:update|info)-[A-Za-z0-9._]+")  # with no hyphen, so that it ends the name of a client
_OF_CLIENT = re.compile(
    rf"runs/[^/]+/(?:clients/([^/]+)/[0-9]{{4,9}}-|accepted/[0-9]{{4,9}}-([^/]+)-{_TAIL.pattern})[^/]*"
)
_MANIFEST = re.compile(r"round-([1-9][0-9]{0,8})\.json")


def run_prefix(run: str) -> str:
    """Everything of one run."""
    return f"runs/{checked_name(run, 'run')}/"


def run_of(path: str) -> str:
    """The run that a path is of; '' for one of none."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "runs" else ""


def run_record_path(run: str) -> str:
    """The record of a run's creation: its settings and its initial model."""
    return f"{run_prefix(run)}run.json"


def manifests_folder(run: str) -> str:
    """The manifests of the closed rounds, and those on their way."""
    return f"{run_prefix(run)}manifests/"


def manifest_path(run: str, round_: int) -> str:
    """The manifest of a closed round."""
    return f"{manifests_folder(run)}round-{round_}.json"


def staged_manifest_prefix(run: str, round_: int) -> str:
    """What the name of a manifest begins with whose round is not committed yet."""
    return f"{manifests_folder(run)}staged-{round_}"


def manifest_round(path: str) -> int | None:
    """The round that a path is the manifest of, if it is one's."""
    match = _MANIFEST.fullmatch(path.rpartition("/")[2])
    return int(match[1]) if match else None


def global_folder(run: str) -> str:
    """What the rounds made, and the initial weights: what sites read."""
    return f"{run_prefix(run)}global/"


def global_prefix(run: str, round_: int) -> str:
    """What the names of that begin with which this round made: its global model, information and server state.

    Round 0 is the initial model's.
    """
    return f"{global_folder(run)}{round_:04d}-"


def checked_global(path: str, run: str | None = None) -> str:
    """`path` if a global model, its information or its server state can lie there: where rounds leave what they made.

    No site writes there in the course of things. Raises `BadObjectPath` for any other place, as a client's folder is,
    and for another run than `run`.
    """
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "runs" or parts[2] != "global" or run not in (None, parts[1]):
        where = f" of run {run!r}" if run is not None else ""
        raise BadObjectPath(
            f"object path {path[:200]!r} is not in the folder of the global models{where}, and is not read"
        )
    return checked_path(path)


def clients_folder(run: str) -> str:
    """The folders of the clients."""
    return f"{run_prefix(run)}clients/"


def client_folder(run: str, client: str) -> str:
    """What one client may write."""
    return f"{clients_folder(run)}{checked_name(client, 'client')}/"


def update_prefix(run: str, round_: int, client: str) -> str:
    """What the names of that begin with which a client hands in for one round."""
    return f"{client_folder(run, client)}{round_:04d}-"


def accepted_folder(run: str) -> str:
    """What workers have taken out of the clients' folders."""
    return f"{run_prefix(run)}accepted/"


def accepted_path(path: str) -> str:
    """Where a worker takes the object `path`, which lies in a client's folder."""
    folder, _, name = path.rpartition("/")
    clients, _, client = folder.rpartition("/")
    round_, _, rest = name.partition("-")
    return f"{clients.removesuffix('clients')}accepted/{round_}-{client}-{rest}"


def accepted_prefix(run: str, round_: int, client: str) -> str:
    """What the names of that begin with which was taken from this client in this round."""
    return f"{accepted_folder(run)}{round_:04d}-{checked_name(client, 'client')}-"


def is_handed_in_by(path: str, run: str, round_: int, client: str) -> bool:
    """Whether a client may hand this in for this round: it lies in its folder itself.

    Below its folder there is nothing: what is a folder today could be a link tomorrow.
    """
    prefix = update_prefix(run, round_, client)
    return path.startswith(prefix) and bool(_TAIL.fullmatch(path.removeprefix(prefix)))


def is_update_of(path: str, run: str, round_: int, client: str) -> bool:
    """The same, or whether it was taken from there."""
    prefix = accepted_prefix(run, round_, client)
    taken = path.startswith(prefix) and bool(_TAIL.fullmatch(path.removeprefix(prefix)))
    return taken or is_handed_in_by(path, run, round_, client)


def client_of(path: str) -> str:
    """The client that has handed in the object `path`; '' for what no client has."""
    match = _OF_CLIENT.fullmatch(path)
    return (match[1] or match[2]) if match else ""


def is_of_a_client(path: str) -> bool:
    """Whether the object lies where what clients hand in does: in a client's folder, or taken from there."""
    return path.split("/")[2:3] in (["clients"], ["accepted"])


def round_of(path: str) -> int:
    """The round that a path is of; 0 for one of none."""
    match = _OF_ROUND.match(path)
    return int(match[1]) if match else 0


def is_info(path: str) -> bool:
    """Whether this is the information of a client, or of a round."""
    return bool(_INFO.search(path))


def named(prefix: str, stem: str, digest: str, extension: str) -> str:
    """An object's path that begins with `prefix`; the digest in it makes a repeated upload the same object."""
    return f"{prefix}{stem}-{digest[:16]}{extension}"


def checked_path(path: str) -> str:
    """`path` if it is relative and stays inside the store; raises `BadObjectPath`."""
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise BadObjectPath(
            f"object path {path[:200]!r} is refused: parts of letters, digits, '.', '_' and '-', none hidden or '..'"
        )
    return path
