"""Which metrics a rule of a run can name: some names can never have a value, because of what their parts mean."""

from __future__ import annotations

from flavor.records.counts import CENTRAL_PREFIX, COMPUTED, MERGE_PREFIX, POOLED, is_count
from flavor.records.merging import WEIGHTED, why_not_own


def why_no_value(name: str) -> str:
    """Return why no evaluation can have a metric of this name, and which names can have a value; '' where one can."""
    first = next((each for each in COMPUTED if name.startswith(each)), "")
    if first == MERGE_PREFIX:
        return f"no evaluation has it: names that begin with {first!r} are {COMPUTED[first]}"
    rest = name.removeprefix(first) if first else name.removesuffix(WEIGHTED)
    if first == CENTRAL_PREFIX:
        rest = rest.removeprefix(POOLED)
        if is_count(rest):
            return f"no evaluation has it: counts are not kept, and '{first}{POOLED}…' is computed of them"
    if not why_not_own(rest):
        return ""
    return f"no evaluation has it, because no evaluator can report {rest!r}: name {_with_value(name)}"


def _with_value(name: str) -> str:
    """Return names that can have a value, of the parts of one that cannot: `'worst/auc' or 'pooled/auc'`."""
    base, beginnings, is_weighted = name, dict[str, None](), False
    while why_not_own(base):
        found = next((each for each in COMPUTED if base.startswith(each)), "")
        if found != MERGE_PREFIX:
            beginnings[found] = None
        is_weighted |= not found
        base = base.removeprefix(found) if found else base.removesuffix(WEIGHTED)
    names = [f"{each}{base}" for each in beginnings if each] + ([f"{base}{WEIGHTED}"] if is_weighted else [])
    return " or ".join(map(repr, names))
