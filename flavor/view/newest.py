"""The metrics of the newest closed round, the best value so far, and what each site has reported last."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flavor.bus.runs import RunStore
from flavor.errors import DamagedRecord, FlavorError
from flavor.records.counts import POOLED
from flavor.records.measured import MOST_METRICS, Measured
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.records.states import RoundState
from flavor.results.best import MergedValue, best_of
from flavor.results.direction import direction_of
from flavor.results.rounds import for_people_of_site, scalars, site_info
from flavor.store.brief import BriefStore
from flavor.store.open import is_installed
from flavor.store.protocol import ObjectStore
from flavor.store.url import package_scheme
from flavor.view.curves import headline
from flavor.view.history import History
from flavor.view.strip import RoundRow, Source

MOST_SPARKS = 40
_MOST_INFOS = 2000
"""How many clients' information is read from the store in one look, in a run whose workers measure nothing."""
_MOST_SOUGHT, _MOST_SOUGHT_ROUNDS = 50, 10
"""Of how many clients the last accepted update is sought in one look, and in how many rounds."""
_TIMED = 50
"""Of how many of the newest rounds the median time is told."""
_PACED = 20
"""How many of the newest rounds tell how long a round takes."""


@dataclass(frozen=True)
class Newest:
    """What is shown of a run's metrics."""

    last: dict[str, Any] | None = None
    """`{"round": 3, "metrics": {"accuracy": 0.9}, "contributors": 2}`: the merged metrics of the newest closed round.

    None for none. Where not all contributors report a metric, `sites` says how many do. `left_out` counts metrics of
    the round that are not kept, because there are too many.
    """
    metric: str | None = None
    """The metric whose best value is searched; see `headline`."""
    best: dict[str, Any] | None = None
    """`{"metric": "accuracy", "round": 2, "value": 0.91, "rounds": 3, …}`: the best of all closed rounds that can be
    read, of which there are `rounds`.

    `sites` of its `contributors` report it. `fewer` rounds, the newest of them `newest_fewer`, are not compared,
    because fewer sites than `usual` report the metric in them, or others (in `others` of them), and `compared` rounds
    are: see `flavor.results.best`."""
    sites: Mapping[str, dict[str, float]] = field(default_factory=dict)
    """The metrics that each site has reported last."""
    samples: Mapping[str, int] = field(default_factory=dict)
    """The number of examples of each site's last accepted update, also of one in an earlier round."""
    phases: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """What each client that has a verdict in the newest round did in it: a word, and when that began."""
    silent: str = ""
    """Why no metrics are shown; '' where the store answered."""
    spark: tuple[float, ...] = ()
    """At most `MOST_SPARKS` values of the metric, over all closed rounds, oldest first."""
    pace_s: float | None = None
    """The median time between the ends of the newest rounds; None before the first end."""
    last_s: float | None = None
    """How long the newest closed round took; None where that is not known."""
    median_s: float | None = None
    """The median of how long the newest closed rounds took."""
    closed_ms: int = 0
    """When the newest closed round was closed."""
    rounds: Mapping[str, int] = field(default_factory=dict)
    """The round in which each site has reported its `sites`."""


def opened_store(view: RunView, store: str | None) -> tuple[BriefStore | None, str]:
    """Open `store`, or else the store in the run's settings, for short looks; with why there is none.

    A package of a third party opens a store only where `store` names it.
    """
    url = store or str(view.config["store"])
    if not store and (scheme := package_scheme(url)) and is_installed(url):
        return None, f"a package would open the run's store {scheme + '://'!r}, which no option names"
    try:
        return BriefStore(url), ""
    except (FlavorError, OSError) as error:
        return None, "" if is_installed(url) else str(error)


class NewestReader:
    """Reads the metrics of one run, and remembers what it has read. One thread at a time may use it."""

    def __init__(self, runs: RunStore, history: History) -> None:
        self._runs, self._history = runs, history
        self._before: tuple[int, RoundView | None] = (0, None)
        self._sites: dict[str, tuple[int, dict[str, float] | None]] = {}
        self.is_owed = False
        """Whether the round before the newest was not read, as rounds pass faster than looks: have another look."""
        self._infos: dict[str, tuple[str, dict[str, float]]] = {}
        self._measured: dict[tuple[int, str], Measured] = {}
        self._tries: dict[str, tuple[int, str]] = {}
        self._may_read = _MOST_INFOS
        self._values = _Values()
        self._samples: dict[str, int] = {}
        self._sought: set[str] = set()

    def read(
        self, round_: RoundView | None, brief: BriefStore | None, *, metric: str | None = None, silent: str = ""
    ) -> Newest:
        """Read the metrics as far as the store can be read. Raises `BusUnavailable`.

        `round_` is the newest round, as it was read: it may have closed since. `silent` says why there is no store.
        """
        store, self._may_read = brief.store if brief is not None else None, _MOST_INFOS
        if round_ is None:
            return Newest(silent=silent)
        closed = round_.round if round_.state is RoundState.CLOSED else round_.round - 1
        before = round_ if closed == round_.round else self._read_before(closed)
        rows = [row for row in self._history.strip(current=round_) if row.round <= closed]
        last, chosen, best = _merged(rows, closed, metric, store, self._values)
        for each in (before, round_):
            if each is not None:
                metrics = self._site_metrics(each, store, chosen)
                for client, update in each.accepted.items():
                    self._samples[client] = update.num_examples
                    self._sites[client] = each.round, metrics.get(client)
        if not self.is_owed:
            self._sites = {client: known for client, known in self._sites.items() if known[0] >= closed}
        self._seek_samples(round_, closed)
        sites = {client: metrics for client, (_, metrics) in self._sites.items() if metrics is not None}
        phases = {
            client: tuple(
                (start.doing.value, start.start_ms)
                for start in known.within(round_.opened_ms, round_.closed_ms or known.judged_ms)
            )
            for client in round_.verdicts
            if (known := self._measured.get((round_.round, client))) is not None and known.phases
        }
        if brief is not None and brief.silent is not None:
            silent = str(brief.silent)
        spark, pace_s = _spark(rows, chosen), _pace_s(rows[-_PACED:])
        closed_ms = rows[-1].closed_ms if rows else 0
        rounds, samples = {client: self._sites[client][0] for client in sites}, dict(self._samples)
        lasted = [row.seconds for row in rows[-_TIMED:] if row.seconds is not None]
        last_s, median_s = (lasted[-1], statistics.median(lasted)) if lasted else (None, None)
        times = (pace_s, last_s, median_s, closed_ms)
        return Newest(last, chosen, best, sites, samples, phases, silent, spark, *times, rounds)

    def _seek_samples(self, round_: RoundView, closed: int) -> None:
        """Look in earlier rounds for clients that are expected and had nothing accepted in the last two, each once."""
        lacking = [name for name in round_.expected if name not in self._samples and name not in self._sought]
        rounds = range(max(1, closed - _MOST_SOUGHT_ROUNDS), closed)
        for client in lacking[:_MOST_SOUGHT] if rounds else ():
            self._sought.add(client)
            with contextlib.suppress(DamagedRecord):
                for _, (verdict, *_) in sorted(self._runs.of_client(rounds, client).items()):
                    if verdict.accepted and verdict.update is not None:
                        self._samples[client] = verdict.update.num_examples

    def _read_before(self, closed: int) -> RoundView | None:
        """Return the round before the newest; None while rounds pass by between two looks: the newest has news, too."""
        number, known = self._before
        if number == closed and not self.is_owed:
            return known
        self.is_owed = bool(number) and closed > number + 1
        self._before = closed, None if self.is_owed or not closed else self._runs.read_round(closed)
        return self._before[1]

    def _site_metrics(
        self, round_: RoundView, store: ObjectStore | None, chosen: str | None
    ) -> dict[str, dict[str, float]]:
        """Return the metrics of each client whose update is accepted, as far as they can be read.

        Redis has the first metrics of a site that reports many: if the chosen one may be beyond them, all are read.
        """
        self._measure(round_)
        found, accepted = {}, round_.accepted
        for client, update in accepted.items():
            if (measured := self._measured.get((round_.round, client))) is not None:
                found[client] = for_people_of_site(measured.metrics)
                is_there = chosen is None or chosen.startswith(POOLED) or chosen in measured.metrics
                if is_there or (not measured.left_out and len(measured.metrics) < MOST_METRICS):
                    continue
            known = self._infos.get(client)
            if known is None or known[0] != update.info.path:
                if store is None or not update.info.path or not self._may_read:
                    continue
                self._may_read -= 1
                try:
                    metrics = for_people_of_site(scalars(site_info(round_, store, client)["metrics"]))
                except (FlavorError, OSError):
                    continue
                known = self._infos[client] = update.info.path, metrics
            found[client] = known[1]
        return found

    def _measure(self, round_: RoundView) -> None:
        """Read what was measured of the clients that have a verdict that was not known yet."""
        for key in [key for key in self._measured if key[0] < round_.round - 1]:
            del self._measured[key]
        tries = {client: verdict.try_id for client, verdict in round_.verdicts.items()}
        new = [client for client, of in tries.items() if self._tries.get(client) != (round_.round, of)]
        for client, measured in self._runs.measured(round_.round, new).items():
            self._measured[round_.round, client] = measured
        self._tries |= {client: (round_.round, tries[client]) for client in new}


class _Values:
    """The values of one metric in the closed rounds, each of which is taken from its row once."""

    def __init__(self) -> None:
        self._metric, self._known = "", dict[int, tuple[RoundRow, MergedValue | None]]()

    def of(self, metric: str, rows: Sequence[RoundRow]) -> dict[int, MergedValue]:
        """Return the values by round, without the rounds that lack the metric."""
        if metric != self._metric:
            self._metric, self._known = metric, {}
        found = {}
        for row in rows:
            known = self._known.get(row.round)
            if known is None or known[0] is not row:
                known = self._known[row.round] = row, row.merged(metric)
            if known[1] is not None:
                found[row.round] = known[1]
        return found


def _merged(
    rows: Sequence[RoundRow], closed: int, metric: str | None, store: ObjectStore | None, known: _Values
) -> tuple[dict[str, Any] | None, str | None, dict[str, Any] | None]:
    """Return the metrics of the newest closed round, the chosen metric, and its best value."""
    newest = rows[-1] if rows and rows[-1].round == closed and rows[-1].source is not Source.NONE else None
    if newest is None or (store is None and not newest.metrics):
        return None, None, None
    merged = newest.shown_metrics
    chosen = metric or headline(rows)
    last: dict[str, Any] = {"round": closed, "metrics": merged, "contributors": newest.contributors}
    if few := {name: count for name in merged if (count := newest.sites_with(name)) < newest.contributors}:
        last["sites"] = few
    if newest.left_out:
        last["left_out"] = newest.left_out
    if chosen is None:
        return last, None, None
    return last, chosen, best_in(rows, chosen, known.of(chosen, rows))


def best_in(rows: Sequence[RoundRow], metric: str, values: Mapping[int, MergedValue]) -> dict[str, Any] | None:
    """Return the best of a metric's `values`, by round, as `Newest.best` has it; `rows` are the closed rounds."""
    best = best_of(values, direction_of(metric))
    searched = sum(row.source is not Source.NONE for row in rows)
    return {"metric": metric, **asdict(best), "rounds": searched} if best else None


def _spark(rows: Sequence[RoundRow], metric: str | None) -> tuple[float, ...]:
    """Return values of the metric from rounds that are evenly apart; always that of the newest one."""
    step = -(-len(rows) // MOST_SPARKS) or 1
    shown = (row.shown_metrics for row in rows[::-1][::step])
    return tuple(each[metric] for each in shown if metric in each)[::-1] if metric is not None else ()


def _pace_s(rows: Sequence[RoundRow]) -> float | None:
    """Return the median time of a round, with what lies between two rounds, unless that was a pause of the run."""
    lengths = [row.seconds for row in rows if row.seconds is not None]
    gaps = [(b.opened_ms - a.closed_ms) / 1000 for a, b in itertools.pairwise(rows) if a.closed_ms and b.opened_ms]
    return statistics.median(lengths) + (max(0.0, statistics.median(gaps)) if gaps else 0.0) if lengths else None
