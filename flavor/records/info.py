"""Client information: what one site reports in `info.json`, and what is refused.

`flavor.records.merging` merges the infos of a round.

Plain Python, because a trainer imports it: numbers may be numpy's or torch's, and are written as JSON's own.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flavor.errors import InvalidInfo
from flavor.printable import BLANKS
from flavor.records.counts import LARGEST, PREFIX, checked_list, is_count
from flavor.records.not_finite import FIELD as NOT_FINITE
from flavor.records.not_finite import not_finite_of, text_of, word_of

FILE_NAME = "info.json"
MERGED_NAME = "merged-info.json"
"""The merged information, beside the global model in a trainer's folder."""
CONFUSION = tuple(f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn"))
UNCOUNTED = -1
"""The value of a cell of the confusion matrix that the training script does not count."""
MAX_BYTES = 64 * 1024
"""An info.json beyond this is refused unread: it comes from another party."""
LONGEST_NAME = 200
"""Characters of the name of a metric, or of an entry of the metadata."""

MOST_METRICS = 2048
"""Metrics in one info.json, those of the confusion matrix included: `MAX_BYTES` has no room for many more."""
MOST_EXAMPLES = 10**12
"""The largest `datasetSize`. Sums over thousands of sites stay whole in JSON, whose readers have 53 bits for them."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that no name has: controls, what turns or hides the text around it, halves of characters."""
_NOTHING = re.compile(f"[{BLANKS}\u034f\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Letters that show nothing, and marks that alone show nothing, such as Unicode's selectors of variants."""
_MOST_PROBLEMS = 20

Info = dict[str, dict[str, Any]]

_REQUIRED = ("epoch", "datasetSize", "importance")
LOCAL_STEPS = "localSteps"
"""The entry of the metadata that says how many steps a script has taken in its round."""
MOST_STEPS = 10**12
"""The largest `localSteps`."""


def checked_info(value: object, *, where: str = "info") -> Info:
    """`value` with plain numbers, if it is a valid client information; else `InvalidInfo` naming every bad field.

    `metadata` needs `epoch` and `datasetSize` (integers, `datasetSize` from 0 to `MOST_EXAMPLES`) and `importance` (a
    number), and may have `localSteps` (a number above 0, at most `MOST_STEPS`). `metrics` needs the four
    `basic/confusion_*` numbers, which are -1 where it has counts and none of the four; further metrics, up to
    `MOST_METRICS`, are numbers under any name of characters that can be seen. A count, whose name begins with `count/`,
    is a number or a flat list of finite numbers (`flavor.records.counts`). A number that is None, NaN or infinite (the
    AUC of a site with one class) is None: missing at this site, and
    `metadata.notFinite` says which of these are NaN or infinite (`flavor.records.not_finite`). Numpy's and torch's
    scalars become plain numbers, in further `metadata` too.
    """
    problems: list[str] = []
    metadata = _part(value, "metadata", problems)
    metrics = _part(value, "metrics", problems)
    checked: Info = {"metadata": dict(metadata or {}), "metrics": {}}
    if metadata is not None:
        for name in _REQUIRED[:2]:
            checked["metadata"][name] = _integer(metadata, name, problems)
        checked["metadata"]["importance"] = _number(metadata, "metadata", "importance", problems)
    if metrics is not None:
        if any(map(_is_of_counts, metrics)) and not any(cell in metrics for cell in CONFUSION):
            metrics = {**dict.fromkeys(CONFUSION, UNCOUNTED), **metrics}
        if lacking := [cell for cell in CONFUSION if cell not in metrics]:
            problems.append(
                f"metrics lacks {', '.join(map(repr, lacking))}: report the four numbers, -1 each if the script does "
                "not count them, or the counts of flavor.cook.metrics in their place (binary_counts(labels, scores))"
            )
            metrics = {**dict.fromkeys(lacking, UNCOUNTED), **metrics}
        for name in (*CONFUSION, *(name for name in metrics if name not in CONFUSION)):
            checked["metrics"][str(name)] = _metric(metrics, name, problems)
    if metadata is not None and LOCAL_STEPS in metadata:
        checked["metadata"][LOCAL_STEPS] = _local_steps(metadata, problems)
    for name, given in (metadata or {}).items():
        if name in _REQUIRED or name == LOCAL_STEPS:
            continue
        plain = checked["metadata"][name] = _plain(given)
        if not isinstance(name, str) or not isinstance(plain, str | int | float | None):
            problems.append(f"metadata[{name!r}] must be a text or a number, not {_shown(given)}")
    _note_not_finite(checked, metrics or {})
    problems += [
        f"the name {name[:40]!r}… has {len(name)} characters, and {LONGEST_NAME} at most are taken"
        for name in (*(metadata or {}), *(metrics or {}))
        if isinstance(name, str) and len(name) > LONGEST_NAME
    ]
    problems += [
        f"the name {name[:60]!a} has characters that cannot be seen, as control characters: leave them out"
        for name in (*(metadata or {}), *(metrics or {}))
        if isinstance(name, str) and has_unseen(name)
    ]
    problems += [
        f"{part} has an entry whose name is empty: give it one"
        for part, entries in (("metadata", metadata), ("metrics", metrics))
        if any(isinstance(name, str) and not name.strip() for name in entries or {})
    ]
    if metrics is not None and len(metrics) > MOST_METRICS:
        problems.append(f"there are {len(metrics)} metrics, and {MOST_METRICS} at most are taken: report fewer")
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise InvalidInfo(f"{where}: {'; '.join(problems[:_MOST_PROBLEMS])}{more}")
    return checked


def _note_not_finite(checked: Info, given: Mapping[str, Any]) -> None:
    """Add to `metadata.notFinite` which of the `given` metrics are infinite or NaN."""
    missing = [
        name for name, value in given.items() if checked["metrics"].get(str(name), 0) is None and value is not None
    ]
    found = {str(name): word for name in missing if (word := word_of(_scalar(given[name]))) is not None}
    if found:
        checked["metadata"][NOT_FINITE] = text_of(not_finite_of(checked) | found)


def completed(value: object, round_: int) -> object:
    """Return the information with what an evaluator need not say; anything but a mapping as it is.

    `epoch` is the round that has made the model, `importance` is 1, and cells of a confusion matrix are not counted.
    """
    if not isinstance(value, Mapping):
        return value
    metadata, metrics = value.get("metadata"), value.get("metrics")
    made: dict[Any, Any] = dict(value)
    if isinstance(metadata, Mapping):
        made["metadata"] = {"epoch": round_, "importance": 1.0, **metadata}
    if isinstance(metrics, Mapping):
        made["metrics"] = {**dict.fromkeys(CONFUSION, UNCOUNTED), **metrics}
    return made


def has_unseen(name: str) -> bool:
    """Whether a name has characters that cannot be seen, such as control characters: two names could look alike."""
    if _NOTHING.search(name):
        return True
    return not name.isprintable() and any(unicodedata.category(letter) in _UNSEEN for letter in name)


def _part(value: object, name: str, problems: list[str]) -> Mapping[str, Any] | None:
    part = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(part, Mapping):
        return part
    problems.append(f"{name} is missing" if part is None else f"{name} must be a dict, not {type(part).__name__}")
    return None


def _integer(part: Mapping[str, Any], name: str, problems: list[str]) -> int:
    if name not in part:
        problems.append(f"metadata.{name} is missing (int)")
        return 0
    value = part[name]
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        problems.append(f"metadata.{name} must be an int, not {_shown(value)}")
        return 0
    if name == "datasetSize" and number < 0:
        problems.append(f"metadata.datasetSize must not be negative, and is {number}")
    if name == "datasetSize" and number > MOST_EXAMPLES:
        problems.append(f"metadata.datasetSize is absurdly large: {MOST_EXAMPLES} examples at most are taken")
        return 0
    if abs(number) >= 2**63:
        problems.append(f"metadata.{name} is absurdly large")
        return 0
    return number


def _number(part: Mapping[str, Any], section: str, name: str, problems: list[str]) -> float | int:
    if name not in part:
        problems.append(f"{section}[{name!r}] is missing (number)")
        return 0
    value = part[name]
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        problems.append(f"{section}[{name!r}] must be a number, not {_shown(value)}")
        return 0
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError, RuntimeError):
        problems.append(f"{section}[{name!r}] must be a number, not {_shown(value)}")
        return 0
    if not math.isfinite(number) or abs(number) > LARGEST:
        problems.append(f"{section}[{name!r}] is {number}: a finite number is needed, of {LARGEST:g} at most")
        return 0
    return value if isinstance(value, int) else number


def _local_steps(metadata: Mapping[str, Any], problems: list[str]) -> float | int:
    value = _scalar(metadata[LOCAL_STEPS])
    if isinstance(value, bool | str | bytes) or not isinstance(value, int | float) or not 0 < value <= MOST_STEPS:
        problems.append(
            f"metadata.{LOCAL_STEPS} is {_shown(value)}: the number of steps that were taken in the round is needed, "
            f"above 0 and {MOST_STEPS:g} at most; leave it out where it is not known"
        )
        return 1
    return value


def _is_of_counts(name: object) -> bool:
    return isinstance(name, str) and is_count(name)


def _metric(part: Mapping[str, Any], name: str, problems: list[str]) -> Any:
    """A metric's number, or the list of a count; None where it is missing at this site."""
    if name in part and part[name] is not None and _is_of_counts(name):
        try:
            if (found := checked_list(name, part[name])) is not None:
                return found
        except ValueError as error:
            problems.append(f"metrics[{name!r}] {error}")
            return None
    if name in part and _plain(part[name]) is None:
        return None
    if name in part and not _is_of_counts(name) and isinstance(part[name], list | tuple):
        problems.append(f"metrics[{name!r}] is a list, which only counts may be, whose names begin with {PREFIX!r}")
        return None
    return _number(part, "metrics", name, problems)


def _plain(value: Any) -> Any:
    """Turn a scalar of numpy or torch into Python's own, and a float that is not finite into None.

    Any other value is returned unchanged.
    """
    value = _scalar(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _scalar(value: Any) -> Any:
    """Return a scalar of numpy or torch as Python's own, and any other value unchanged."""
    if not isinstance(value, str | int | float | None) and math.prod(getattr(value, "shape", (0,))) == 1:
        with contextlib.suppress(Exception):  # the caller's message names the value
            value = value.item()
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:40]} ({type(value).__name__})"


def read_info(path: Path) -> Info:
    """The client information in the file at `path`; `InvalidInfo` when it is absent, cut off or wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return parse_info(data, where=str(path))
    except FileNotFoundError:
        raise InvalidInfo(f"{path}: not written: call SaveInfoJson(...) before SetEvent('TrainFinished')") from None


def info_bytes(info: Info) -> bytes:
    """A client's information as it is handed in; `InvalidInfo` when that would be too large."""
    data = json.dumps(info, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        raise InvalidInfo(
            f"{FILE_NAME}: {len(data)} bytes, and {MAX_BYTES} at most are taken: report fewer metrics, or "
            "histograms of fewer bins"
        )
    return data


def parse_info(data: bytes, *, where: str) -> Info:
    """The client information in `data`; `InvalidInfo` when it is too large, cut off or wrong."""
    if len(data) > MAX_BYTES:
        raise InvalidInfo(f"{where}: larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode())  # with NaN and Infinity, which Python's own json.dump writes
    except UnicodeDecodeError:
        raise InvalidInfo(f"{where}: not a JSON file: write it with SaveInfoJson") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInfo(f"{where}: not complete JSON ({error}): write it with SaveInfoJson") from None
    return checked_info(value, where=where)
