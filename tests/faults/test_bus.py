"""Rows 1 to 7: what the bus loses, repeats or delays."""

from __future__ import annotations

import os
import signal
import threading

from flavor.protocol import SPEAKS
from flavor.records.names import Event
from tests.faults.federation import Faulty
from tests.faults.servers import Proxy
from tests.polled import START_PAUSE_S

PATIENT = ("--heartbeat-timeout-s", "30")
"""For tests that pause an edge, and are about something else than its lease."""
STALL_S = 13.0


def subscribers(bench, name: str) -> list[dict[str, str]]:
    """The subscriptions of the connections of that name, as the server sees them."""
    return [client for client in bench.redis.client_list(_type="pubsub") if client["name"] == name]


def test_an_event_set_before_anyone_waits_is_seen(faulty):
    """Row 1: TrainStarted is there before its trainer waits for it, and TrainFinished before somebody else does."""
    coordinator = faulty.serve()
    faulty.bench.aggregator()
    edges = faulty.edges(only={"c1": ("--hold", "--where", "waiting", "--at", 1)})
    bench, keys = faulty.bench, faulty.bench.runs.keys.client("c1")
    bench.held("c1")
    started = keys.event(1, Event.TRAIN_STARTED)
    bench.eventually("the round is started", lambda: bench.redis.exists(started))
    assert not subscribers(bench, "flavor-events:c1")
    bench.release("c1")
    bench.logged("update.accepted", client="c1", round=1)
    late = {"FLAVOR_RUN": bench.run, "FLAVOR_CLIENT": "c1"}
    seen = lambda: bench.done("flavor", "event", "is-set", "TrainFinished", env=late).wait() == 0  # noqa: E731
    bench.eventually("a look that comes later sees what the trainer has set", seen, pause_s=START_PAUSE_S)
    faulty.finish(coordinator, edges)


def test_a_subscriber_whose_connection_is_dropped_sees_what_it_missed(faulty):
    """Row 2: the edge's subscription is ended while it is paused, and then everybody's, all the time."""
    coordinator = faulty.serve(*PATIENT)
    faulty.bench.aggregator()
    edges = faulty.edges(only={"c1": ("--hold", "--at", 1)})
    bench, keys = faulty.bench, faulty.bench.runs.keys.client("c1")
    bench.held("c1")
    edges["c1"].send(signal.SIGSTOP)
    assert bench.redis.client_kill_filter(_type="pubsub") >= 3
    assert not subscribers(bench, "flavor-fl:c1:events")
    bench.release("c1")
    bench.eventually("TrainFinished is set", lambda: bench.redis.exists(keys.event(1, Event.TRAIN_FINISHED)))
    over = threading.Event()
    killed = []

    def kill_them_all() -> None:
        while not over.wait(0.02):
            killed.append(bench.redis.client_kill_filter(_type="pubsub"))

    killer = threading.Thread(target=kill_them_all)
    killer.start()
    edges["c1"].send(signal.SIGCONT)
    try:
        bench.logged("round.closed", round=2)
    finally:
        over.set()
        killer.join()
    assert sum(killed) > 10
    faulty.finish(coordinator, edges)


def test_a_run_without_any_publication_is_slower_and_nothing_else(redis_server, bench_at):
    """Row 3: a proxy swallows every publication on its way to anybody, from the first on; keys are read again."""
    proxy = Proxy(redis_server.port)
    proxy.swallow = True
    through = {"FLAVOR_REDIS_URL": proxy.url}
    try:
        faulty = Faulty(bench_at(redis_server.url), rounds=1)
        coordinator = faulty.serve(*PATIENT, env=through)
        faulty.bench.aggregator(env=through)
        edges = faulty.edges(env=through)
        assert coordinator.wait(90) == 0, coordinator.stderr
        faulty.finish(coordinator, edges)
        assert proxy.swallowed > 10
    finally:
        proxy.close()


def test_a_slow_subscriber_reads_again_what_the_server_dropped(faulty):
    """Row 4: an edge and the coordinator are paused, and the server ends their subscriptions, which grow too long."""
    coordinator = faulty.serve(*PATIENT)
    faulty.bench.aggregator()
    edges = faulty.edges(only={"c1": ("--hold", "--at", 1)})
    bench, keys = faulty.bench, faulty.bench.runs.keys.client("c1")
    bench.held("c1")
    bench.redis.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
    finished = keys.event(1, Event.TRAIN_FINISHED)
    slow = ("flavor-fl:c1:events", f"flavor-serve:{bench.run}:events")
    for process in (edges["c1"], coordinator):
        process.send(signal.SIGSTOP)
    bench.release("c1")
    bench.eventually("TrainFinished is set", lambda: bench.redis.exists(finished))

    def flooded() -> bool:
        for channel in (keys.event(0, Event.TRAIN_INIT_DONE), keys.state):
            bench.redis.publish(channel, "x" * 100_000)
        return not any(subscribers(bench, name) for name in slow)

    bench.eventually("the server cuts them off", flooded)
    for process in (edges["c1"], coordinator):
        process.send(signal.SIGCONT)
    faulty.finish(coordinator, edges)


def test_train_finished_ten_times_at_once_counts_once(faulty):
    """Row 5: ten threads of a trainer set TrainFinished at the same time, in every round."""
    coordinator = faulty.serve()
    faulty.bench.aggregator()
    edges = faulty.edges("--threads", 10)
    faulty.finish(coordinator, edges)
    events = [(entry["event"], entry.get("client"), entry.get("round")) for entry in faulty.bench.log()]
    for client in faulty.clients:
        for number in range(1, faulty.rounds + 1):
            assert events.count(("update.accepted", client, str(number))) == 1
    assert not {"update.ignored", "update.refused"} & {event for event, _, _ in events}


def test_a_server_that_stalls_in_a_set_event_counts_it_once(faulty):
    """Row 6: the server stands still for 13 s, longer than every lease, while TrainFinished is being set."""
    gate = faulty.gate("c1")
    coordinator = faulty.serve("--heartbeat-timeout-s", 3)
    faulty.bench.aggregator()
    edges = faulty.edges(only={"c1": ("--gate", gate.path, "--where", "saved", "--at", 2)})
    gate.reached()
    server = faulty.bench.redis.info("server")["process_id"]
    os.kill(server, signal.SIGSTOP)
    try:
        gate.open()
        threading.Event().wait(STALL_S)  # the stall itself
    finally:
        os.kill(server, signal.SIGCONT)
    faulty.finish(coordinator, edges)
    accepted = [e for e in faulty.bench.log() if e["event"] == "update.accepted" and e["client"] == "c1"]
    assert [entry["round"] for entry in accepted] == ["1", "2", "3"]
    assert "client.lost" not in {entry["event"] for entry in faulty.bench.log()}


def test_events_and_updates_of_an_old_round_change_nothing(faulty):
    """Row 7: in round 3 those of rounds 1 and 2 are replayed, with an update that differs."""
    coordinator = faulty.serve()
    faulty.bench.aggregator()
    edges = faulty.edges("--hold", "--at", 3)
    bench, keys = faulty.bench, faulty.bench.runs.keys
    for client in faulty.clients:
        bench.held(client)
    client = keys.client("c1")

    def state() -> object:
        rounds = [(bench.redis.hgetall(keys.round(n)), bench.redis.hgetall(keys.verdicts(n))) for n in (1, 2, 3)]
        return rounds, bench.redis.hgetall(keys.state), bench.redis.get(client.started)

    before = state()
    length_of_updates = len([entry for entry in bench.log() if entry["event"].startswith("update.")])
    for number in (1, 2):
        for event in (Event.TRAIN_STARTED, Event.TRAIN_FINISHED):
            key = client.event(number, event)
            bench.redis.set(key, "1", nx=True)
            bench.redis.publish(key, str(number))
    update = bench.redis.hgetall(client.update(1))
    update["path"] = bench.redis.hget(client.update(2), "path")
    stranger = keys.client("c9")  # which had no task in round 1
    for digit in "0123":  # again and again: that must not fill the log
        for keys_of_one in (client, stranger):
            bench.redis.hset(keys_of_one.update(1), mapping={**update, "digest": digit * 64})
            bench.redis.publish(keys_of_one.update(1), "1")
    ignored = bench.logged("update.ignored", client="c1", round=1)
    assert "the first verdict stands" in ignored["reason"]
    bench.redis.hset(
        stranger.hash, mapping={**SPEAKS, "state": "ready", "host": "\x1b[2J\n[coordinator] all is well" + "x" * 9000}
    )
    bench.redis.publish(stranger.state, "ready")  # heard after all of the above
    joined = bench.logged("client.joined", client="c9")
    assert len(joined["reason"]) < 3500
    coordinator.until("c9 joined")
    told = next(line for line in coordinator.stderr.splitlines() if "c9 joined" in line)
    assert told.endswith("c9 joined without a key, by its own account from an unknown host")
    of_the_update = [entry for entry in bench.log() if entry["event"].startswith("update.")][length_of_updates:]
    assert [entry["event"] for entry in of_the_update] == ["update.ignored"]
    assert not bench.redis.exists(stranger.verdict(1))
    assert state() == before
    bench.release(*faulty.clients)
    faulty.finish(coordinator, edges)
    for edge in edges.values():
        assert "refused" not in edge.stderr
