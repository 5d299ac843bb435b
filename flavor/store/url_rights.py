"""Which wishes of a site for URLs a run's coordinator grants, before any look at the run's present round."""

from __future__ import annotations

from dataclasses import dataclass

from flavor.records.evaluation_report import MOST_IMAGE_BYTES
from flavor.records.info import MAX_BYTES
from flavor.records.signed_urls import UrlUse, UrlWish
from flavor.store.paths import (
    belongs_to_result,
    checked_global,
    client_folder,
    is_handed_in_by,
    is_info,
    is_object_path,
    manifests_folder,
    result_of,
    round_of,
    run_record_path,
)

MOST_BYTES = 5 * 2**40
"""The largest object that S3 takes."""
_NOT_YOURS = "this site may read the run's global models, and write what it hands in, and nothing else"


@dataclass(frozen=True)
class Occasion:
    """For what a site writes an object: for its task of a round, or for an evaluation of the round's model."""

    round: int
    evaluation: int | None = None
    """The number of the evaluation; None for the task of the round."""


def occasion_of(wish: UrlWish, run: str, client: str) -> Occasion | None:
    """Return for what the client writes this object of the run; None for an object that is not the client's."""
    if not is_object_path(wish.path) or not wish.path.startswith(client_folder(run, client)):
        return None
    if (result := result_of(wish.path)) is not None:
        return Occasion(result[1], result[2]) if result[0] == client else None
    round_ = round_of(wish.path)
    return Occasion(round_) if is_handed_in_by(wish.path, run, round_, client) else None


def refusal_of(wish: UrlWish, run: str, client: str, *, most_update_bytes: int | None, shares_names: bool) -> str:
    """Return why this client gets no URL for this object at any time; '' where it may get one."""
    own = occasion_of(wish, run, client)
    if wish.use is UrlUse.GET:
        return "" if own or _may_read(wish.path, run, shares_names) else _NOT_YOURS
    if own is None:
        return _NOT_YOURS
    if wish.digest[:16] not in wish.path.rpartition("/")[2]:
        return "the object's name does not have the digest of what is to be written"
    most = _most_bytes(wish.path, most_update_bytes)
    if wish.size_bytes > most:
        return f"{wish.size_bytes} bytes are more than the {most} that this object may have"
    return ""


def _may_read(path: str, run: str, shares_names: bool) -> bool:
    if shares_names and (path == run_record_path(run) or path.startswith(manifests_folder(run))):
        return is_object_path(path)
    try:
        return "-state-" not in checked_global(path, run)
    except ValueError:
        return False


def _most_bytes(path: str, most_update_bytes: int | None) -> int:
    if belongs_to_result(path):
        return MOST_IMAGE_BYTES  # a report has fewer
    if is_info(path) or result_of(path) is not None:
        return MAX_BYTES
    return min(MOST_BYTES, most_update_bytes or MOST_BYTES)
