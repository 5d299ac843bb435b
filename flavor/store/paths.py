"""Object paths: where each object of a run lies in the store, and which paths are legal.

::

    runs/RUN/run.json                       how the run began
    runs/RUN/manifests/round-N.json         what round N was made of; `staged-N-DIGEST.json` before it is committed
    runs/RUN/global/N-WHAT-DIGEST.EXT       what round N made, and as round 0 the initial weights: model, info, state
    runs/RUN/clients/SITE/N-WHAT-DIGEST.EXT what a site hands in: update, info
    runs/RUN/clients/SITE/N-result-K-DIGEST.json  what a site measures in evaluation K of round N's model
    runs/RUN/clients/SITE/N-result-K-report-DIGEST.json  the site's result.json; image-DIGEST.png and .jpg beside it
    runs/RUN/evaluations/N-K-WHAT-DIGEST.json  result-SITE, as a worker has taken it; merged, manifest; report-SITE and
                                               image-SITE, as a worker has taken them
    runs/RUN/accepted/N-SITE-WHAT-DIGEST.EXT  the same, once a worker has taken it out of its site's reach
    runs/RUN/disclosed/N-SITE.json          other sites were given the site's update of round N, or a model without it

Every folder is flat and has one kind of writer, so that one prefix is what a party may write or read: a site
writes below `clients/SITE/` and reads below `global/`. The `N` in a name has four digits or more.
"""

from __future__ import annotations

import re

from flavor.errors import BadObjectPath
from flavor.records.names import checked_name

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OF_ROUND = re.compile(
    r"runs/[^/]+/(?:manifests/(?:round|staged)-|global/|accepted/|evaluations/|clients/[^/]+/)([0-9]{1,9})[-.]"
)
_INFO = re.compile(r"-info-[0-9a-f]{1,64}\.json$")
_TAIL = re.compile(r"(?:update|info)-[A-Za-z0-9._]+")  # with no hyphen, so that it ends the name of a client
_OF_CLIENT = re.compile(
    rf"runs/[^/]+/(?:clients/([^/]+)/[0-9]{{4,9}}-|accepted/[0-9]{{4,9}}-([^/]+)-{_TAIL.pattern})[^/]*"
)
_RESULT = re.compile(r"runs/[^/]+/clients/([^/]+)/([0-9]{4,9})-result-([0-9]{1,9})-[^/]*")
_BESIDE_RESULT = re.compile(rf"{_RESULT.pattern.removesuffix('[^/]*')}(?:report|image)-[^/]*")
_MANIFEST = re.compile(r"round-([1-9][0-9]{0,8})\.json")


def run_prefix(run: str) -> str:
    """Return the prefix of all objects of one run."""
    return f"runs/{checked_name(run, 'run')}/"


def run_of(path: str) -> str:
    """Return the run that a path belongs to; '' for none."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "runs" else ""


def run_record_path(run: str) -> str:
    """Return the path of the record of a run's creation: its settings and its initial model."""
    return f"{run_prefix(run)}run.json"


def manifests_folder(run: str) -> str:
    """Return the folder of the manifests, of closed rounds and staged ones."""
    return f"{run_prefix(run)}manifests/"


def manifest_path(run: str, round_: int) -> str:
    """Return the path of the manifest of a closed round."""
    return f"{manifests_folder(run)}round-{round_}.json"


def staged_manifest_prefix(run: str, round_: int) -> str:
    """Return the prefix of a round's manifests that are staged and not committed yet."""
    return f"{manifests_folder(run)}staged-{round_}"


def manifest_round(path: str) -> int | None:
    """Return the round whose manifest has this path; None for other paths."""
    match = _MANIFEST.fullmatch(path.rpartition("/")[2])
    return int(match[1]) if match else None


def global_folder(run: str) -> str:
    """Return the folder that sites read: what the rounds made, and the initial weights."""
    return f"{run_prefix(run)}global/"


def global_prefix(run: str, round_: int) -> str:
    """Return the prefix of what a round made: its global model, information and server state.

    Round 0 stands for the initial model.
    """
    return f"{global_folder(run)}{round_:04d}-"


def checked_global(path: str, run: str | None = None) -> str:
    """Return `path` if it is a place of a global model, its information or its server state.

    Sites do not write there. Raises `BadObjectPath` for any other place, such as a client's folder, and for a run
    other than `run`.
    """
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "runs" or parts[2] != "global" or run not in (None, parts[1]):
        where = f" of run {run!r}" if run is not None else ""
        raise BadObjectPath(
            f"object path {path[:200]!r} is not in the folder of the global models{where}, and is not read"
        )
    return checked_path(path)


def clients_folder(run: str) -> str:
    """Return the folder above all clients' folders."""
    return f"{run_prefix(run)}clients/"


def client_folder(run: str, client: str) -> str:
    """Return the folder that one client may write to."""
    return f"{clients_folder(run)}{checked_name(client, 'client')}/"


def update_prefix(run: str, round_: int, client: str) -> str:
    """Return the prefix of the objects that a client hands in for one round."""
    return f"{client_folder(run, client)}{round_:04d}-"


def result_prefix(run: str, round_: int, number: int, client: str) -> str:
    """Return the prefix of what a client hands in for one evaluation of this round's model."""
    return f"{client_folder(run, client)}{round_:04d}-result-{number}-"


def result_of(path: str) -> tuple[str, int, int] | None:
    """Return the client, and the round and number of the evaluation, for which a client has handed this object in.

    None for any object but a result, its report and its images in a client's folder.
    """
    match = _RESULT.fullmatch(path)
    return (match[1], int(match[2]), int(match[3])) if match else None


def belongs_to_result(path: str) -> bool:
    """Whether this is a report or an image of a result in a client's folder, and not the result itself."""
    return bool(_BESIDE_RESULT.fullmatch(path))


def handed_report(run: str, round_: int, number: int, client: str, digest: str) -> str:
    """Return the path of the result.json that a client hands in for one evaluation."""
    return f"{result_prefix(run, round_, number, client)}report-{digest[:16]}.json"


def handed_image(run: str, round_: int, number: int, client: str, digest: str, extension: str) -> str:
    """Return the path of an image that a client hands in with its result.json."""
    return f"{result_prefix(run, round_, number, client)}image-{digest[:16]}{extension}"


def taken_report(run: str, round_: int, number: int, client: str, digest: str) -> str:
    """Return the path of a client's result.json as a worker has taken it."""
    return named(evaluation_prefix(run, round_, number), f"report-{checked_name(client, 'client')}", digest, ".json")


def taken_image(run: str, round_: int, number: int, client: str, digest: str, extension: str) -> str:
    """Return the path of a client's image as a worker has taken it."""
    return named(evaluation_prefix(run, round_, number), f"image-{checked_name(client, 'client')}", digest, extension)


def evaluations_folder(run: str) -> str:
    """Return the folder of what came of evaluations."""
    return f"{run_prefix(run)}evaluations/"


def evaluation_prefix(run: str, round_: int, number: int) -> str:
    """Return the prefix of what came of one evaluation."""
    return f"{evaluations_folder(run)}{round_:04d}-{number}-"


def disclosed_folder(run: str) -> str:
    """Return the folder that says whose updates other sites were given."""
    return f"{run_prefix(run)}disclosed/"


def disclosed_prefix(run: str, round_: int) -> str:
    """Return the prefix of what says whose updates of this round other sites were given."""
    return f"{disclosed_folder(run)}{round_:04d}-"


def accepted_folder(run: str) -> str:
    """Return the folder of the objects that workers have taken out of the clients' folders."""
    return f"{run_prefix(run)}accepted/"


def accepted_path(path: str) -> str:
    """Return the path to which a worker takes the object `path`, which lies in a client's folder."""
    folder, _, name = path.rpartition("/")
    clients, _, client = folder.rpartition("/")
    round_, _, rest = name.partition("-")
    return f"{clients.removesuffix('clients')}accepted/{round_}-{client}-{rest}"


def accepted_prefix(run: str, round_: int, client: str) -> str:
    """Return the prefix of the objects that were taken from this client in this round."""
    return f"{accepted_folder(run)}{round_:04d}-{checked_name(client, 'client')}-"


def is_handed_in_by(path: str, run: str, round_: int, client: str) -> bool:
    """Whether a client may hand this object in for this round: the object lies directly in the client's folder.

    Objects in folders below are refused, because a folder there could be replaced by a link.
    """
    prefix = update_prefix(run, round_, client)
    return path.startswith(prefix) and bool(_TAIL.fullmatch(path.removeprefix(prefix)))


def is_update_of(path: str, run: str, round_: int, client: str) -> bool:
    """Whether a client may hand this object in for this round, or a worker has taken it from the client's folder."""
    prefix = accepted_prefix(run, round_, client)
    taken = path.startswith(prefix) and bool(_TAIL.fullmatch(path.removeprefix(prefix)))
    return taken or is_handed_in_by(path, run, round_, client)


def client_of(path: str) -> str:
    """Return the client that has handed in the object `path`; '' for objects of other parties."""
    match = _OF_CLIENT.fullmatch(path)
    return (match[1] or match[2]) if match else ""


def is_of_a_client(path: str) -> bool:
    """Whether a client has handed in this object: it lies in a client's folder, or was taken from there."""
    return path.split("/")[2:3] in (["clients"], ["accepted"])


def round_of(path: str) -> int:
    """Return the round that a path belongs to; 0 for none."""
    match = _OF_ROUND.match(path)
    return int(match[1]) if match else 0


def is_info(path: str) -> bool:
    """Whether the path is that of the information of a client or of a round."""
    return bool(_INFO.search(path))


def named(prefix: str, stem: str, digest: str, extension: str) -> str:
    """Return the path of an object. The digest in its name makes a repeated upload the same object."""
    return f"{prefix}{stem}-{digest[:16]}{extension}"


def is_object_path(path: str) -> bool:
    """Whether an object can lie under this path: it is relative and stays inside the store."""
    return all(_PART.fullmatch(part) for part in path.split("/"))


def checked_path(path: str) -> str:
    """Return `path` if it is relative and stays inside the store. Raises `BadObjectPath` otherwise."""
    if not is_object_path(path):
        raise BadObjectPath(
            f"object path {path[:200]!r} is refused: parts of letters, digits, '.', '_' and '-', none hidden or '..'"
        )
    return path
