"""The information of an evaluator that reports in a result.json: alone, or beside an info.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flavor.errors import InvalidInfo, InvalidReport
from flavor.records.evaluation_report import DIGEST_NAME, FILE_NAME, Report
from flavor.records.info import Info, checked_info, completed
from flavor.records.not_finite import NULL, not_finite_of, shown
from flavor.records.objects import is_digest


def with_report(info: Info | None, report: Report, round_: int, *, digest: str) -> Info:
    """Return the information of an evaluator that has written a result.json, and perhaps an info.json as well.

    The values of its tables are metrics, beside those of the info.json, and `digest` names the report that is handed
    in. `metadata.notFinite` says which of these are infinite or NaN, as for those of an info.json. Raises
    `InvalidReport` where the two files contradict each other.
    """
    if info is not None:
        contradiction(info, report)
    given: Mapping[str, Any] = info or {"metadata": {"datasetSize": report.dataset_size}, "metrics": {}}
    whole = {
        "metadata": {**given["metadata"], DIGEST_NAME: digest},
        "metrics": {**given["metrics"], **report.metrics, **_floats(report.not_finite)},
    }
    return checked_info(completed(whole, round_), where=FILE_NAME)


def _floats(words: Mapping[str, str]) -> dict[str, float]:
    return {name: float(word) for name, word in words.items()}


def report_digest(info: Info) -> str | None:
    """Return the SHA-256 of the report that an evaluator's information names; None for none. Raises `InvalidInfo`."""
    digest = info["metadata"].get(DIGEST_NAME)
    if digest is not None and not is_digest(digest):
        raise InvalidInfo(f"info.json: metadata.{DIGEST_NAME} is no SHA-256 in hex")
    return digest


def without_report(info: Info) -> Info:
    """Return the information of an evaluator that has written no result.json: it names none."""
    return {**info, "metadata": {name: value for name, value in info["metadata"].items() if name != DIGEST_NAME}}


def contradiction(info: Info, report: Report) -> None:
    """Raise `InvalidReport` where an info.json says otherwise than a result.json of the same evaluation."""
    examples = info["metadata"]["datasetSize"]
    if examples != report.dataset_size:
        raise InvalidReport(f"{FILE_NAME}: metadata.datasetSize is {report.dataset_size}, and {examples} in info.json")
    words = not_finite_of(info)
    for name, value in report.metrics.items():
        if name not in info["metrics"]:
            continue
        own, word, own_word = info["metrics"][name], report.not_finite.get(name), words.get(name)
        if own != value or (word and own_word and word != own_word):
            raise InvalidReport(
                f"{FILE_NAME}: a table says that {name[:60]!r} is {_said(value, word)}, and info.json that it is "
                f"{_said(own, own_word)}"
            )


def _said(value: object, word: str | None) -> str:
    return shown(word or NULL) if value is None else str(value)[:60]
