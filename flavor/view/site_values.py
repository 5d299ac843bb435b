"""The values of a metric at single sites, round by round: from Redis, which keeps the newest rounds, or elsewhere.

That is the result folder of a local run, which keeps all, or the store.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from flavor.bus.runs import RunStore
from flavor.errors import FlavorError, StoreUnavailable
from flavor.ledger.rounds import closed_round
from flavor.records.numbers import finite
from flavor.results.kept import kept_info
from flavor.results.rounds import site_info
from flavor.store.protocol import ObjectStore

_AT_ONCE = 50
"""How many rounds one round trip to Redis asks for."""
_MOST_KEPT = 8
"""How many choices of a metric and its sites are remembered."""
_PATIENCE_S = 2.0
"""How long one call reads the store, which may be a slow bucket; the next call goes on."""
_GONE_IN_A_ROW = 3
"""After so many rounds without client information in the store, all older ones count as pruned."""

Values = tuple[float | None, ...]


class SiteValues:
    """Remembers what it has read of a closed round, which never changes. Not thread-safe."""

    def __init__(
        self,
        runs: RunStore,
        store: ObjectStore | None,
        *,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read what Redis does not have from the run's result `folder`, and from the `store`."""
        self._runs, self._store, self._folder, self._clock = runs, store, folder, clock
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], _Known] = OrderedDict()

    def forget(self) -> None:
        """Read everything again: the run is another one, or was rebuilt."""
        self._kept.clear()

    def of(self, metric: str, sites: Sequence[str], rounds: Sequence[int]) -> tuple[dict[int, Values], Collection[int]]:
        """Return the values of these sites in each of these closed rounds, as far as they are known, and where all are.

        A round that is not known has no entry. Raises `BusUnavailable`.
        """
        key = (metric, tuple(sites))
        known = self._kept.setdefault(key, _Known())
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        self._read_redis(metric, key[1], known, rounds)
        self._read_elsewhere(metric, key[1], known, rounds)
        found = {round_: tuple(values.values()) for round_, values in known.in_part.items()}
        return {**found, **known.values}, known.values.keys()

    def _read_redis(self, metric: str, sites: tuple[str, ...], known: _Known, rounds: Sequence[int]) -> None:
        new = [round_ for round_ in rounds if round_ not in known.values and round_ not in known.not_in_redis]
        for start in range(0, len(new), _AT_ONCE):
            some = new[start : start + _AT_ONCE]
            found = self._runs.measured_of(some, sites)
            for round_ in some:
                if round_ not in found:
                    known.not_in_redis.add(round_)
                    continue
                of_round = found[round_]
                values = {site: of_round[site].metrics.get(metric) if site in of_round else None for site in sites}
                if cut := {site for site, each in of_round.items() if each.left_out and values[site] is None}:
                    known.cut[round_] = cut
                    known.in_part[round_] = values
                    known.not_in_redis.add(round_)
                else:
                    known.values[round_] = tuple(values.values())

    def _read_elsewhere(self, metric: str, sites: tuple[str, ...], known: _Known, rounds: Sequence[int]) -> None:
        """Read rounds that Redis has pruned or cut, or that an earlier release has closed, the newest first."""
        if self._store is None and self._folder is None:
            return
        until, gone = self._clock() + _PATIENCE_S, 0
        for round_ in sorted(known.not_in_redis - known.gone - known.values.keys(), reverse=True):
            if self._clock() >= until:
                return
            try:
                wanted = known.cut.get(round_, sites)
                kept = self._from_folder(metric, wanted, round_)
                lacking = [site for site in wanted if site not in kept]
                values = self._from_store(metric, lacking, round_, newest=rounds[-1]) if lacking else {}
            except StoreUnavailable:  # a later call tries again
                return
            whole = {**known.in_part.get(round_, dict.fromkeys(sites)), **kept, **(values or {})}
            if values is not None:
                known.values[round_], gone = tuple(whole.values()), 0
                continue
            known.gone.add(round_)
            if kept:
                known.in_part[round_], gone = whole, 0
                continue
            gone += 1
            if gone == _GONE_IN_A_ROW:
                known.gone |= {older for older in known.not_in_redis if older < round_}
                return

    def _from_folder(self, metric: str, sites: Collection[str], round_: int) -> dict[str, float | None]:
        """Return the values of those of these sites of which the result folder has this round."""
        infos = {site: kept_info(self._folder, round_, site) for site in sites}
        return {site: finite(info["metrics"].get(metric)) for site, info in infos.items() if info is not None}

    def _from_store(
        self, metric: str, sites: Collection[str], round_: int, *, newest: int
    ) -> dict[str, float | None] | None:
        """Return the values of these sites in one round; None where its information was pruned or cannot be read.

        Raises `StoreUnavailable`.
        """
        if (store := self._store) is None:
            return None
        try:
            view = closed_round(self._runs, store, round_, newest=newest + 1)
            if view is None:
                return None
            there = set(view.contributors)
            infos = {site: site_info(view, store, site)["metrics"] for site in sites if site in there}
        except StoreUnavailable:
            raise
        except (FlavorError, OSError):
            return None
        return {site: finite(infos[site].get(metric)) if site in infos else None for site in sites}


class _Known:
    """What is known of one metric at some sites."""

    def __init__(self) -> None:
        self.values: dict[int, Values] = {}
        self.in_part: dict[int, dict[str, float | None]] = {}
        """Rounds in which Redis does not keep all metrics of all sites: what it keeps."""
        self.cut: dict[int, set[str]] = {}
        """The sites of these rounds of which Redis keeps other metrics, and perhaps not all."""
        self.not_in_redis: set[int] = set()
        self.gone: set[int] = set()  # rounds that the store does not have either
