"""What becomes of a round that loses its clients, and of a client whose updates are refused."""

from __future__ import annotations

import json
import signal

import pytest

from flavor.records.states import RoundState
from tests.polled import START_PAUSE_S


def closed(bench, round_):
    """The round, once it is closed."""
    bench.logged("round.closed", round=round_)
    view = bench.runs.read_round(round_)
    assert view.state is RoundState.CLOSED
    return view


def start(bench, clients, *serve, rounds=3, trainers=None):
    coordinator = bench.serve("--heartbeat-timeout-s", 1, *serve, rounds=rounds, clients=len(clients))
    bench.aggregator()
    trainers = trainers or {}
    return coordinator, {client: bench.edge(client, bench.trainer(*trainers.get(client, ()))) for client in clients}


def kill(edge):
    edge.send(signal.SIGKILL)
    edge.wait()


def test_wait_keeps_the_round_open_until_its_client_comes_back(bench):
    hold = {"c2": ["--hold", "--at", 2]}
    coordinator, edges = start(bench, ["c1", "c2"], "--on-quorum-lost", "wait", trainers=hold)
    bench.held("c2")
    kill(edges["c2"])
    bench.logged("round.waiting", round=2, saying="waiting for clients to come back")
    assert bench.runs.read().round == 2
    again = bench.edge("c2", bench.trainer())
    assert closed(bench, 2).contributors == ("c1", "c2")
    assert coordinator.wait() == 0, coordinator.stderr
    assert again.wait() == 0


def test_retry_opens_the_round_again_and_keeps_what_was_accepted(bench):
    hold = {"c3": ["--hold", "--at", 2]}
    coordinator, edges = start(bench, ["c1", "c2", "c3"], "--on-quorum-lost", "retry", trainers=hold)
    bench.held("c3")
    bench.logged("update.accepted", round=2, client="c1")
    kill(edges["c3"])
    bench.logged("round.waiting", round=2, saying="2 of the 3 clients")
    bench.edge("c4", bench.trainer())  # joins the running round
    assert "opening 2 of 3" in bench.logged("round.reopened", round=2)["reason"]
    assert closed(bench, 2).contributors == ("c1", "c2", "c4")
    assert coordinator.wait() == 0, coordinator.stderr
    trained = [entry for entry in bench.log() if entry["event"] == "update.accepted" and entry["client"] == "c1"]
    assert [entry["round"] for entry in trained] == ["1", "2", "3"]


def test_a_deadline_that_nobody_meets_is_set_so_many_times(bench):
    hold = {client: ["--hold", "--at", 1] for client in ("c1", "c2")}
    options = ["--on-quorum-lost", "retry", "--round-attempts", 2, "--round-timeout-s", 1]
    coordinator, _ = start(bench, ["c1", "c2"], *options, trainers=hold)
    assert coordinator.wait() == 1
    assert "the deadline passed with 0 of 2" in coordinator.stderr
    assert "it was opened 2 times" in coordinator.stderr
    assert [entry["event"] for entry in bench.log()].count("round.reopened") == 1


def test_three_refusals_in_a_row_quarantine_a_client_until_it_is_pardoned(bench):
    trainers = {"c1": ["--hold", "--at", 5], "c2": ["--fail", "nan,shape,no-state-dict", "--at", 1]}
    coordinator, _ = start(bench, ["c1", "c2"], "--quorum", 1, rounds=7, trainers=trainers)
    bench.held("c1")
    assert "3 of its updates in a row" in bench.logged("client.quarantined", client="c2")["reason"]
    assert bench.runs.read_round(3).expected == ("c1", "c2")
    assert bench.runs.read_round(5).expected == ("c1",)
    status = bench.done("flavor", "status", bench.run, "--json")
    assert json.loads(status.stdout)["clients"]["c2"]["state"] == "quarantined"
    pardon = bench.done("flavor", "pardon", bench.run, "c2")
    assert (pardon.wait(), "gets tasks again by itself, from the next one on" in pardon.stderr) == (0, True)
    bench.release("c1")
    assert closed(bench, 6).contributors == ("c1", "c2")
    assert coordinator.wait() == 0, coordinator.stderr
    nothing = bench.done("flavor", "pardon", bench.run, "c2")
    assert "nothing to forget" in nothing.stderr


def test_limits_of_an_update(bench):
    """The toy clients claim ten examples for each of their number."""
    limits = ["--max-dataset-size", 25, "--max-update-bytes", 100_000, "--quorum", 1]
    coordinator, _ = start(bench, ["c2", "c3"], *limits, rounds=1)
    assert coordinator.wait() == 0, coordinator.stderr
    reason = bench.logged("update.refused", client="c3")["reason"]
    assert "datasetSize 30 is more than the 25" in reason
    assert bench.runs.read_round(1).contributors == ("c2",)


@pytest.mark.parametrize("compress", ["none", "int8"])
def test_an_update_that_goes_too_far(bench, compress):
    """From the second round on: each of the ten weights of client i moves by i, so the norm is i √10."""
    limits = ["--max-update-norm", 8.0, "--quorum", 1, "--compress", compress]
    coordinator, _ = start(bench, ["c2", "c3"], *limits, rounds=2)
    assert coordinator.wait() == 0, coordinator.stderr
    reason = bench.logged("update.refused", client="c3", round=2)["reason"]
    assert "more than the 8 that this run allows; the model may be to blame: it is that of round 1" in reason
    assert "nothing bounds how far an update moves the model of round 1" in coordinator.stderr
    contributors = [bench.runs.read_round(number).contributors for number in (1, 2)]
    assert contributors == [("c2", "c3"), ("c2",)]
    # From the mean of round one (2.6 in each weight) c2 goes by 2 √10, c3 by 3 √10.
    assert 9.4 < float(reason.split("by ")[1].split(" ")[0]) < 9.6


def test_an_update_that_is_too_large(bench):
    coordinator, _ = start(bench, ["c1"], "--max-update-bytes", 64, rounds=1)
    assert coordinator.wait() == 1
    assert "more than the 64" in bench.logged("update.refused", client="c1")["reason"]


def test_one_odd_site_decides_nothing_in_a_first_round(bench):
    """Three sites, two needed; the odd one, whose tensors have another shape, is in first."""
    trainers = {"c1": ["--fail", "shape", "--at", 1], "c2": ["--hold", "--at", 1], "c3": ["--hold", "--at", 1]}
    coordinator, edges = start(bench, ["c1", "c2", "c3"], "--quorum", 2, rounds=1, trainers=trainers)
    bench.logged("update.accepted", client="c1", round=1)
    for client in ("c2", "c3"):
        bench.held(client)
        bench.release(client)
    assert coordinator.wait() == 0, coordinator.stderr
    assert bench.runs.read_round(1).contributors == ("c2", "c3")
    assert "the model of the other sites has (3, 2)" in bench.logged("update.refused", client="c1")["reason"]
    edges["c1"].wait()
    assert "the update was refused: tensor 'w' has shape" in edges["c1"].stderr
    assert bench.done("flavor", "verify", bench.run, "--store", bench.store).wait() == 0


def test_trainers_that_end_early_end_the_run_with_a_code_of_its_own(bench):
    trainer = ["--rounds", 1, "--hold", "--at", 1]
    coordinator, _ = start(bench, ["c1", "c2"], rounds=3, trainers=dict.fromkeys(("c1", "c2"), trainer))
    for client in ("c1", "c2"):
        bench.held(client)
    coordinator.send(signal.SIGSTOP)  # so that it finds both gone, not one before the other
    bench.release("c1", "c2")
    states = lambda: [found[0].state for found in bench.runs.clients(["c1", "c2"]).values()]  # noqa: E731
    bench.eventually("both trainers have left", lambda: states() == ["left", "left"])
    coordinator.send(signal.SIGCONT)
    assert coordinator.wait() == 7
    why = "ended before round 2, and no site remains of the 2 that a round needs"
    assert f"is finished: early, after round 1 of 3: the scripts of c1, c2 {why}" in coordinator.stderr
    assert bench.runs.read().reason.startswith(f"early, after round 1 of 3: 2 scripts {why}; if that is not meant, let")
    assert "Error" not in coordinator.stderr


def test_a_run_that_waits_waits_for_a_site_whose_script_ended_before_the_last_round(bench):
    trainers = {"c2": ["--rounds", 1]}
    coordinator, edges = start(bench, ["c1", "c2"], "--on-quorum-lost", "wait", trainers=trainers)
    assert edges["c2"].wait() == 7
    assert "takes no part in the 2 rounds to come, and the run waits for it" in edges["c2"].stderr
    told = "c2's script ended before round 2 of 3: start it again, or lower the quorum (`flavor stop"
    coordinator.until(told)
    status = lambda: bench.done("flavor", "status", bench.run).stdout  # noqa: E731
    bench.eventually("status says it", lambda: told in status(), pause_s=START_PAUSE_S)
    assert bench.runs.read().state == "running"
    again = bench.edge("c2", bench.trainer())
    assert [coordinator.wait(), again.wait(), edges["c1"].wait()] == [0, 0, 0]


def test_sites_hear_that_a_run_is_finished_early_and_why(bench):
    coordinator, edges = start(bench, ["c1", "c2"], trainers={"c2": ["--rounds", 1]})
    assert [coordinator.wait(), edges["c1"].wait(), edges["c2"].wait()] == [7, 7, 7]
    assert "is finished: early, after round 1 of 3: 1 script ended before round 2" in edges["c1"].stderr
    late = bench.edge("c1", bench.trainer())
    assert (late.wait(), "is over (finished: early, after round 1 of 3" in late.stderr) == (7, True)
