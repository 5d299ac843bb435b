"""Compare Redis and the store: a coordinator goes on only where both have the same history of a run.

Both have each closed round. Redis can come back empty, or older (a lost disk, an old backup, a lagging replica), and
rounds would then be trained and closed a second time, with other results. The store's manifests show this. It costs one
request to the store at each start and reconnection, and none in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from flavor.bus.runs import RunStore
from flavor.counted import counted
from flavor.errors import InvalidRecord, ObjectExists, RunExists, StateLost
from flavor.ledger.archive import Archive
from flavor.ledger.canonical import sha256
from flavor.ledger.manifest import Manifest, RunRecord, settings_differ
from flavor.ledger.witnesses import Witnesses, aggregators
from flavor.records.objects import ObjectRef
from flavor.store.paths import manifest_path

REPLACED = (
    "round {}: {} was not the manifest that its aggregator has signed: another who writes to the store replaced it"
)
_UNKNOWN = "Redis does not know it"
_LOOKED_AHEAD = 50
"""Number of rounds that are looked at, one after the other, while an object lies there that is no manifest."""


def lost(run: str, closed: int, but: str) -> str:
    """Say that the store has `closed` rounds of a run, and Redis does not have them."""
    return (
        f"run {run!r} has {counted(closed, 'closed round')} in the store, but {but}: it was told to forget the run "
        "(`flavor rm`), is another one, or came back empty or older"
    )


def how_to_recover(run: str, closed: int, *, replace: bool) -> str:
    """Name the command that rebuilds a run; `replace` if Redis has another state of the run."""
    return (
        f"`flavor recover --run {run}{' --replace' if replace else ''}`, with the same --redis-url and --store and a "
        f"--trust for the key of each aggregator, rebuilds the run after round {closed}"
    )


def _how_to_remove(run: str) -> str:
    return f"`flavor rm {run} --objects` removes what one of this name, removed by `flavor rm`, left in the store"


def what_redis_lacks(runs: RunStore, archive: Archive) -> str:
    """Say that the store has later rounds of a run than Redis, and how to rebuild it; '' where it has none.

    Changes nothing. Costs one request to the store where it has none. Raises `BusUnavailable` and `StoreError`.
    """
    view = runs.find()
    closed = runs.closed(view)[0] if view is not None else 0
    manifest = archive.manifest(closed + 1)
    if manifest is None:
        return ""
    if view is not None:
        if manifest.run_id != view.run_id:
            return ""  # of an earlier run of this name, or this is not the run's store
        if not Witnesses.of_run(runs, archive, view.config, newest=closed).vouch_for(manifest):
            return ""
        again = runs.find()
        if again is None or runs.closed(again)[0] > closed:  # a round was closed at the same time
            return ""
    newest = max(archive.closed(), closed + 1)
    how = how_to_recover(runs.run, newest, replace=view is not None)
    if view is None:
        return f"{lost(runs.run, newest, _UNKNOWN)}. {how}; {_how_to_remove(runs.run)}"
    return f"{lost(runs.run, newest, f'Redis has {closed} closed')}. {how}"


class History:
    """The rounds of one run on Redis and in the store."""

    def __init__(self, runs: RunStore, archive: Archive, tell: Callable[[str], None]) -> None:
        self._runs, self.archive, self._tell = runs, archive, tell
        self._settled = 0
        self._strays: set[tuple[int, str]] = set()  # made-up manifests that were reported

    def begin(self, record: RunRecord) -> RunRecord:
        """Write the record of a run that Redis does not have, before it is created there; return the record to use.

        Where the run was begun before and has no closed round, returns the earlier record, with its id. Raises
        `StateLost` when the store has closed rounds of the run, and `RunExists` when it was begun with other settings.
        """
        run = record.run
        before = self.archive.beginning()
        if more := self._more(0, record.config):
            self._refuse(_UNKNOWN, more, replace=False)
        if before is None:
            try:
                self.archive.begin(record)
            except ObjectExists:  # another coordinator has begun the run at the same time
                before = self.archive.beginning()
                if before is None:
                    raise
            else:
                return record
        own = {"run_id": record.run_id, "created_ms": record.created_ms, "release": record.release}
        if before.model_copy(update=own) != record:
            differ = settings_differ(before.config, record.config)
            how = f"with other settings ({', '.join(differ)})" if differ else "from other weights, or in another store"
            raise RunExists(
                f"run {run!r} was begun before, {how}, and has no closed round: choose another name, or "
                f"`flavor rm {run} --objects` removes what it left in the store"
            )
        self._tell(
            f"run {run!r} was begun before, and Redis does not know it: no round was closed, so it begins again; "
            "what was handed in for round 1 is lost"
        )
        return before

    def check(self) -> None:
        """Raise `StateLost` unless Redis has every round that the store has, with the same manifests and run id."""
        record, view = self.archive.beginning(), self._runs.find()
        if record is not None and view is not None and record.run_id != view.run_id:
            self._refuse("Redis has another run of this name")
        closed, digest = self._known()
        while view is not None and (more := self._more(closed, view.config)):
            before = closed
            closed, digest = self._known()  # a round is committed to Redis before its manifest is put in its place
            if closed <= before:
                self._refuse(f"Redis has {closed} closed", more)
        if closed and digest and self._differs(closed, digest):
            self._put_back(closed, digest)

    def _known(self) -> tuple[int, str]:
        """Return the newest closed round on Redis, and the digest of its manifest ('' for a round without one)."""
        view = self._runs.find()
        if view is None:
            self._refuse(f"{_UNKNOWN} any more", replace=False)
        closed, round_ = self._runs.closed(view)
        manifest = round_.manifest if round_ is not None and round_.round == closed else view.manifest
        return closed, manifest.digest if manifest else ""

    def _more(self, closed: int, config: Mapping[str, Any]) -> int:
        """Return a round after `closed` that the store has; 0 where it has none.

        A manifest that another party made up does not count, and is reported once. It stays until its round is closed.
        Later rounds are looked at as well, because it may lie in the place of a true manifest.
        """
        witnesses: Witnesses | None = None
        for round_ in range(closed + 1, closed + 1 + _LOOKED_AHEAD):
            if not self.archive.store.exists(manifest_path(self.archive.run, round_)):
                return 0
            manifest = self.archive.manifest(round_)
            if manifest is None:
                continue
            witnesses = witnesses or Witnesses.of_run(self._runs, self.archive, config, newest=closed)
            if witnesses.vouch_for(manifest):
                return round_
            view = self._runs.find()
            if view is not None and self._runs.closed(view)[0] >= round_:  # at the same time
                return round_
            stray = (round_, manifest.digest)
            if stray not in self._strays:
                self._strays.add(stray)
                told = f"round {round_}: {witnesses.against(manifest)}"
                if view is not None:
                    self._runs.log("round.note", round_=round_, reason=told)
                self._tell(f"{told}; the run goes on")
        return 0

    def _refuse(self, but: str, at_least: int = 0, *, replace: bool = True) -> NoReturn:
        run, closed = self.archive.run, max(self.archive.closed(), at_least)
        raise StateLost(
            f"{lost(run, closed, but)}. Nothing was changed. {how_to_recover(run, closed, replace=replace)}; another "
            f"name starts another run, and {_how_to_remove(run)}"
        )

    def settle(self, round_: int, ref: ObjectRef | None) -> None:
        """Put the manifest of a committed round in its place, where its worker has died or has not done so yet.

        Raises `StateLost` when the store has another manifest, and `StoreError` when the staged one is gone or changed.
        """
        if ref is None or round_ <= self._settled:
            return
        if not self.archive.store.exists(manifest_path(self.archive.run, round_)):
            self.archive.publish(round_, ref)
        elif self._differs(round_, ref.digest):
            self._put_back(round_, ref.digest)
        self._settled = round_

    def _differs(self, round_: int, digest: str) -> bool:
        """Whether an object other than the manifest with this digest lies in its place, and does not stop the run.

        Raises `StateLost` for a manifest of this run and round that an aggregator of the run has signed: then the store
        has another history.
        """
        try:
            data = self.archive.data(round_)
        except InvalidRecord:  # too large to be a manifest
            return True
        if data is None or sha256(data) == digest:
            return False
        if self.archive.has(round_):
            signed_by = Manifest.parse(data, manifest_path(self.archive.run, round_)).public_key
            if not (keys := aggregators(self._runs, self.archive, round_)) or signed_by in keys:
                self._refuse(f"Redis has another round {round_}")
        return True

    def _put_back(self, round_: int, digest: str) -> None:
        """Put the manifest of a round in its place again, and report the other object. The run goes on in any case."""
        path = manifest_path(self.archive.run, round_)
        done = self.archive.put_back(round_, digest)
        then = "it is put back" if done else "it cannot be put back, and `flavor verify` says so"
        told = f"{REPLACED.format(round_, path)}; {then}"
        self._runs.log("round.note", round_=round_, reason=told)
        self._tell(f"{told}; the run goes on")
