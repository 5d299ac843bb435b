"""`metrics.csv` and `metrics-sites.csv`: a line for each round, and one for each site in each round."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from flavor.atomic import write_whole
from flavor.printable import printable
from flavor.results.computed_columns import MARK
from flavor.results.rounds import RoundResult
from flavor.results.table_columns import MOST_COLUMNS, Ranks, Reported, TableColumns

FIXED = ("round", "seconds", "clients", "examples", "bytes")
FIXED_OF_SITES = ("round", "site", "examples", "bytes", "task_round", "staleness")
"""The last two say of which round's task the update is, and how many rounds before this one that was."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def columns(names: Iterable[str], fixed: Sequence[str]) -> dict[str, str]:
    """For each metric the head of its column: its name, unless another column has that or a spreadsheet would run it.

    A metric `round` becomes `round (metric)`; `=cmd()` becomes `'=cmd()`, which is shown as it is written. What no
    terminal should be shown, is spelled out.
    """
    heads: dict[str, str] = {}
    taken = set(fixed)
    for name in names:
        head = printable(f"'{name}" if name.startswith(_FORMULA) else name)
        while head in taken:
            head += MARK
        taken.add(head)
        heads[name] = head
    return heads


class Tables:
    """The two tables of one run, which grow by a round at a time: those of a result folder, unless others are named."""

    def __init__(
        self,
        out: Path,
        tell: Callable[[str], None] = print,
        *,
        merged: str = "metrics.csv",
        sites: str = "metrics-sites.csv",
    ) -> None:
        self._merged = Table(out / merged, FIXED, _rows, tell)
        self._sites = Table(out / sites, FIXED_OF_SITES, _site_rows, tell)

    def write(self, rounds: Sequence[RoundResult], ruled: Collection[str] = ()) -> None:
        """Write the rounds among `rounds` that are not in the tables yet; `ruled` as in `Table.write`."""
        self._merged.write(rounds, ruled)
        self._sites.write(rounds, ruled)


Rows = list[tuple[list[object], Mapping[str, float] | Mapping[str, float | str]]]
"""For each row, the values of the fixed columns, and its metrics: numbers, or words for what is no finite number."""


class _OfRound(Reported, Protocol):
    """What has lines in a table."""

    @property
    def round(self) -> int: ...


_Row = TypeVar("_Row", bound=_OfRound)


class Table(Generic[_Row]):
    """One table: appended to, and rewritten when a column is added. `further` is the folder that has all metrics."""

    def __init__(
        self,
        path: Path,
        fixed: Sequence[str],
        rows: Callable[[Iterable[_Row]], Rows],
        tell: Callable[[str], None],
        *,
        further: str = "info",
    ) -> None:
        self._further = further
        self._path, self._fixed, self._rows, self._tell = path, fixed, rows, tell
        self._columns, self._names = TableColumns(), list[str]()
        self._looked = 0  # rounds whose names are known
        self._written: int | None = None  # rounds that are in the file; None when it is to be written anew
        self._told = False

    def write(self, rounds: Sequence[_Row], ruled: Collection[str] = ()) -> None:
        """Write the lines of what is new among `rounds`; `ruled`, the metrics of rules, have the first columns."""
        if self._written == len(rounds):
            return
        is_new = self._take_names(rounds, ruled)
        first, self._written = self._written, None  # a write that fails halfway leaves half a line
        if first is None or is_new:
            heads = [*self._fixed, *columns(self._names, self._fixed).values()]
            write_whole(self._path, self._text(rounds, heads))
        else:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                file.write(self._text(rounds[first:]))
        self._written = len(rounds)

    def _take_names(self, rounds: Sequence[_Row], ruled: Collection[str]) -> bool:
        """Whether new rounds bring other columns."""
        left_out = None
        for each in rounds[self._looked :]:
            ranks = Ranks(each, ruled)
            for name in dict.fromkeys(name for _, metrics in self._rows([each]) for name in metrics):
                gone = self._columns.take(name, ranks.of(name))
                left_out = (gone, each.round) if left_out is None and gone is not None else left_out
        self._looked = len(rounds)
        if left_out and not self._told:
            self._told = True
            name, round_ = left_out
            self._tell(
                f"{self._path} has {MOST_COLUMNS} metrics, as many as it takes, since round {round_}: "
                f"{printable(name)!r} and others stand in the folder {self._further} alone. Metrics of the run's rules "
                "have columns first, then those that most sites report, and of the others each site has its share"
            )
        before, self._names = self._names, self._columns.names
        return self._names != before

    def _text(self, rounds: Iterable[_Row], *heads: Sequence[str]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows(heads)
        for fixed, metrics in self._rows(rounds):
            writer.writerow([*fixed, *(metrics.get(name, "") for name in self._names)])
        return text.getvalue()


def _rows(rounds: Iterable[RoundResult]) -> Rows:
    return [
        ([each.round, each.seconds, len(each.clients), each.examples, each.bytes], each.metrics_and_sites)
        for each in rounds
    ]


def _site_rows(rounds: Iterable[RoundResult]) -> Rows:
    return [
        ([each.round, site.site, site.examples, site.bytes, site.task_round, site.staleness], site.metrics)
        for each in rounds
        for site in each.sites
    ]
