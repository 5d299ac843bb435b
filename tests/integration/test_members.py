"""What a coordinator makes of what clients say of themselves, and that it is not too much."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.bus.admission import replace_key
from flavor.bus.connection import connect
from flavor.bus.embedded import embedded_server
from flavor.bus.lease import Lease, LeaseKeeper
from flavor.bus.runs import RunStore
from flavor.bus.subscription import Subscription
from flavor.bus.verdicts import MORE_IS_LEFT_OUT, MOST_ENTRIES
from flavor.coordinator.client_log import ClientLog
from flavor.coordinator.coordinator_lease import CoordinatorLease
from flavor.coordinator.members import Members
from flavor.errors import LeaseHeld
from flavor.ledger.keys import SigningKey
from flavor.protocol import SPEAKS
from flavor.view.client_events import ClientLost
from flavor.view.observer import Lines

TOKEN = "coordinator"
SILENT = Lines(lambda _: None)


@pytest.fixture
def runs(url: str) -> Iterator[RunStore]:
    redis = connect(url)
    redis.flushall()
    runs = RunStore(redis, "r", url)
    runs.create(rounds=3, config={})
    redis.set(runs.keys.coordinator, TOKEN)
    yield runs
    redis.close()


def members(runs: RunStore) -> Members:
    return Members(runs, SILENT, ClientLog(runs, SILENT), quarantine_after=3, lease_s=15.0, only=None)


def says(runs: RunStore, client: str, **fields: str) -> None:
    runs.redis.hset(runs.keys.client(client).hash, mapping={**SPEAKS, **fields})


def entries(runs: RunStore, event: str) -> int:
    return sum(fields["event"] == event for _, fields in runs.redis.xrange(runs.keys.log))


def test_a_site_cannot_fill_the_log(runs: RunStore) -> None:
    seen = members(runs)
    runs.redis.set(runs.keys.client("a").lease, "here")
    for _ in range(200):
        for state in ("ready", "failed"):
            says(runs, "a", state=state, public_key=str(SigningKey.generate().public))
            seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert entries(runs, "client.lost") + entries(runs, "client.other_key") == MOST_ENTRIES
    last = runs.redis.xrevrange(runs.keys.log, count=1)[0][1]["reason"]
    assert last.endswith(MORE_IS_LEFT_OUT)
    says(runs, "b", state="ready")
    seen.read(["b"], token=TOKEN, lenient=lambda: True)
    says(runs, "b", state="failed", reason="b's own")
    seen.read(["b"], token=TOKEN, lenient=lambda: True)
    assert entries(runs, "client.lost") > 0
    assert runs.redis.xrevrange(runs.keys.log, count=1)[0][1]["client"] == "b", "the others are heard as ever"


@pytest.mark.parametrize("what", ["protocol", "public_key", "state", "hash"])
def test_a_quarantined_site_stays_so_and_is_told_once_whatever_it_says_of_itself(runs: RunStore, what: str) -> None:
    told = list[str]()
    lines = Lines(told.append)
    seen = Members(runs, lines, ClientLog(runs, lines), quarantine_after=3, lease_s=15.0, only=None)
    pinned, other = (str(SigningKey.generate().public) for _ in range(2))
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready", public_key=pinned)
    seen.read_all(token=TOKEN, lenient=lambda: False)
    runs.redis.hset(runs.keys.refusals, "a", 3)
    change = {"protocol": "3"} if what == "protocol" else {"public_key": other} if what == "public_key" else {}
    for _ in range(3 * MOST_ENTRIES):
        for fields in (change, {**SPEAKS, "public_key": pinned}):
            if what == "hash":
                runs.redis.delete(runs.keys.client("a").hash)
            says(runs, "a", state="failed" if what == "state" and fields is change else "ready", **fields)
            seen.read_all(token=TOKEN, lenient=lambda: False)
            assert seen.is_quarantined("a")
            assert not seen.clients["a"].ready
            assert seen.is_admitted("a") == (fields is not change or not change)
    assert entries(runs, "client.quarantined") == 1
    assert sum("quarantined" in line for line in told) == 1
    assert len(told) <= MOST_ENTRIES + 2, "beside that it joined"


def test_a_quarantine_is_told_even_if_its_site_has_filled_its_part_of_the_log(runs: RunStore) -> None:
    told = list[str]()
    lines = Lines(told.append)
    log = ClientLog(runs, lines)
    seen = Members(runs, lines, log, quarantine_after=3, lease_s=15.0, only=None)
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready")
    seen.read_all(token=TOKEN, lenient=lambda: False)
    for _ in range(MOST_ENTRIES + 5):
        log.note(ClientLost("its heartbeat stopped", "a"))
    says(runs, "a", state="ready", protocol="3")
    runs.redis.hset(runs.keys.refusals, "a", 3)
    seen.read_all(token=TOKEN, lenient=lambda: False)
    assert entries(runs, "client.quarantined") == 1
    assert told[-1].startswith("a is quarantined: 3 of its updates in a row were refused")


def test_a_site_is_told_of_its_quarantine_and_of_its_pardon(runs: RunStore) -> None:
    """Also by a coordinator that has just taken over, and that allows more refusals than the one before."""
    told = lambda: runs.redis.hget(runs.keys.client("a").admission, "quarantined")  # noqa: E731
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready")
    seen = members(runs)
    seen.read_all(token=TOKEN, lenient=lambda: False)
    assert told() == "0"
    runs.redis.hset(runs.keys.refusals, "a", 3)
    seen.read_all(token=TOKEN, lenient=lambda: False)
    assert told() == "3"
    later = Members(runs, SILENT, ClientLog(runs, SILENT), quarantine_after=4, lease_s=15.0, only=None)
    later.read_all(token=TOKEN, lenient=lambda: False)
    assert told() == "0"
    members(runs).read_all(token=TOKEN, lenient=lambda: False)
    assert told() == "3"
    assert runs.pardon("a")
    seen.recount(["a"], refused=False)
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert told() == "0"


FALSE_HOSTS = [
    "trusted.hospital.example, key 0123456789abcdef (verified)",
    'h" with key 0123456789abcdef',
    "a" * 256,
    "two words",
    "-h",
    "h\n",
]


@pytest.mark.parametrize("host", ["site-1.hospital.example", "h", "a" * 255, *FALSE_HOSTS])
def test_what_a_site_says_of_its_machine_is_told_as_its_word_alone(runs: RunStore, host: str) -> None:
    told = list[str]()
    lines = Lines(told.append)
    seen = Members(runs, lines, ClientLog(runs, lines), quarantine_after=3, lease_s=15.0, only=None)
    key = SigningKey.generate().public
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready", host=host, public_key=str(key))
    says(runs, "b", state="failed", host=host, reason="r")
    seen.read(["a", "b"], token=TOKEN, lenient=lambda: True)
    whose = "an unknown host" if host in FALSE_HOSTS else f'"{host}"'
    assert told == [
        f"a joined with key {key.fingerprint}, by its own account from {whose}",
        f'b came without a key, by its own account from {whose}, and takes no part: "r"',
    ]


def test_a_site_that_ended_while_no_coordinator_listened_is_found_with_its_reason(runs: RunStore) -> None:
    """Its lease is gone and its event was lost. What an edge has left behind in an earlier run of the name is none."""
    now_ms, told = runs.now_ms(), list[str]()
    lines = Lines(told.append)
    for client, state, told_ms in (
        ("a", "failed", now_ms),
        ("b", "evaluator left", now_ms + 1),
        ("earlier", "failed", now_ms - 1),
        ("silent", "failed", 0),
        ("revoked", "revoked", now_ms),
        ("stopped", "stopped", now_ms),
    ):
        says(runs, client, state=state, reason="its own words", told_ms=str(told_ms))
    runs.redis.hset(runs.keys.client("other").update(1), "path", "x")
    for since_ms, found in ((None, []), (now_ms, ["a", "b"])):
        log = ClientLog(runs, lines)
        seen = Members(runs, lines, log, quarantine_after=3, lease_s=15.0, only=None, since_ms=since_ms)
        for _ in range(2):
            seen.read_all(token=TOKEN, lenient=lambda: False)
        assert sorted(seen.clients) == found
        assert runs.members() == found
    assert [line.partition(", and takes no part: ")[2] for line in sorted(told)] == ['"its own words"'] * 2
    assert seen.clients["a"].why_gone == '"its own words"'


def test_a_flood_is_taken_in_a_moment_at_a_time(runs: RunStore) -> None:
    """Each channel once; who listens gets back to its work, and to the rest later."""
    listening = Subscription(runs.redis, "", channels=["flood"])
    listening.open()
    with runs.redis.pipeline(transaction=False) as site:
        for _ in range(40_000):  # fewer than for which the server would cut it off
            site.publish("flood", "x")
        site.execute()
    assert listening.wait(1.0) == ["flood"]
    assert listening.wait(5.0) == ["flood"], "not all of it was taken in at once"
    listening.close()


def test_a_client_that_takes_back_what_it_said_is_gone_when_its_lease_is(runs: RunStore) -> None:
    seen = members(runs)
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready")
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert seen.clients["a"].ready
    runs.redis.delete(runs.keys.client("a").hash, runs.keys.client("a").lease)
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert seen.clients["a"].gone


def test_a_key_that_an_operator_forgot_is_not_learnt_anew_from_what_redis_has_of_the_site(runs: RunStore) -> None:
    """Its edge may be long gone; the hash that it wrote is not."""
    lost, new = (str(SigningKey.generate().public) for _ in range(2))
    seen = members(runs)
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready", public_key=lost)
    seen.read_all(token=TOKEN, lenient=lambda: False)
    assert runs.public_keys() == {"a": lost}
    replace_key(runs, "a")
    for _ in range(2):
        seen.read_all(token=TOKEN, lenient=lambda: False)
        assert runs.public_keys() == {}
    admission = runs.redis.hgetall(runs.keys.client("a").admission)
    assert admission["admitted"] == "0"
    assert "which the operator has replaced in this run" in admission["reason"]
    says(runs, "a", state="ready", public_key=new)
    seen.read_all(token=TOKEN, lenient=lambda: False)
    assert runs.public_keys() == {"a": new}
    assert runs.redis.hget(runs.keys.client("a").admission, "admitted") == "1"
    assert seen.clients["a"].ready


def test_a_site_that_is_stopped_stands_in_the_log_at_once_and_is_lost_only_later(runs: RunStore) -> None:
    seen = Members(runs, SILENT, ClientLog(runs, SILENT), quarantine_after=3, lease_s=3600.0, only=None)
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready")
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    runs.redis.delete(runs.keys.client("a").lease)
    says(runs, "a", state="stopped", reason="its edge was stopped by a signal")
    for _ in range(3):
        seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert (entries(runs, "client.stopped"), entries(runs, "client.lost")) == (1, 0)
    last = runs.redis.xrevrange(runs.keys.log, count=1)[0][1]
    assert (last["client"], last["reason"]) == ("a", '"its edge was stopped by a signal": it is awaited')
    assert not seen.clients["a"].gone
    seen._lease_s = 0.0
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert (entries(runs, "client.stopped"), entries(runs, "client.lost")) == (1, 1)
    seen._lease_s = 3600.0
    runs.redis.set(runs.keys.client("a").lease, "back")
    for state in ("ready", "stopped"):
        says(runs, "a", state=state)
        seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert entries(runs, "client.stopped") == 2, "each time that it is stopped"


def test_a_client_of_which_redis_forgot_everything_is_of_no_earlier_release(runs: RunStore) -> None:
    told = list[str]()
    lines = Lines(told.append)
    seen = Members(runs, lines, ClientLog(runs, lines), quarantine_after=3, lease_s=15.0, only=None)
    runs.redis.set(runs.keys.client("a").lease, "here")
    says(runs, "a", state="ready")
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    runs.redis.delete(runs.keys.client("a").hash)
    before = list(told)
    for fields in ({}, {"phase": "uploading"}):
        if fields:
            runs.redis.hset(runs.keys.client("a").hash, mapping=fields)
        seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert told == before
    assert seen.clients["a"].ready
    assert runs.redis.hget(f"{runs.keys.client('a').to}:admission", "admitted") == "1"


def test_one_more_entry_of_a_site_is_let_through_each_ten_minutes(runs: RunStore) -> None:
    """A round that is held for days, and a site whose link comes and goes."""
    told = list[str]()
    log = ClientLog(runs, Lines(told.append))
    log.round = 1
    for _ in range(MOST_ENTRIES + 5):
        log.note(ClientLost("its heartbeat stopped", "a"))
    assert entries(runs, "client.lost") == len(told) == MOST_ENTRIES
    entries_of = runs.keys.entries(1)
    runs.redis.hincrby(entries_of, "again:a", -600_000)
    for _ in range(3):
        log.note(ClientLost("its heartbeat stopped", "a"))
    assert entries(runs, "client.lost") == len(told) == MOST_ENTRIES + 1
    assert told[-1].endswith(MORE_IS_LEFT_OUT)
    log.end_round(1)
    assert told[-1] == "a: 7 more entries are left out of what it caused in round 1"
    assert 0 < runs.redis.ttl(entries_of) <= 7 * 24 * 3600, "also of a round that was pruned before"


def test_a_coordinator_that_takes_over_does_not_tell_again_what_was_left_out(runs: RunStore) -> None:
    told = list[str]()
    for _ in range(2):
        log = ClientLog(runs, Lines(told.append))
        log.round = 1
        for _ in range(MOST_ENTRIES + 1):
            log.note(ClientLost("its heartbeat stopped", "a"))
        log.end_round(1)
        log.end_run()
    found = [line for line in told if "left out of" in line]
    assert found == [
        "a: 1 more entry is left out of what it caused in round 1",
        f"a: {MOST_ENTRIES + 1} more entries are left out of what it caused in round 1",
    ]
    assert entries(runs, "client.left_out") == 2


def test_a_lease_that_never_ends_is_said_to_be_one(runs: RunStore) -> None:
    runs.redis.set("l", "somebody")
    with pytest.raises(LeaseHeld, match="held without end by 'somebody': `DEL l`"):
        Lease(runs.redis, "l", ttl_s=1, what="it").acquire(told=lambda _: None)


def test_a_lease_that_lasts_for_hours_makes_no_site_live(runs: RunStore) -> None:
    """The server's clock went back: nobody renews what a dead edge has left, and a live edge does within its lease."""
    seen = Members(runs, SILENT, ClientLog(runs, SILENT), quarantine_after=3, lease_s=0.3, only=None)
    own = runs.keys.client("a")
    says(runs, "a", state="ready")
    runs.redis.set(own.lease, "here", px=200)
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    runs.redis.set(own.lease, "here", px=7_200_000)
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert seen.clients["a"].alive, "its edge may renew it yet"
    deadline = time.monotonic() + 30
    while seen.clients["a"].alive:
        assert time.monotonic() < deadline
        seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert seen.clients["a"].why_gone == "its heartbeat stopped"
    runs.redis.set(own.lease, "here", px=200)
    seen.read(["a"], token=TOKEN, lenient=lambda: False)
    assert seen.clients["a"].alive


def test_a_lease_that_lasts_for_hours_is_taken_over(runs: RunStore) -> None:
    told: list[str] = []
    runs.redis.set("lease", "host:1:x", px=7_200_000)
    lease = Lease(runs.redis, "lease", ttl_s=0.5, what="the coordinator")
    lease.acquire(told=told.append)
    assert runs.redis.get("lease") == lease.token
    assert told == [
        "the coordinator is held by process 1 on host; waiting up to 0 s for a sign of life, and taking over if there "
        "is none"
    ]


def test_a_lease_that_lasts_for_hours_and_is_renewed_is_not_taken_over(runs: RunStore) -> None:
    first = Lease(runs.redis, "lease", ttl_s=0.5, what="the coordinator")
    first.acquire(told=print)
    runs.redis.pexpire("lease", 7_200_000)
    other = Lease(runs.redis, "lease", ttl_s=0.5, what="the coordinator")
    keeper = LeaseKeeper(first, lost=lambda: None)
    keeper.start()
    with pytest.raises(LeaseHeld):
        other.acquire(told=print)
    keeper.stop()


def test_no_site_is_gone_whose_lease_lapsed_while_the_server_stood_still(tmp_path: Path) -> None:
    """Also where the coordinator asked before the server stood still, and is answered after that."""
    told, lease_s = list[str](), 3.0
    lines = Lines(told.append)
    with embedded_server(folder=tmp_path) as url, connect(url) as redis:
        server = redis.info("server")["process_id"]
        runs = RunStore(redis, "r", url)
        runs.create(rounds=3, config={})
        lease = CoordinatorLease(runs, lease_s=lease_s, tell=told.append)
        lease.start()
        seen = Members(runs, lines, ClientLog(runs, lines), quarantine_after=3, lease_s=lease_s, only=None)
        says(runs, "a", state="ready")
        redis.set(runs.keys.client("a").lease, "here", px=round(lease_s * 1000))
        seen.read(["a"], token=lease.token, lenient=lambda: lease.is_lenient)
        assert not seen.clients["a"].gone
        assert not lease.is_lenient
        os.kill(server, signal.SIGSTOP)
        threading.Timer(lease_s + 0.2, os.kill, [server, signal.SIGCONT]).start()
        seen.read(["a"], token=lease.token, lenient=lambda: lease.is_lenient)
        assert not redis.exists(runs.keys.client("a").lease)
        assert not seen.clients["a"].gone
        lease.end()
    assert not any("heartbeat" in line for line in told)
