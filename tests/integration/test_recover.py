"""Redis loses a run, and the store brings it back: refused loudly, rebuilt, and gone on with bit for bit."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flavor.bus.admission import replace_key
from flavor.bus.embedded import embedded_server
from flavor.bus.lease import Lease
from flavor.edge.membership import Membership
from flavor.errors import LeaseLost
from flavor.ledger import recover as recovering
from flavor.ledger.archive import Archive
from flavor.ledger.audit import audit
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Manifest
from flavor.ledger.recover import Recovered
from flavor.ledger.recover import recover as recover_run
from flavor.ledger.rounds import round_fields
from flavor.ledger.trust import Trust
from flavor.records.client import ClientStatus
from flavor.records.objects import ObjectRef
from flavor.records.run import RunView
from flavor.records.states import ClientState, RunState
from flavor.records.verdict import Verdict
from flavor.store.open import open_store
from flavor.store.paths import run_record_path
from tests.conftest import Bench, Process
from tests.unit.forged_run import ForgedRun

ROUNDS = 6
DILOCO = ["--aggregator", "diloco", "--heartbeat-timeout-s", "3"]
EDGES = ("edge-1", "edge-2")


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """One at the same address each time; it keeps nothing but what SAVE has put there."""
    folder.mkdir(exist_ok=True)
    with embedded_server(folder=folder) as url:
        yield url


def kill(bench: Bench) -> None:
    os.kill(bench.redis.info("server")["process_id"], signal.SIGKILL)


def newest(bench: Bench) -> Manifest:
    archive = Archive(open_store(str(bench.store)), bench.run)
    data = archive.data(ROUNDS)
    assert data is not None
    return Manifest.parse(data, "")


def recover(bench: Bench, *options: object) -> Process:
    return bench.done("flavor", "recover", "--run", bench.run, "--store", bench.store, "--untrusted", *options)


def one_line(process: Process, *parts: str) -> None:
    """It ended with exit code 1 and one line that says all this."""
    assert process.wait() == 1, process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert "Error: " in last, process.stderr
    for part in parts:
        assert part in last
    assert "Traceback" not in process.stderr + process.stdout


@pytest.fixture(scope="module")
def uninterrupted(shared_bench: Bench) -> Manifest:
    """The last manifest of a run with nothing in its way."""
    coordinator = shared_bench.serve(*DILOCO, rounds=ROUNDS)
    shared_bench.aggregator()
    edges = [shared_bench.edge(name, shared_bench.trainer()) for name in EDGES]
    assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0]
    return newest(shared_bench)


def check_end(bench: Bench, uninterrupted: Manifest) -> None:
    """All rounds closed, with the same global model and server state as without the loss, and a whole chain."""
    last = newest(bench)
    for name in ("digest", "state_digest", "info_digest"):
        assert getattr(last.global_model, name) == getattr(uninterrupted.global_model, name), name
    checked = bench.done("flavor", "verify", bench.run, "--store", bench.store, "--json")
    assert checked.wait() == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert (found["closed"], found["problems"]) == (ROUNDS, [])


def test_an_empty_server_is_refused_by_all_and_the_run_is_rebuilt(
    tmp_path: Path, bench_at, uninterrupted: Manifest
) -> None:
    with server(tmp_path / "r") as url:
        bench = bench_at(url)
        coordinator = bench.serve(*DILOCO, rounds=ROUNDS)
        bench.aggregator()
        edges = [bench.edge(name, bench.trainer("--hold", "--at", 4)) for name in EDGES]
        for name in EDGES:
            bench.held(name)
        keys = bench.runs.public_keys()
        assert set(keys) == set(EDGES)
        kill(bench)
    with server(tmp_path / "r"):
        told = f"`flavor recover --run {bench.run}`"
        one_line(coordinator, "has 3 closed rounds in the store", "does not know it", told)
        for edge in edges:
            one_line(edge, f"run '{bench.run}' is gone from Redis", "start this edge again")
        one_line(bench.serve(*DILOCO, rounds=ROUNDS), "has 3 closed rounds in the store", told)
        assert bench.runs.find() is None
        gone = f"there is no run {bench.run!r}"
        for command in ("status", "log", "get", "credits", "stop", "resume"):
            looked = bench.done("flavor", command, bench.run, env={"FLAVOR_STORE": str(bench.store)})
            one_line(looked, gone, "has 3 closed rounds in the store", told)
        silent = bench.done("flavor", "status", bench.run, env={"FLAVOR_STORE": str(tmp_path / "none")})
        one_line(silent, gone)
        assert "recover" not in silent.stderr

        done = recover(bench)
        assert done.wait() == 0, done.stderr
        assert f"after round 3 of {ROUNDS}, with 2 known clients" in done.stderr
        view = bench.runs.read()
        assert (view.state, view.round, view.recovered_round) == (RunState.RUNNING, 3, 3)
        assert bench.runs.public_keys() == keys
        assert bench.logged("run.recovered")["reason"] == f"rebuilt from the store after round 3 of {ROUNDS}"
        one_line(recover(bench), "3 closed rounds", "Redis lacks nothing")

        coordinator = bench.serve(*DILOCO, rounds=ROUNDS)
        coordinator.until("waiting: 0 of at least 2 clients are ready")  # however long its edges take
        missing = "; edge-1: it has not come back yet; edge-2: it has not come back yet"
        coordinator.until(missing)
        status = bench.done("flavor", "status", bench.run).stdout
        assert missing in status
        assert all(f"{name}  gone" in status for name in EDGES), "and not done, as before the loss"
        edges = [bench.edge(name, bench.trainer()) for name in EDGES]
        assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0]
        check_end(bench, uninterrupted)


def test_an_older_server_is_refused_by_all_and_replaced(tmp_path: Path, bench_at, uninterrupted: Manifest) -> None:
    with server(tmp_path / "r") as url:
        bench = bench_at(url)
        coordinator = bench.serve(*DILOCO, rounds=ROUNDS)
        bench.aggregator()
        edges = [bench.edge(name, bench.trainer("--hold", "--at", at)) for name, at in zip(EDGES, (2, 4), strict=True)]
        bench.held("edge-1")
        bench.logged("update.accepted", round=2, client="edge-2")
        bench.redis.save()
        bench.release("edge-1")
        bench.held("edge-2")
        kill(bench)
    with server(tmp_path / "r"):
        one_line(coordinator, "has 3 closed rounds in the store", "Redis has 1 closed", "`flavor recover --run")
        for edge in edges:
            one_line(edge, "is in round 2", "was in round 4 before", "Redis came back older")
        told = f"`flavor recover --run {bench.run} --replace`"
        one_line(bench.serve(*DILOCO, rounds=ROUNDS), "Redis has 1 closed", told)
        status, log = (bench.done("flavor", command, bench.run) for command in ("status", "log"))
        for looked, shown in ((status, "stdout"), (log, "stderr")):
            assert looked.wait() == 0, looked.stderr
            last = getattr(looked, shown)
            assert "has 3 closed rounds in the store, but Redis has 1 closed" in last
            assert told in last
        assert "start `flavor serve" not in status.stdout

        lost = "its open round 2 with 1 update"
        one_line(recover(bench), "1 closed round, the store has 3", "--replace", f"lost would be {lost}")
        assert bench.runs.read().round == 2
        done = recover(bench, "--replace")
        assert done.wait() == 0, done.stderr
        assert f"lost is {lost}" in done.stderr
        assert not bench.runs.updates(2, EDGES)

        coordinator = bench.serve(*DILOCO, rounds=ROUNDS)
        edges = [bench.edge(name, bench.trainer()) for name in EDGES]
        assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0]
        check_end(bench, uninterrupted)


def test_who_did_not_see_the_loss_goes_on_by_itself(tmp_path: Path, bench_at, uninterrupted: Manifest) -> None:
    with server(tmp_path / "r") as url:
        bench = bench_at(url)
        coordinator = bench.serve(*DILOCO, rounds=ROUNDS)
        bench.aggregator()
        edges = [bench.edge(name, bench.trainer("--hold", "--at", 4)) for name in EDGES]
        for name in EDGES:
            bench.held(name)
        for process in (coordinator, *edges):
            process.send(signal.SIGSTOP)
        kill(bench)
    with server(tmp_path / "r"):
        assert recover(bench).wait() == 0
        for process in (coordinator, *edges):
            process.send(signal.SIGCONT)
        for edge in edges:
            edge.until("was rebuilt from the store after round 3: joining it again")
        for name in EDGES:
            bench.held(name)  # a new trainer, in round 4 again
        bench.release(*EDGES)
        assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0]
        check_end(bench, uninterrupted)


def test_a_run_in_the_store_is_not_begun_again(bench: Bench) -> None:
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer())
    assert [process.wait() for process in (coordinator, edge)] == [0, 0]
    forgotten = bench.done("flavor", "rm", bench.run)
    assert "its objects stay in the store" in forgotten.stderr
    one_line(bench.serve(rounds=1, clients=1), "has 1 closed round in the store", "Redis does not know it")
    words = ["--run", bench.run, "--out", bench.folder / "out", "--store", bench.store, "--edges", 1, "--rounds", 1]
    one_line(bench.done("flavor", "run", "-m", bench.trainer(), *words), "is in the store", "choose another --run")
    done = recover(bench)
    assert done.wait() == 0
    assert "it is finished" in done.stderr
    assert bench.serve(rounds=1, clients=1).wait() == 0  # there is nothing left to do
    assert bench.done("flavor", "rm", bench.run, "--objects", "--store", bench.store).wait() == 0
    assert not open_store(str(bench.store)).list(f"runs/{bench.run}/")
    coordinator = bench.serve(rounds=1, clients=1)
    coordinator.until("is open for clients")


def test_a_run_whose_first_round_was_lost_says_so_when_it_begins_again(bench: Bench) -> None:
    first = bench.serve(rounds=1, clients=1)
    first.until("is open for clients")
    first.send(signal.SIGKILL)
    assert first.wait() == -9
    bench.runs.remove_keys()
    second = bench.serve(rounds=1, clients=1)
    second.until("it begins again; what was handed in for round 1 is lost")
    second.until("is open for clients")


def test_a_coordinator_that_lives_is_not_pulled_away(bench: Bench) -> None:
    coordinator = bench.serve(rounds=2, clients=1)
    bench.aggregator()
    bench.edge("edge-1", bench.trainer("--hold", "--at", 2))
    bench.held("edge-1")
    one_line(recover(bench, "--replace"), "the coordinator of run", f"process {coordinator.pid} ", "stop that one")
    assert coordinator.running


def older(bench: Bench, folder: Path) -> ForgedRun:
    """A run with two closed rounds in the store, and on Redis the first one, open, with an update that was refused."""
    run = ForgedRun(folder, name=bench.run).complete(2)
    record = ObjectRef(run_record_path(bench.run), run.record.digest)
    runs, token = bench.runs, "old"
    runs.create(rounds=3, config=run.config, record=record)
    bench.redis.set(runs.keys.coordinator, token)
    for client in ("a", "b"):
        runs.admit(token, client, "")
    runs.open_round(token, 1, expected=["a", "b"], timeout_s=60, reason="")
    assert runs.judge(1, "a", Verdict(False, "of a history that is lost"))
    assert runs.refusals() == {"a": 1}
    assert bench.redis.hgetall(runs.keys.client("a").verdict(1))
    bench.redis.delete(runs.keys.coordinator)
    return run


def rebuilt(bench: Bench, run: ForgedRun, tell: Callable[[str], None]) -> Recovered:
    return recover_run(run.archive, bench.runs, url=bench.url, replace=True, tell=tell)


def test_nothing_of_the_lost_history_stands_after_it_was_replaced(bench: Bench, tmp_path: Path) -> None:
    run = older(bench, tmp_path / "s")
    assert rebuilt(bench, run, lambda _: None).round == 2
    left = {key.removeprefix(bench.runs.keys.prefix) for key in bench.redis.scan_iter(match="*") if bench.run in key}
    rounds = {name for number in (1, 2) for name in (f"round:{number}", f"round:{number}:verdicts")}
    assert left == {"run", "log", "members", "public_keys", "closed", *rounds}


@pytest.mark.parametrize("named", [False, True], ids=["--new-key", "--public-key"])
def test_a_key_that_an_operator_replaced_stays_replaced(bench: Bench, tmp_path: Path, named: bool) -> None:
    """On a server that is a round behind: what the operator did since the newest record stands there alone."""
    keys = {"a": SigningKey.generate(), "b": SigningKey.generate()}
    run = ForgedRun(tmp_path / "s", name=bench.run, clients=keys).complete(1)
    trust = Trust(frozenset({str(run.worker.public)}))
    recover_run(run.archive, bench.runs, url=bench.url, trust=trust, tell=lambda _: None)
    run.close(run.manifest(2))
    lost, new = str(keys["a"].public), SigningKey.generate()
    replace_key(bench.runs, "a", str(new.public) if named else "")
    recover_run(run.archive, bench.runs, url=bench.url, trust=trust, replace=True, tell=lambda _: None)
    assert bench.runs.public_keys() == {"b": str(keys["b"].public), **({"a": str(new.public)} if named else {})}
    assert bench.runs.replaced() == {"a": (lost,)}
    run.clients["a"], run.replaced = new, bench.runs.replaced()
    run.close(run.manifest(3))
    assert audit(run.archive, trust=trust).problems == []


def test_a_key_that_is_enrolled_on_an_empty_server_replaces_the_recorded_one(bench: Bench, tmp_path: Path) -> None:
    keys = {"a": SigningKey.generate(), "b": SigningKey.generate()}
    run = ForgedRun(tmp_path / "s", name=bench.run, clients=keys).complete(2)
    trust = Trust(frozenset({str(run.worker.public)}))
    new = str(SigningKey.generate().public)
    replace_key(bench.runs, "a", new)
    recover_run(run.archive, bench.runs, url=bench.url, trust=trust, tell=lambda _: None)
    assert bench.runs.public_keys()["a"] == new
    assert bench.runs.replaced() == {"a": (str(keys["a"].public),)}


def test_a_rebuilding_that_was_cut_short_forgets_no_replaced_key(bench: Bench, tmp_path: Path) -> None:
    keys = {"a": SigningKey.generate(), "b": SigningKey.generate()}
    run = ForgedRun(tmp_path / "s", name=bench.run, clients=keys).complete(2)
    trust = Trust(frozenset({str(run.worker.public)}))
    recover_run(run.archive, bench.runs, url=bench.url, trust=trust, tell=lambda _: None)
    replace_key(bench.runs, "a", "")
    bench.redis.delete(bench.runs.keys.state)  # as `recover --replace` does first
    recover_run(run.archive, bench.runs, url=bench.url, trust=trust, tell=lambda _: None)
    assert bench.runs.public_keys() == {"b": str(keys["b"].public)}
    assert bench.runs.replaced() == {"a": (str(keys["a"].public),)}


@pytest.mark.parametrize("when", ["before", "during", "once its keys are read"])
def test_a_key_that_is_forgotten_on_a_server_without_the_run_is_not_pinned_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It was stolen, say: the records have it, and Redis has nothing of it when its operator says so."""
    keys = {"a": SigningKey.generate(), "b": SigningKey.generate()}
    run = ForgedRun(tmp_path / "s", name=bench.run, clients=keys).complete(2)
    trust = Trust(frozenset({str(run.worker.public)}))
    for client in ("a", "b"):
        replace_key(bench.runs, client, "")
    replace_key(bench.runs, "b", str(keys["b"].public))  # it has found its key again
    if when != "before":
        bench.redis.delete(bench.runs.keys.replaced)
    if when == "during":
        monkeypatch.setattr(recovering, "round_fields", lambda *of: replace_key(bench.runs, "a") or round_fields(*of))
    if when == "once its keys are read":
        read = recovering._client_keys

        def read_then_replaced(*of: object, **how: object) -> object:
            found = read(*of, **how)
            if not bench.runs.replaced():
                replace_key(bench.runs, "a")
            return found

        monkeypatch.setattr(recovering, "_client_keys", read_then_replaced)
    recover_run(run.archive, bench.runs, url=bench.url, trust=trust, tell=lambda _: None)
    assert bench.runs.public_keys() == {"b": str(keys["b"].public)}
    assert bench.runs.replaced() == {"a": (str(keys["a"].public),)}


def test_of_another_run_of_this_name_no_replaced_key_stays(bench: Bench, tmp_path: Path) -> None:
    run = older(bench, tmp_path / "s")
    for client in ("a", "another"):
        replace_key(bench.runs, client, str(SigningKey.generate().public))
        replace_key(bench.runs, client, "")
    assert bench.runs.replaced().keys() == {"a", "another"}
    rebuilt(bench, run, lambda _: None)
    assert bench.runs.replaced() == {}


def test_what_the_records_have_of_replaced_keys_is_rebuilt(bench: Bench, tmp_path: Path) -> None:
    keys = {"a": SigningKey.generate(), "b": SigningKey.generate()}
    former = str(SigningKey.generate().public)
    run = ForgedRun(tmp_path / "s", name=bench.run, clients=keys, replaced={"a": (former,)}).complete(1)
    recover_run(run.archive, bench.runs, url=bench.url, trust=Trust(frozenset({str(run.worker.public)})), tell=print)
    assert bench.runs.replaced() == {"a": (former,)}


@pytest.mark.parametrize("created_ms", [200, None], ids=["", "a record of an earlier release"])
def test_a_rebuilt_run_began_when_it_began(bench: Bench, tmp_path: Path, created_ms: int | None) -> None:
    run = ForgedRun(tmp_path / "s", name=bench.run, created_ms=created_ms)
    run.begin()
    for number in range(1, 4):
        pauses = ((2100, 2200), (2300, 2350)) if number == 2 else None
        run.close(run.manifest(number).model_copy(update={"pauses": pauses}))
    recover_run(run.archive, bench.runs, url=bench.url, tell=lambda _: None)
    view, began_ms = bench.runs.read(), created_ms or 1000
    assert (view.created_ms, view.ended_ms, view.paused_ms) == (began_ms, 3500, 150)
    assert view.took_s == (3500 - began_ms - 150) / 1000
    assert ("created_ms" in json.loads(run.store.read_unverified(f"runs/{bench.run}/run.json", most=10**6))) == bool(
        created_ms
    )


def test_nothing_that_was_left_on_an_empty_server_stands(bench: Bench, tmp_path: Path) -> None:
    """Edges and aggregators that were at work when it lost the run."""
    run = ForgedRun(tmp_path / "s", name=bench.run).complete(2)
    keys = bench.runs.keys
    left = [keys.round(3), keys.verdicts(3), keys.client("a").update(3), keys.client("a").verdict(3), keys.refusals]
    for key in left:
        bench.redis.hset(key, "state", "left")
    assert recover_run(run.archive, bench.runs, url=bench.url, tell=lambda _: None).round == 2
    assert not bench.redis.exists(*left)


def test_no_coordinator_comes_in_between(bench: Bench, tmp_path: Path) -> None:
    """One that starts while the run is rebuilt waits, and finds the run as it is afterwards."""
    run = older(bench, tmp_path / "s")
    seen: list[RunView | None] = []
    waits = threading.Event()

    def start() -> None:
        lease = Lease(bench.redis, bench.runs.keys.coordinator, ttl_s=15.0, what="the coordinator")
        lease.acquire(told=lambda _: waits.set())
        seen.append(bench.runs.find())
        lease.release()

    coordinator = threading.Thread(target=start)

    def tell(_: str) -> None:
        coordinator.start()
        assert waits.wait(10)

    rebuilt(bench, run, tell)
    coordinator.join(10)
    (view,) = seen
    assert view is not None
    assert (view.round, view.recovered_round) == (2, 2)
    assert not bench.redis.exists(bench.runs.keys.coordinator)


def test_a_coordinator_that_took_over_is_not_overwritten(bench: Bench, tmp_path: Path) -> None:
    """This process stood still until its lease had run out."""
    run = older(bench, tmp_path / "s")
    before = bench.runs.find()
    with pytest.raises(LeaseLost, match="a coordinator has taken over: stop it"):
        rebuilt(bench, run, lambda _: bench.redis.set(bench.runs.keys.coordinator, "host:7:new"))
    assert bench.runs.find() == before
    assert bench.redis.get(bench.runs.keys.coordinator) == "host:7:new"
    bench.redis.delete(bench.runs.keys.coordinator)


def test_broken_records_are_not_rebuilt_from(bench: Bench) -> None:
    coordinator = bench.serve("--aggregator", "diloco", rounds=2, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer())
    assert [process.wait() for process in (coordinator, edge)] == [0, 0]
    bench.redis.delete(bench.runs.keys.state)
    folder = bench.store / "runs" / bench.run
    made = [next((folder / "global").glob(f"0002-{what}-*")) for what in ("model", "state")]
    for file in (folder / "manifests" / "round-2.json", *made):
        file.chmod(0o644)
        before = file.read_bytes()
        changed = bytearray(before)
        changed[-20] ^= 1
        file.write_bytes(changed)
        one_line(recover(bench), file.name)
        assert bench.runs.find() is None
        file.write_bytes(before)
    assert recover(bench).wait() == 0


def test_an_update_that_the_server_forgot_is_handed_in_again(bench: Bench) -> None:
    """It came back without its last second: I3 holds, because the edge still knows what it has handed in."""
    coordinator = bench.serve(rounds=2, clients=1)  # so that its trainer is not done and gone meanwhile
    edge = bench.edge("edge-1", bench.trainer())
    key = bench.runs.keys.client("edge-1").update(1)
    bench.eventually("the update", lambda: bench.redis.exists(key))
    before = bench.redis.hgetall(key)
    bench.redis.delete(key)
    bench.redis.client_kill_filter(_type="pubsub")
    bench.eventually("the update again", lambda: bench.redis.exists(key))
    assert bench.redis.hgetall(key) == before
    bench.aggregator()
    assert [process.wait() for process in (coordinator, edge)] == [0, 0]


@pytest.mark.parametrize("quorum_lost", ["fail", "wait"])
def test_an_update_that_the_server_forgot_is_handed_in_again_for_a_trainer_that_is_done(
    bench: Bench, quorum_lost: str
) -> None:
    """The coordinator looks while the update is gone: its edge is paused meanwhile, and lives."""

    def listener() -> str:
        name = f"flavor-serve:{bench.run}:events"
        return next((each["id"] for each in bench.redis.client_list() if each["name"] == name), "")

    coordinator = bench.serve("--on-quorum-lost", quorum_lost, "--heartbeat-timeout-s", 60, rounds=1, clients=1)
    edge = bench.edge("edge-1", bench.trainer())
    client = bench.runs.keys.client("edge-1")
    key = client.update(1)
    bench.eventually("the trainer is done", lambda: bench.redis.hget(client.hash, "state") == "left")
    before = bench.redis.hgetall(key)
    assert before
    edge.send(signal.SIGSTOP)
    bench.redis.delete(key)
    listening = listener()
    bench.redis.client_kill_filter(_type="pubsub")
    bench.eventually("it listens again", lambda: listener() not in ("", listening) or not coordinator.running)
    assert coordinator.running, coordinator.stderr
    for other in ("edge-2", "edge-3"):  # the second is seen after whatever it does on looking again
        seat = Membership(bench.redis, bench.url, bench.runs.keys, other)
        seat.take(ttl_s=60, told=print)
        seat.report(ClientStatus(ClientState.JOINED))
        coordinator.until(f"{other} joined")
    assert not bench.redis.exists(key)
    assert coordinator.running
    edge.send(signal.SIGCONT)
    bench.eventually("the update again", lambda: bench.redis.exists(key))
    assert bench.redis.hgetall(key) == before
    bench.aggregator()
    assert [process.wait() for process in (coordinator, edge)] == [0, 0], coordinator.stderr
