"""Observers: what happens in a run is heard as typed events, in the process itself and from its log."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from flavor.bus.runs import RunStore
from flavor.view.client_events import ClientJoined, UpdateAccepted
from flavor.view.event import Event, Unknown
from flavor.view.events import KINDS, event_of
from flavor.view.log import follow
from flavor.view.observer import Everyone, Lines
from flavor.view.round_events import AggregationBegun, RoundClosed, RoundOpened, RunCreated, RunEnded, RunFinished
from tests.served import Served, close_without_manifest


class Counting:
    """A counter of events by kind, as metrics would keep it."""

    def __init__(self) -> None:
        self.counts: Counter[type[Event]] = Counter()

    def hear(self, event: Event) -> None:
        self.counts[type(event)] += 1


def test_a_counter_of_events_hears_them_from_the_coordinator_and_from_the_log(url: str, tmp_path: Path) -> None:
    """Thirty lines: nothing of the coordinator knows that it is counted."""
    served, counting, of_log = Served(url, tmp_path), Counting(), Counting()
    served.observer = Everyone(Lines(served.told.append), counting)
    served.renew()
    with served.serving():
        close_without_manifest(served, after=lambda: None)
        served.until("the run is over", lambda: served.runs.read().state.ended)
        served.thread.join(60.0)
    for logged in follow(served.runs):
        of_log.hear(logged.event)
    once = (RunCreated, RoundOpened, AggregationBegun, RoundClosed, RunFinished)
    for counted in (counting.counts, of_log.counts):
        assert [counted[kind] for kind in once] == [1] * len(once), counted
        assert (counted[ClientJoined], counted[UpdateAccepted]) == (2, 2), counted


@pytest.mark.parametrize("name", KINDS)
def test_what_is_stored_is_read_back(url: str, name: str) -> None:
    entry = {"event": name, "reason": "so it is"}
    fields = KINDS[name].__dataclass_fields__
    entry |= ({"client": "a"} if "client" in fields else {}) | ({"round": "3"} if "round" in fields else {})
    event = event_of(entry)
    assert (type(event), event.reason) == (KINDS[name], "so it is")
    assert getattr(event, "client", "") == entry.get("client", "")
    assert getattr(event, "round", None) == (3 if "round" in entry else None)
    assert "so it is" in event.line or isinstance(event, RunCreated)


def test_an_entry_of_a_newer_release_is_kept_as_it_is() -> None:
    entry = {"event": "round.halved", "reason": "too large", "half": "left"}
    event = event_of(entry)
    assert isinstance(event, Unknown)
    assert (event.entry, event.line) == (entry, "too large")


def test_the_log_is_followed_from_where_one_was(url: str, tmp_path: Path) -> None:
    runs: RunStore = Served(url, tmp_path).runs
    runs.create(rounds=1, config={})
    for number in range(3):
        runs.log("round.note", reason=f"note {number}", round_=1)
    everything = list(follow(runs, until_end=False))
    assert [logged.event.reason for logged in everything[1:]] == ["note 0", "note 1", "note 2"]
    rest = list(follow(runs, after=everything[1].id, until_end=False))
    assert rest == everything[2:]
    following = follow(runs, after=rest[-1].id)
    runs.log("round.note", reason="note 3", round_=1)
    assert next(following).event.reason == "note 3"
    runs.redis.hset(runs.keys.state, "state", "stopped")
    assert list(following) == []


def test_every_entry_that_the_code_writes_is_an_event_that_is_known() -> None:
    import re

    root = Path(__file__).parents[2]
    names: set[str] = set()
    for path in [*root.glob("flavor/**/*.py"), *root.glob("flavor/**/*.lua"), *root.glob("workers/*.py")]:
        names |= set(re.findall(r"['\"]((?:run|round|client|update|aggregator)\.[a-z_]+)['\"]", path.read_text()))
    names -= {"update.blameless", "update.late"}  # arguments of a script, which logs them as refused
    unknown = {name for name in names if name not in KINDS and not name.endswith((".pid", ".key", ".json", ".log"))}
    assert unknown == set()
    assert {kind.name for kind in RunEnded.__subclasses__()} == {"run.finished", "run.failed", "run.stopped"}
