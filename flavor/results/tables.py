"""`metrics.csv` and `metrics-sites.csv`: a line for each round, and one for each site in each round."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from flavor.results.rounds import RoundResult
from flavor.store.info import write_whole

_FIXED = ("round", "seconds", "clients", "examples", "bytes")
_FIXED_OF_SITES = ("round", "site", "examples", "bytes")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def columns(names: Iterable[str], fixed: Sequence[str]) -> dict[str, str]:
    """For each metric the head of its column: its name, unless another column has that or a spreadsheet would run it.

    A metric `round` becomes `round (metric)`; `=cmd()` becomes `'=cmd()`, which is shown as it is written.
    """
    heads: dict[str, str] = {}
    taken = set(fixed)
    for name in names:
        head = f"'{name}" if name.startswith(_FORMULA) else name
        while head in taken:
            head += " (metric)"
        taken.add(head)
        heads[name] = head
    return heads


class Tables:
    """The two files of one result folder; they grow by a round at a time."""

    def __init__(self, out: Path) -> None:
        self._merged, self._sites = out / "metrics.csv", out / "metrics-sites.csv"
        self._names: tuple[list[str], list[str]] | None = None

    def write(self, rounds: Sequence[RoundResult], new: int) -> None:
        """Write them; the last `new` of the `rounds` are not in them yet."""
        names = (
            list(dict.fromkeys(name for each in rounds for name in each.metrics)),
            list(dict.fromkeys(name for each in rounds for site in each.sites for name in site.metrics)),
        )
        if names == self._names:
            newest = rounds[len(rounds) - new :] if new else []
            with self._merged.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(_rows(newest, names[0]))
            with self._sites.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(_site_rows(newest, names[1]))
            return
        write_whole(self._merged, _text([*_FIXED, *columns(names[0], _FIXED).values()], _rows(rounds, names[0])))
        heads = [*_FIXED_OF_SITES, *columns(names[1], _FIXED_OF_SITES).values()]
        write_whole(self._sites, _text(heads, _site_rows(rounds, names[1])))
        self._names = names


def _text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(heads)
    writer.writerows(rows)
    return text.getvalue()


def _rows(rounds: Iterable[RoundResult], names: Sequence[str]) -> list[list[object]]:
    return [
        [each.round, each.seconds, len(each.clients), each.examples, each.bytes]
        + [each.metrics.get(name, "") for name in names]
        for each in rounds
    ]


def _site_rows(rounds: Iterable[RoundResult], names: Sequence[str]) -> list[list[object]]:
    return [
        [each.round, site.site, site.examples, site.bytes, *(site.metrics.get(name, "") for name in names)]
        for each in rounds
        for site in each.sites
    ]
