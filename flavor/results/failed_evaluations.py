"""The evaluations without a result in a result folder: `evaluations/failed.json`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from flavor.atomic import write_json
from flavor.errors import InvalidRecord
from flavor.plain_file import read_plain
from flavor.printable import printable
from flavor.records.evaluation import AUTOMATIC, CENTRAL
from flavor.records.failed_evaluation import FailedEvaluation
from flavor.results.evaluated import Evaluated

_NAME = "failed.json"
_LONGEST_REASON = 200


def failed_in(folder: Path) -> list[FailedEvaluation]:
    """Return those that are in a folder of evaluations, in the order in which they were given up.

    Raises `InvalidRecord` for a file that is damaged.
    """
    path = folder / _NAME
    try:
        entries = json.loads(read_plain(path))
        if not isinstance(entries, list):
            raise ValueError("it is no list")
        return [FailedEvaluation.from_json(json.dumps(entry)) for entry in entries]
    except FileNotFoundError:
        return []
    except InvalidRecord:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(
            f"{path} is no list of failed evaluations: {printable(str(error))[:_LONGEST_REASON]}"
        ) from None


def write_failed(folder: Path, new: Collection[FailedEvaluation]) -> None:
    """Add evaluations to the file. Those that it has stay, also after the run was rebuilt on Redis without them.

    A damaged file is written again.
    """
    known = list[FailedEvaluation]()
    with suppress(InvalidRecord):
        known = failed_in(folder)
    every = {(each.round, each.number, each.opened_ms): each for each in [*known, *new]}
    if len(every) > len(known):
        folder.mkdir(mode=0o700, exist_ok=True)
        write_json(folder / _NAME, [each.kept() for each in sorted(every.values(), key=lambda each: each.over_ms)])


def failing_among(failed: Iterable[FailedEvaluation], found: Iterable[Evaluated]) -> list[FailedEvaluation]:
    """Return the newest by the sites, and on the operator's own data, where no newer one of its kind has a result."""
    newest = {each.number: each for each in failed}
    closed_ms: dict[int, int] = {}
    for each in found:
        closed_ms[each.number] = max(each.closed_ms, closed_ms.get(each.number, 0))
    return [
        newest[number]
        for number in (AUTOMATIC, CENTRAL)
        if number in newest and newest[number].over_ms > closed_ms.get(number, 0)
    ]


def why_failed(folder: Path, round_: int | None) -> str:
    """Return why the newest evaluations have no result, or those of a round's model; '' where none has failed."""
    newest = {each.number: each for each in failed_in(folder) if round_ in (None, each.round)}
    return "; ".join(newest[number].reason for number in (AUTOMATIC, CENTRAL) if number in newest)
