"""Which run a result folder belongs to: a folder holds the results of one run, and of no program but flavor.

A hidden file names the run and its id. A folder that another release of flavor has written has no such file: it belongs
to a run whose recorded digest its newest global model has.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from flavor.atomic import write_json
from flavor.errors import FlavorError, InvalidRecord, InvalidSetting
from flavor.plain_file import read_plain
from flavor.records.run import RunView
from flavor.store.digests import sha256_file

MARK = ".flavor-results.json"
_MODEL = re.compile(r"round-(\d{4,9})\.[a-z]+")
_MOST_SHOWN = 3
_NOT_COUNTED = ("lost+found",)
"""Beside hidden files: what a file system of its own brings along."""

DigestOf = Callable[[int], str]
"""Returns the recorded digest of a round's global model, '' where there is none."""


def names_in(out: Path) -> list[str]:
    """Return the names in a folder, without hidden ones. Raises `InvalidSetting` for a folder that cannot be read."""
    try:
        return sorted(
            path.name for path in out.iterdir() if not path.name.startswith(".") and path.name not in _NOT_COUNTED
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidSetting(f"--out {out}: {error.strerror}") from None


def holds(names: list[str]) -> str:
    """Say what lies in a folder, in a few words."""
    shown, more = names[:_MOST_SHOWN], len(names) - _MOST_SHOWN
    last = f"{more} more" if more > 0 else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last


def owner_of(out: Path) -> tuple[str, str] | None:
    """Return the run and its id that a folder is marked with; None without a mark. Raises `InvalidSetting`."""
    try:
        mark = json.loads(read_plain(out / MARK))
        return str(mark["run"]), str(mark["run_id"])
    except FileNotFoundError:
        return None
    except InvalidRecord as error:
        raise InvalidSetting(f"{error}: it names the run of that folder") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidSetting(f"{out / MARK}, which names the run of that folder, cannot be read: {error}") from None


def check_unclaimed(out: Path) -> None:
    """Raise `InvalidSetting` unless the folder is missing or empty, for a run that begins."""
    if owner := owner_of(out):
        raise InvalidSetting(f"--out {out} holds the results of run {owner[0]!r}: name another folder")
    if names := names_in(out):
        raise InvalidSetting(
            f"--out {out} is not empty: it holds {holds(names)}, which would be mixed with the run's results: name "
            "another folder"
        )


def check_own(out: Path, run: str, view: RunView | None, digest_of: DigestOf) -> None:
    """Raise `InvalidSetting` unless the folder may take the results of this run; `view` is None before it begins."""
    owner = owner_of(out)
    if owner is None and not names_in(out):
        return
    if view is None:
        if owner and owner[0] == run:
            raise InvalidSetting(
                f"--out {out} holds the results of an earlier run {run!r}, which is not on this Redis: name another "
                f"folder, or, where Redis has lost the run, rebuild it first: flavor recover --run {run}"
            )
        check_unclaimed(out)
    elif owner is None:
        if not _has_models_of(out, view, digest_of):
            check_unclaimed(out)
    elif owner != (run, view.run_id):
        which = "another run" if owner[0] != run else "an earlier run"
        raise InvalidSetting(f"--out {out} holds the results of {which} {owner[0]!r}: name another folder")


def claim(out: Path, view: RunView, digest_of: DigestOf, *, is_own: bool = False) -> None:
    """Mark the folder as this run's. Raises `InvalidSetting` where it is another's.

    A folder without a mark is not looked into where it `is_own`: the caller has made it for this run.
    """
    if not (is_own and owner_of(out) is None):
        check_own(out, view.run, view, digest_of)
    if not (out / MARK).exists():
        write_json(out / MARK, {"run": view.run, "run_id": view.run_id})


def _has_models_of(out: Path, view: RunView, digest_of: DigestOf) -> bool:
    """Whether the newest global model of the folder is the one that the run has recorded for that round."""
    with contextlib.suppress(OSError, FlavorError):
        found = {int(match[1]): path for path in (out / "global").iterdir() if (match := _MODEL.fullmatch(path.name))}
        if found and max(found) <= view.round:
            digest = digest_of(max(found))
            return bool(digest) and sha256_file(found[max(found)])[0] == digest
    return False
