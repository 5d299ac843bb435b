"""Says how a run will merge the metrics of a script's info.json."""

from __future__ import annotations

from collections.abc import Sequence

from flavor.printable import printable, shown_name
from flavor.records.counts import BOUND, POOLED, is_count
from flavor.records.info import CONFUSION, Info
from flavor.records.merging import WEIGHTED, merge_infos, not_merged

_MOST_NAMED = 3


def merged_as(info: Info) -> str:
    """Return in a few words which metrics will be means, which pooled and which sums; '' where there are none.

    Of the counts, those that a script has chosen itself are named: numbers, which tables show.
    """
    merged = merge_infos(["site"], [info])
    names = [name for name in merged["metrics"] if name not in CONFUSION and not name.endswith((WEIGHTED, BOUND))]
    pooled = [name for name in names if name.startswith(POOLED)]
    sums = [name for name in names if is_count(name) and not isinstance(merged["metrics"][name], list)]
    means = [name for name in names if name not in pooled and not is_count(name)]
    parts = [
        f"{how}: {_some(of)}" for how, of in (("as means", means), ("of all sites", pooled), ("as sums", sums)) if of
    ]
    if reasons := not_merged(merged):
        name, why = next(iter(reasons.items()))
        parts.append(f"not {shown_name(name)}: {printable(why)}")
    return f"merged {'; '.join(parts)}" if parts else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(shown_name, names[:_MOST_NAMED])) + more
