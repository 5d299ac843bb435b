"""Exports a run into files: two tables (CSV), or one JSON object. Each file is complete at any moment.

A file is written anew from the run. What the run no longer has, because the store keeps information for a number of
rounds only, stays as it was in the file.
"""

from __future__ import annotations

import csv
import json
import math
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flavor.atomic import write_whole
from flavor.errors import InvalidSetting
from flavor.printable import printable
from flavor.records.not_finite import NULL
from flavor.records.run import RunView
from flavor.results.computed_columns import MARK, told_apart
from flavor.results.evaluated import Evaluated
from flavor.results.evaluated_table import described
from flavor.results.evaluation_tables import FIXED as OF_EVALUATIONS
from flavor.results.evaluation_tables import FIXED_OF_SITES as OF_EVALUATED_SITES
from flavor.results.evaluation_tables import EvaluationTables
from flavor.results.rounds import RoundResult, SiteResult
from flavor.results.table_columns import ruled_columns
from flavor.results.tables import FIXED, FIXED_OF_SITES, Tables, columns
from flavor.trackers.tracker import ClosedRound, Held, settings_of

_MOST_BYTES = 2**30
_JUDGED = ("-evaluations", "-evaluations-sites")
"""What stands behind the name of the table of rounds in those of evaluations."""


class _FileTracker:
    """A tracker whose files are made of all rounds."""

    def __init__(self, path: Path, option: str, tell: Callable[[str], None]) -> None:
        self.where = str(path)
        self._path, self._option, self._tell = path, option, tell
        self._rounds: dict[int, ClosedRound] = {}
        self._before: dict[int, RoundResult] = {}
        """What the file held before this export; its names of metrics may be those of columns."""
        self._marks: dict[int, tuple[int, str]] = {}
        """When each of those rounds was closed, and the SHA-256 of its manifest, as far as the file held that."""

    def _check(self, path: Path) -> bool:
        """Return whether there is such a file. Raises `InvalidSetting` for what no export may replace."""
        try:
            found = path.stat()
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise InvalidSetting(f"{self._option} {path}: there is no folder {path.parent}") from None
            return False
        except OSError as error:
            raise InvalidSetting(f"{self._option} {path}: {error.strerror}") from None
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise InvalidSetting(f"{self._option} {path}: it is {what}: name a file")
        if found.st_size > _MOST_BYTES:
            raise self._foreign(path)
        return found.st_size > 0

    def _foreign(self, path: Path) -> InvalidSetting:
        return InvalidSetting(
            f"{self._option} {path}: the file is there already and is no export of flavor: name another file"
        )

    def _of_another(self, path: Path) -> InvalidSetting:
        return InvalidSetting(f"{self._option} {path}: the file holds the rounds of another run: name another file")

    def write(self, rounds: Sequence[ClosedRound]) -> int:
        """See `Tracker`. Rounds that the file has are written again, and are new where their metrics are others."""
        news = 0
        for each in rounds:
            found = self._rounds[each.round] = self._completed(each)
            before = self._before.get(each.round)
            news += before is None or self._metrics_of(before) != self._metrics_of(found.result)
        self._save_to(max(self._rounds, default=0))
        return news

    def _metrics_of(self, result: RoundResult) -> object:
        """Return the metrics of a round, from the file or of the run, to be compared."""
        return result.metrics_and_sites, {site.site: site.metrics for site in result.sites}

    def _save_to(self, newest: int) -> None:
        """Write the file with all rounds up to `newest`; those that the run no longer has, as they were in the file."""
        for number in self._before.keys() - self._rounds.keys():
            if number <= newest:
                self._rounds[number] = ClosedRound(
                    self._before[number], *self._marks.get(number, (0, "")), is_whole=False
                )
        self._save([self._rounds[number] for number in sorted(self._rounds)])

    def _completed(self, each: ClosedRound) -> ClosedRound:
        """Return a round with what the file held and the run no longer has."""
        before = self._before.get(each.round)
        if each.is_whole or before is None:
            return each
        sites = {site.site: site for site in before.sites}
        result = replace(
            each.result,
            metrics=each.result.metrics or before.metrics,
            few=each.result.few if each.result.metrics else before.few,
            sites=[
                site if site.metrics or site.site not in sites else replace(site, metrics=sites[site.site].metrics)
                for site in each.result.sites
            ],
        )
        return replace(each, result=result)

    def _save(self, rounds: Sequence[ClosedRound]) -> None:
        raise NotImplementedError


class CsvTracker(_FileTracker):
    """The two tables of a result folder, under names of the user's."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """Write the merged metrics into `path`, and those of each site into `…-sites` beside it."""
        super().__init__(path, "--to csv", tell)
        self._sites = path.with_name(f"{path.stem}-sites{path.suffix}")
        self.where = f"{path} and {self._sites}"
        self._tables = Tables(path.parent, tell, merged=path.name, sites=self._sites.name)
        self._names: dict[str, str] = {}
        self._names_of_sites: dict[str, str] = {}
        self._ruled: Collection[str] = ()

    def begin(self, view: RunView) -> Held:
        """See `Tracker`."""
        self._ruled = ruled_columns(view.config)
        merged, sites = self._read(self._path, FIXED), self._read(self._sites, FIXED_OF_SITES, may_lack=2)
        by_round: dict[int, list[SiteResult]] = {}
        try:
            for row, metrics in sites:
                tasks = [int(row[name]) if row.get(name) else None for name in FIXED_OF_SITES[-2:]]
                made = SiteResult(row["site"], int(row["examples"]), int(row["bytes"]), metrics, *tasks)
                by_round.setdefault(int(row["round"]), []).append(made)
            for row, metrics in merged:
                number, of = int(row["round"]), by_round.get(int(row["round"]), [])
                numbers = float(row["seconds"]), int(row["examples"]), int(row["bytes"])
                names = [site.site for site in of] or [""] * int(row["clients"])
                told = told_apart(metrics)
                self._before[number] = RoundResult(number, numbers[0], names, *numbers[1:], told[0], of, told[1])
        except (ValueError, OverflowError):
            raise self._foreign(self._path) from None
        return Held()

    def write(self, rounds: Sequence[ClosedRound]) -> int:
        """See `Tracker`."""
        for each in rounds:
            before = self._before.get(each.round)
            if before is not None and _is_of_another(before, each.result):
                raise self._of_another(self._path)
            of_sites = dict.fromkeys(name for site in each.result.sites for name in site.metrics)
            self._names |= {head: name for name, head in columns(each.result.metrics_and_sites, FIXED).items()}
            self._names_of_sites |= {head: name for name, head in columns(of_sites, FIXED_OF_SITES).items()}
        return super().write(rounds)

    def _metrics_of(self, result: RoundResult) -> object:
        of_sites = {site.site: _named(site.metrics, self._names_of_sites) for site in result.sites}
        return _named(result.metrics_and_sites, self._names), of_sites

    def _completed(self, each: ClosedRound) -> ClosedRound:
        """Give what the file held the names that the run's rounds have for its columns."""
        before = self._before.get(each.round)
        if before is not None and not each.is_whole:
            sites = [replace(site, metrics=_named(site.metrics, self._names_of_sites)) for site in before.sites]
            metrics, few = told_apart(_named(before.metrics_and_sites, self._names))
            self._before[each.round] = replace(before, metrics=metrics, few=few, sites=sites)
        return super()._completed(each)

    def write_evaluations(self, every: Sequence[Evaluated]) -> int:
        """See `Tracker`: into two tables beside the others, which are written anew."""
        merged, sites = (self._path.with_name(f"{self._path.stem}{end}{self._path.suffix}") for end in _JUDGED)
        before = self._read(merged, OF_EVALUATIONS, may_lack=1)
        self._read(sites, OF_EVALUATED_SITES, may_lack=1)
        if any(cells["round"] not in {str(each.round) for each in every} for cells, _ in before):
            raise self._of_another(merged)
        EvaluationTables(self._path.parent, self._tell, merged=merged.name, sites=sites.name).write(every, self._ruled)
        return max(0, len(every) - len(before))

    def end(self, view: RunView, reason: str, model: Callable[[Path], Path]) -> None:
        """See `Tracker`."""
        self._save_to(view.round)

    def _save(self, rounds: Sequence[ClosedRound]) -> None:
        self._tables.write([each.result for each in rounds], self._ruled)

    def _read(
        self, path: Path, fixed: Sequence[str], *, may_lack: int = 0
    ) -> list[tuple[dict[str, str], dict[str, float]]]:
        """Read a table: for each row its fixed columns and its metrics. A last line that was cut off is left out.

        It may be of an earlier release, which has not written the last `may_lack` of the fixed columns.
        """
        if not self._check(path):
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
        except (ValueError, csv.Error):
            raise self._foreign(path) from None
        heads = rows[0] if rows else []
        if may_lack and heads[len(fixed) - may_lack : len(fixed)] != [*fixed[-may_lack:]]:
            fixed = fixed[:-may_lack]
        if tuple(heads[: len(fixed)]) != tuple(fixed):
            raise self._foreign(path)
        found = []
        for row in rows[1:]:
            if len(row) == len(heads):
                cells = dict(zip(heads, row, strict=True))
                metrics = {head: _number(cells[head], path, self) for head in heads[len(fixed) :] if cells[head]}
                found.append(({name: cells[name] for name in fixed}, metrics))
        return found


def _named(metrics: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Return metrics of a table by their names, which `names` has by the heads of columns."""
    return {names.get(head, head): value for head, value in metrics.items()}


def _number(text: str, path: Path, tracker: _FileTracker) -> float:
    try:
        if text == NULL:  # what a site could not compute
            return math.nan
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        raise tracker._foreign(path) from None


def _is_of_another(before: RoundResult, now: RoundResult) -> bool:
    """Whether a round in the file is not this round of the run, but that of another run.

    Its seconds do not tell: after the run was rebuilt from the store, they are those of the manifest.
    """
    if (len(before.clients), before.examples, before.bytes) != (len(now.clients), now.examples, now.bytes):
        return True
    known = {site.site: site for site in before.sites}
    if known and now.sites and known.keys() != {site.site for site in now.sites}:
        return True
    of_sites = [(known[site.site].metrics, site.metrics) for site in now.sites if site.site in known]
    return any(_differ(*each) for each in [(before.metrics, now.metrics), *of_sites])


def _differ(heads: Mapping[str, float], metrics: Mapping[str, float]) -> bool:
    """Whether a row of a table has another value of a metric, as far as the column has the metric's own name."""
    return any(
        heads.get(name, value) != value
        for name, value in metrics.items()
        if name not in (*FIXED, *FIXED_OF_SITES) and not name.endswith(MARK)
    )


class JsonTracker(_FileTracker):
    """One JSON object: the run, its settings, its rounds and its evaluations."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        super().__init__(path, "--to json", tell)
        self._of: dict[str, Any] = {}
        self._texts: dict[int, str] = {}
        self._evaluations: list[str] = []
        self._judged_before = 0

    def write_evaluations(self, every: Sequence[Evaluated]) -> int:
        """See `Tracker`."""
        before = max(self._judged_before, len(self._evaluations))
        self._evaluations = [json.dumps(described(each), allow_nan=False) for each in every]
        self._save_to(max((*self._rounds, *self._before), default=0))
        return max(0, len(every) - before)

    def begin(self, view: RunView) -> Held:
        """See `Tracker`."""
        if self._check(self._path):
            try:
                found = json.loads(self._path.read_text(encoding="utf-8"))
                run = found["run"], found["run_id"]
                self._judged_before = len(found.get("evaluations", ()))  # an earlier release writes none
                for each in found["rounds"]:
                    known = RoundResult.__dataclass_fields__.keys() - {"reporters"}
                    fields = {
                        name: each[name] for name in known - ({"few"} - each.keys())
                    }  # an earlier release has none
                    sites = [SiteResult(**site) for site in fields.pop("sites")]
                    self._before[int(each["round"])] = RoundResult(**fields, sites=sites)
                    self._marks[int(each["round"])] = int(each["closed_ms"] or 0), str(each["manifest"] or "")
            except (ValueError, KeyError, TypeError, RecursionError):
                raise self._foreign(self._path) from None
            if run != (view.run, view.run_id):
                raise self._of_another(self._path)
        self._of = _described(view, "")
        return Held()

    def end(self, view: RunView, reason: str, model: Callable[[Path], Path]) -> None:
        """See `Tracker`."""
        self._of = _described(view, reason)
        self._save_to(view.round)

    def _save(self, rounds: Sequence[ClosedRound]) -> None:
        for each in rounds:
            if each.round not in self._texts:  # a round never changes
                fields = {"closed_ms": each.closed_ms or None, "manifest": each.manifest or None}
                self._texts[each.round] = json.dumps({**each.result.written(), **fields}, allow_nan=False)
        listed = ",\n".join(self._texts[each.round] for each in rounds)
        head = json.dumps(self._of, indent=1).removesuffix("\n}")
        judged = ",\n".join(self._evaluations)
        write_whole(self._path, f'{head},\n "rounds": [\n{listed}\n],\n "evaluations": [\n{judged}\n]\n}}\n')


def _described(view: RunView, reason: str) -> dict[str, Any]:
    return {
        "run": view.run,
        "run_id": view.run_id,
        "state": view.state.value,
        "reason": printable(reason or view.reason),
        "settings": settings_of(view),
    }
