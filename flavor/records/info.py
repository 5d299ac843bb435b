"""Client information: what `info.json` must hold, and how a round's infos are merged.

Plain Python, because a trainer imports it: numbers may be numpy's or torch's, and are written as JSON's own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import operator
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flavor.errors import InvalidInfo

FILE_NAME = "info.json"
MERGED_NAME = "merged-info.json"
"""The merged information, beside the global model in a trainer's folder."""
WEIGHTED = " (weighted)"
CONFUSION = tuple(f"basic/confusion_{cell}" for cell in ("tp", "fp", "fn", "tn"))
UNCOUNTED = -1
"""The value of a cell of the confusion matrix that the training script does not count."""
MAX_BYTES = 64 * 1024
"""An info.json beyond this is refused unread: it comes from another party."""
LONGEST_NAME = 200
"""Characters of the name of a metric, or of an entry of the metadata."""

MOST_METRICS = 2048
"""Metrics in one info.json, those of the confusion matrix included: `MAX_BYTES` has no room for many more."""
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that no name has: controls, what turns or hides the text around it, halves of characters."""
_MOST_PROBLEMS = 20

LARGEST = 1e300
"""A number beyond this could not be averaged with others."""

Info = dict[str, dict[str, Any]]

_Value = TypeVar("_Value")
_REQUIRED = ("epoch", "datasetSize", "importance")


def checked_info(value: object, *, where: str = "info") -> Info:
    """`value` with plain numbers, if it is a valid client information; else `InvalidInfo` naming every bad field.

    `metadata` needs `epoch` and `datasetSize` (integers, `datasetSize` not negative) and `importance` (a number);
    `metrics` needs the four `basic/confusion_*` numbers; further metrics, up to `MOST_METRICS`, are numbers under any
    name of characters that can be seen. A metric that is None, NaN or infinite (the AUC of a site with one class) is
    None: missing at this site. Numpy's and torch's scalars become plain numbers, in further `metadata` too.
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
        for name in (*CONFUSION, *(name for name in metrics if name not in CONFUSION)):
            checked["metrics"][str(name)] = _metric(metrics, name, problems)
    for name, given in (metadata or {}).items():
        if name in _REQUIRED:
            continue
        plain = checked["metadata"][name] = _plain(given)
        if not isinstance(name, str) or not isinstance(plain, str | int | float | None):
            problems.append(f"metadata[{name!r}] must be a text or a number, not {_shown(given)}")
    problems += [
        f"the name {name[:40]!r}… has {len(name)} characters, and {LONGEST_NAME} at most are taken"
        for name in (*(metadata or {}), *(metrics or {}))
        if isinstance(name, str) and len(name) > LONGEST_NAME
    ]
    problems += [
        f"the name {name[:60]!a} has characters that cannot be seen, as control characters: leave them out"
        for name in (*(metadata or {}), *(metrics or {}))
        if isinstance(name, str) and not name.isprintable() and _has_unseen(name)
    ]
    if metrics is not None and len(metrics) > MOST_METRICS:
        problems.append(f"there are {len(metrics)} metrics, and {MOST_METRICS} at most are taken: report fewer")
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise InvalidInfo(f"{where}: {'; '.join(problems[:_MOST_PROBLEMS])}{more}")
    return checked


def _has_unseen(name: str) -> bool:
    return any(unicodedata.category(letter) in _UNSEEN for letter in name)


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
    if abs(number) >= 2**63:
        problems.append(f"metadata.{name} is absurdly large")
        return 0
    return number


def _number(part: Mapping[str, Any], section: str, name: str, problems: list[str]) -> float | int:
    if name not in part:
        problems.append(f"{section}[{name!r}] is missing (number; -1 if not tracked)")
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


def _metric(part: Mapping[str, Any], name: str, problems: list[str]) -> float | int | None:
    """A metric's number; None where it is missing at this site."""
    if name in part and _plain(part[name]) is None:
        return None
    return _number(part, "metrics", name, problems)


def _plain(value: Any) -> Any:
    """Turn a scalar of numpy or torch into Python's own, and a float that is not finite into None.

    Any other value is returned unchanged.
    """
    if not isinstance(value, str | int | float | None) and math.prod(getattr(value, "shape", (0,))) == 1:
        with contextlib.suppress(Exception):  # the caller's message names the value
            value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
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
        raise InvalidInfo(f"{FILE_NAME}: {len(data)} bytes, and {MAX_BYTES} at most are taken: report fewer metrics")
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


def sites_with(name: str, few: Mapping[str, int], sites: int) -> int:
    """Return how many of a round's `sites` report a merged metric, plain or weighted.

    `few` has the number of sites of each metric that not all of them report, by the name that they use.
    """
    return few.get(name, few.get(name.removesuffix(WEIGHTED), sites))


def is_of_most(count: int, sites: int) -> bool:
    """Return whether `count` of a round's `sites` are most of them: more than half, and more than one.

    What the only site of a round reports is no agreement of sites.
    """
    return count > 1 and 2 * count > sites


def by_sites(
    metrics: Mapping[str, _Value], few: Mapping[str, int], sites: int, known: Iterable[str] = ()
) -> dict[str, _Value]:
    """Return merged metrics in the order in which they are kept and shown, so that no single site displaces others'.

    First those that most of the `sites` report, the `known` ones of earlier rounds before others. Of the rest one known
    metric and one other in turn, those that more sites report first: one site may have been the first to report, and
    its metrics would always be the known ones. Equal ones stay in the order of `metrics`, as `merge_infos` makes it.
    `few` is as in `sites_with`.
    """
    ranks: dict[str, int] = {}
    for name in known:
        ranks.setdefault(name.removesuffix(WEIGHTED), len(ranks))
    means: dict[str, list[str]] = {}
    for name in metrics:
        means.setdefault(name.removesuffix(WEIGHTED), []).append(name)
    counts = {base: sites_with(names[0], few, sites) for base, names in means.items()}
    of_most = [base for base in means if is_of_most(counts[base], sites)]
    of_most.sort(key=lambda base: ranks.get(base, len(ranks)))
    rest = sorted((base for base in means if not is_of_most(counts[base], sites)), key=lambda base: -counts[base])
    turns = [[base for base in rest if base in ranks], [base for base in rest if base not in ranks]]
    return {name: metrics[name] for base in (*of_most, *_in_turn(turns)) for name in means[base]}


def _in_turn(lists: Iterable[Iterable[str]]) -> list[str]:
    """Return the first name of each list, then the second of each, and so on; each name once."""
    turns = itertools.zip_longest(*lists)
    return list(dict.fromkeys(name for turn in turns for name in turn if name is not None))


def sites_of(merged: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Return how many sites report each metric that not all report, and how many sites there are.

    That is what merged information says, which another release or a user's aggregator may have written: without a
    number of sites all metrics count as those of all.
    """
    metadata = merged["metadata"]
    few, names, number = metadata.get("metricSites"), metadata.get("clients"), metadata.get("sites")
    sites = len(names) if isinstance(names, list) else number if type(number) is int else 0
    if not isinstance(few, Mapping) or sites <= 0:
        return {}, max(1, sites)
    return {str(name): count for name, count in few.items() if type(count) is int and 0 <= count < sites}, sites


def summed(merged: Info) -> Info:
    """Return the merged information without the numbers of single sites: a list of one number per site becomes its sum.

    The sum stands in a list of one number, so that a script that adds up the list works with both. A count that a site
    does not track (-1 or null) is not added; where no site tracks it, the sum is -1. `sites`, the number of sites,
    replaces their names.
    """
    metadata, metrics = dict(merged["metadata"]), dict(merged["metrics"])
    metadata["sites"] = len(metadata.pop("clients"))
    for name in ("datasetSize", "importance"):
        metadata[name] = [sum(metadata[name])]
    for name, values in metrics.items():
        if name in CONFUSION and isinstance(values, list):
            tracked = [value for value in values if value is not None and value != -1]
            metrics[name] = [sum(tracked) if tracked else -1]
    return {"metadata": metadata, "metrics": metrics}


def merge_infos(clients: Sequence[str], infos: Sequence[Mapping[str, Any]]) -> Info:
    """The merged information of one round, clients in the order given.

    `datasetSize`, `importance` and the four `basic/confusion_*` are lists in client order (null where a client has
    none); every other metric is the plain mean over the clients that report it, and beside it, with the suffix
    ` (weighted)`, their mean weighted by `datasetSize` (the plain mean when those are all zero). A client's own metric
    of such a name is left out where that is computed. `epoch` is the first client's. Where not all clients report a
    metric, `metadata.metricSites` says how many do; one that none reports has no merged value. The metrics are in the
    order of the clients' own: one of each client in turn, those first that report fewest. So one that reports very many
    leaves room for those of others, wherever only the first ones are kept.
    """
    sizes = [info["metadata"]["datasetSize"] for info in infos]
    metrics: dict[str, Any] = {}
    sites: dict[str, int] = {}
    own: list[list[str]] = sorted((list(info["metrics"]) for info in infos), key=len)
    names = _in_turn(own)
    computed = {name + WEIGHTED for name in names if name not in CONFUSION}
    for name in names:
        if name in computed:
            continue
        values = [info["metrics"].get(name) for info in infos]
        if name in CONFUSION:
            metrics[name] = values
            continue
        reported = [(value, size) for value, size in zip(values, sizes, strict=True) if value is not None]
        if len(reported) < len(infos):
            sites[name] = len(reported)
        if not reported:
            continue
        plain = math.fsum(value / len(reported) for value, _ in reported)
        total = sum(size for _, size in reported)
        weighted = math.fsum(value * (size / total) for value, size in reported) if total else plain
        lowest, highest = min(value for value, _ in reported), max(value for value, _ in reported)
        metrics[name] = min(max(plain, lowest), highest)  # rounding leads beyond them where all values are equal
        metrics[name + WEIGHTED] = min(max(weighted, lowest), highest)
    return {
        "metadata": {
            "epoch": infos[0]["metadata"]["epoch"],
            "datasetSize": sizes,
            "importance": [info["metadata"]["importance"] for info in infos],
            "clients": list(clients),
            **({"metricSites": sites} if sites else {}),
        },
        "metrics": metrics,
    }
