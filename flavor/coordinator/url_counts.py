"""How many objects a site gets URLs to write: each takes room in the bucket until what no record names is removed."""

from __future__ import annotations

from collections import defaultdict

from flavor.records.evaluation_report import MOST_IMAGES
from flavor.store.paths import belongs_to_result, is_info
from flavor.store.url_rights import Occasion

MOST_HANDED_IN = 8
"""So many times a site may hand in something else for one occasion, as when it starts and trains again."""
_MOST_OCCASIONS = 256
"""Number of occasions of one client that are counted: older ones are over."""


class UrlCounts:
    """Counts the objects for which each client got URLs to write, for each task of a round and each evaluation."""

    def __init__(self) -> None:
        self._paths: defaultdict[str, dict[Occasion, set[str]]] = defaultdict(dict)

    def refusal(self, client: str, path: str, occasion: Occasion) -> str:
        """Count the object, which may be asked for again; return why there are too many, or ''."""
        occasions = self._paths[client]
        if occasion not in occasions and len(occasions) >= _MOST_OCCASIONS:
            del occasions[next(iter(occasions))]
        paths = occasions.setdefault(occasion, set())
        if path in paths:
            return ""
        kind = is_info(path), belongs_to_result(path)
        most = MOST_HANDED_IN * (1 + MOST_IMAGES if belongs_to_result(path) else 1)
        found = sum((is_info(each), belongs_to_result(each)) == kind for each in paths)
        if found >= most:
            of = "evaluation" if occasion.evaluation is not None else "round"
            return f"it has begun {found} uploads of this kind in this {of}, and no more are given"
        paths.add(path)
        return ""
