"""Rows 39, 42 and 44: what was stopped, closed or restarted for a while, and back again. And a run that goes on."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import redis

from flavor.records.states import RunState
from flavor.store.open import open_store
from flavor.store.paths import accepted_folder, global_folder, round_of
from tests.faults.federation import MISSED, Faulty
from tests.faults.servers import REDIS, Server
from tests.polled import START_PAUSE_S

FAR = ("--heartbeat-timeout-s", 60)
"""A lease that outlasts any pause of a busy machine."""


def readme_serve(faulty: Faulty, *options: object, env=None):
    """`flavor serve` with its own defaults."""
    bench = faulty.bench
    words = ["--run", bench.run, "--store", bench.store, "--rounds", faulty.rounds, "--queue", bench.run]
    return bench.start("flavor", "serve", *words, "--min-clients", len(faulty.clients), *options, env=env)


def contributors(faulty: Faulty, number: int) -> tuple[str, ...]:
    return faulty.bench.runs.read_round(number).contributors


def stopped(edge, number: signal.Signals = signal.SIGTERM) -> int:
    edge.send(number)
    return edge.wait()


def test_edges_stopped_by_signals_are_awaited_as_those_that_crashed(faulty, subtests):
    """Row 39: also where the run does not wait for sites; their leases would have lasted, too."""
    codes = {"c2": (signal.SIGTERM, 143), "c3": (signal.SIGINT, 130), "c4": (signal.SIGHUP, 143)}
    faulty.rounds, faulty.clients = 2, ("c1", *codes)
    bench = faulty.bench
    coordinator = faulty.serve(*FAR)
    bench.aggregator()
    edges = faulty.edges(only=dict.fromkeys(codes, ("--hold", "--at", 1)))
    for client in codes:
        bench.held(client)
    bench.logged("update.accepted", client="c1", round=1)
    for client, (number, code) in codes.items():
        with subtests.test(number.name):
            assert stopped(edges[client], number) == code
            assert bench.redis.hget(bench.runs.keys.client(client).hash, "state") == "stopped"
            bench.logged("client.stopped", client=client)
    lines = {line.split(" ")[0]: line for line in bench.done("flavor", "status", bench.run).stdout.splitlines() if line}
    found = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)
    for client, (number, _) in codes.items():
        with subtests.test(f"the status after {number.name}"):
            seen = re.match(r"c\d +stopped +\d+(\.\d+)? s ", lines[client])
            assert seen, "as resume.md says: it is awaited, and was seen just now"
            assert found["clients"][client]["this_round"] == "pending", "the round still waits for it"
        edges[client] = bench.edge(client, bench.trainer())
    faulty.finish(coordinator, edges)
    assert [contributors(faulty, n) for n in (1, 2)] == [faulty.clients] * 2


def test_a_refused_update_is_handed_in_again_in_the_same_round(faulty):
    """A site with a broken script is mended and started again: the others wait for it, by `serve`'s own defaults."""
    faulty.rounds = 2
    bench = faulty.bench
    coordinator = readme_serve(faulty)
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--fail", "nan", "--at", 1)})
    assert "NaN" in bench.logged("update.refused", client="c2", round=1)["reason"]
    bench.logged("round.waiting", round=1, saying="waiting for clients to come back")
    stopped(edges["c2"])
    edges["c2"] = bench.edge("c2", bench.trainer())
    edges["c2"].until("training it again")
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0]
    assert [contributors(faulty, n) for n in (1, 2)] == [("c1", "c2")] * 2
    assert bench.done("flavor", "verify", bench.run, "--store", bench.store).wait() == 0


def refused_thrice(faulty: Faulty) -> dict:
    """A run whose site c2 was refused three times in round 1; returns its edges."""
    bench = faulty.bench
    edges = faulty.edges(only={"c2": ("--fail", "nan", "--at", 1)})
    for number in range(3):
        bench.eventually("refused", lambda n=number: bench.runs.refusals().get("c2") == n + 1)
        stopped(edges["c2"])
        if number < 2:
            edges["c2"] = bench.edge("c2", bench.trainer("--fail", "nan", "--at", 1))
    return edges


def test_three_refused_tries_in_one_round_shut_a_site_out_until_it_is_pardoned(faulty):
    """And end the run for no site: by `serve`'s own defaults it waits, and says what lets it go on."""
    faulty.rounds = 2
    bench = faulty.bench
    coordinator = readme_serve(faulty)
    bench.aggregator()
    edges = refused_thrice(faulty)
    told = f"c2 is quarantined: `flavor pardon {bench.run} c2`, then stop and start flavor-fl there, or lower"
    coordinator.until(told)
    bench.eventually("said", lambda: told in bench.done("flavor", "status", bench.run).stdout, pause_s=START_PAUSE_S)
    bench.eventually("logged", lambda: told in bench.done("flavor", "log", bench.run).stdout, pause_s=START_PAUSE_S)
    edges["c2"] = bench.edge("c2", bench.trainer())
    tried = bench.runs.read_round(1).verdicts["c2"].try_id
    update = bench.runs.keys.client("c2").update(1)
    bench.eventually("handed in again", lambda: bench.redis.hget(update, "try") not in (None, tried))
    bench.done("flavor", "pardon", bench.run, "c2")
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0]
    assert [contributors(faulty, n) for n in (1, 2)] == [("c1", "c2")] * 2
    events = [entry["event"] for entry in bench.log() if entry.get("client") == "c2"]
    assert events.index("client.pardoned") < events.index("update.accepted"), "it does not let itself in again"


@pytest.mark.parametrize("policy", ["wait", "fail"])
def test_a_run_without_a_site_that_was_shut_out_goes_on_as_its_operator_says(faulty, policy):
    """As the coordinator's own words say it is done; where it has failed, `resume` is no second failure at once."""
    bench = faulty.bench
    coordinator = readme_serve(faulty, "--on-quorum-lost", policy, *FAR)
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 1)})
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=1)
    bench.done("flavor", "enroll", bench.run, "c2", "--unsaved")
    edges["c2"].send(signal.SIGKILL)
    edges["c2"].wait()
    bench.done("flavor", "revoke", bench.run, "c2")
    told = f"c2 is revoked: `flavor enroll {bench.run} c2` lets it join with a new token, or lower the quorum ("
    if policy == "wait":
        coordinator.until(f"{told}`flavor stop {bench.run}`, then `flavor resume {bench.run} --min-clients 1`)")
        bench.done("flavor", "stop", bench.run)
        assert coordinator.wait() == 8
    else:
        assert coordinator.wait() == 1
        assert f"{told}`flavor resume {bench.run} --min-clients 1`)" in coordinator.stderr
        assert "c2" not in bench.runs.read().reason, "which sites can read"
        again = bench.start("flavor", "resume", bench.run)
        again.until("the run was resumed: waiting for clients to come back")
        bench.done("flavor", "stop", bench.run)
        assert again.wait() == 8
    assert edges["c1"].wait() in (1, 8)
    again = bench.start("flavor", "resume", bench.run, "--min-clients", 1)
    edge = bench.edge("c1", bench.trainer())
    assert (again.wait(), edge.wait()) == (0, 0)
    assert contributors(faulty, 1) == ("c1",)


def test_a_lid_closed_past_the_lease_and_opened_again(faulty):
    """Row 42: edge and trainer stand still; the run waits, and goes on with them."""
    faulty.rounds = 2
    bench = faulty.bench
    gate = faulty.gate("c2")
    coordinator = readme_serve(faulty, *MISSED[:2])
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--gate", gate.path, "--at", 1)})
    gate.reached()
    site = [edges["c2"].pid, *(p for p, command in bench.survivors().items() if str(gate.path) in command)]
    for pid in site:
        os.kill(pid, signal.SIGSTOP)
    assert "its heartbeat stopped" in bench.logged("client.lost", client="c2")["reason"]
    bench.logged("round.waiting", round=1, saying="waiting for clients to come back")
    for pid in site:
        os.kill(pid, signal.SIGCONT)
    gate.open()
    assert coordinator.wait() == 0, coordinator.stderr
    assert edges["c2"].wait() == 0, edges["c2"].stderr
    assert [contributors(faulty, n) for n in (1, 2)] == [("c1", "c2")] * 2


def test_a_clean_restart_of_redis_keeps_the_run_and_its_users(tmp_path, bench_at):
    """Row 44: SHUTDOWN, and started again; no aclfile, but a configuration file that takes the users."""
    program = REDIS or pytest.skip("redis-server is not installed")
    folder = tmp_path / "redis"
    file = tmp_path / "redis.conf"
    file.write_text("appendonly yes\n")
    server = Server(folder, program=program, first=[str(file)])
    try:
        faulty = Faulty(bench_at(server.url), rounds=2)
        bench = faulty.bench
        enrolled = bench.done("flavor", "enroll", bench.run, "c2", "--store", bench.store)
        assert enrolled.wait() == 0, enrolled.stderr
        token = enrolled.stdout.strip()
        coordinator = readme_serve(faulty, *FAR)
        bench.aggregator()
        gate = faulty.gate("c2")
        held = bench.trainer("--gate", gate.path, "--at", 1)
        words = ["-m", held, "--workspace", bench.folder / "c2"]
        joined = bench.start("flavor-fl", *words, env={"FLAVOR_JOIN": token})
        edges = {"c1": bench.edge("c1", bench.trainer()), "c2": joined}
        gate.reached()
        with redis.Redis.from_url(server.url, retry=None) as operator:
            operator.shutdown()
        assert server.process is not None
        server.process.wait(10)
        edges["c2"].until("does not answer")
        server.start()
        gate.open()
        assert coordinator.wait() == 0, coordinator.stderr
        assert edges["c2"].wait() == 0, edges["c2"].stderr
        assert [contributors(faulty, n) for n in (1, 2)] == [("c1", "c2")] * 2
    finally:
        server.close()


def test_a_failed_run_goes_on_with_other_settings_and_what_was_accepted_counts(faulty):
    faulty.rounds = 2
    bench = faulty.bench
    coordinator = faulty.serve("--heartbeat-timeout-s", 3)
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 2)})
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=2)
    stopped(edges["c2"], signal.SIGKILL)
    assert coordinator.wait() == 1
    assert f"`flavor resume {bench.run}`" in coordinator.stderr
    assert edges["c1"].wait() == 1
    assert "c2" not in bench.runs.read().reason
    assert "1 gone" in bench.runs.read().reason
    assert "c2: its heartbeat stopped" in bench.logged("run.failed")["reason"]
    again = faulty.serve("--heartbeat-timeout-s", 3)
    assert (again.wait(), f"`flavor resume {bench.run}`" in again.stderr) == (2, True)
    other = bench.done("flavor", "resume", bench.run, "--detach", "--rounds", 1)
    assert (other.wait(), "closed already" in other.stderr) == (1, False)
    resumed = bench.start("flavor", "resume", bench.run, "--min-clients", 1, "--rounds", 3)
    resumed.until("round 2 is open again; updates accepted in it so far, which count: 1")
    edge = bench.edge("c1", bench.trainer())
    assert resumed.wait() == 0, resumed.stderr
    assert edge.wait() == 0, edge.stderr
    assert [contributors(faulty, n) for n in (1, 2, 3)] == [("c1", "c2"), ("c1",), ("c1",)]
    checked = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert checked.wait() == 0, checked.stderr
    assert "the run was resumed with min_clients 2 -> 1, rounds 2 -> 3" in checked.stderr
    assert "min_clients 2 -> 1" in bench.logged("run.resumed")["reason"]


def test_a_stopped_run_goes_on_and_serve_takes_what_was_changed(faulty):
    faulty.rounds = 2
    bench = faulty.bench
    coordinator = faulty.serve(*FAR)
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 1)})
    bench.held("c2")
    assert bench.done("flavor", "resume", bench.run).wait() == 1  # it goes on
    bench.done("flavor", "stop", bench.run)
    assert coordinator.wait() == 8
    assert "Error" not in coordinator.stderr
    for edge in edges.values():
        edge.wait()
    before = bench.runs.pulses(["c1"])["c1"].moved.sent_bytes  # its update of round 1
    changed = bench.done("flavor", "resume", bench.run, "--detach", "--round-timeout-s", 500)
    assert changed.wait() == 0, changed.stderr
    second = faulty.serve(*FAR)
    second.until("was resumed with round_timeout_s 500")
    edges = {client: bench.edge(client, bench.trainer()) for client in faulty.clients}
    faulty.finish(second, edges)
    assert bench.runs.read().state is RunState.FINISHED
    assert bench.runs.pulses(["c1"])["c1"].moved.sent_bytes > 1.5 * before > 0, "its edge has counted on"
    assert bench.done("flavor", "resume", bench.run).wait() == 1  # all its rounds are closed


def test_what_a_resumed_run_keeps_is_what_it_was_resumed_with(faulty):
    """Also where `flavor serve` is started again with the options that it had; and it warns of what holds now."""
    faulty.rounds = 5
    bench = faulty.bench
    coordinator = faulty.serve()
    coordinator.until("nothing bounds a site's share")
    bench.done("flavor", "stop", bench.run)
    assert coordinator.wait() == 8
    changed = ("--keep-globals", 2, "--keep-rounds", 1, "--max-dataset-size", 1000)
    resumed = bench.done("flavor", "resume", bench.run, "--detach", *changed)
    assert resumed.wait() == 0, resumed.stderr
    second = faulty.serve()
    bench.aggregator()
    edges = faulty.edges()
    assert [process.wait() for process in (second, *edges.values())] == [0, 0, 0], second.stderr
    assert "nothing bounds a site's share" not in second.stderr
    store = open_store(str(bench.store))
    for folder, oldest in ((global_folder(bench.run), 3), (accepted_folder(bench.run), 4)):
        assert min(round_of(path) for path in store.list(folder) if "-info-" not in path) == oldest
