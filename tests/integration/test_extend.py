"""A finished run goes on as if it had been started with more rounds, and a run begins from the model of another."""

from __future__ import annotations

import json
import signal

from flavor.ledger.archive import Archive
from flavor.store.local import LocalStore

ADAM = ("--server-step", "adam:lr=0.05", "--keep-globals", 2)
LOCAL = {"FLAVOR_REDIS_URL": None, "FLAVOR_STORE": None}


def edges(bench):
    return [bench.edge(client, bench.trainer("--rounds", "endless")) for client in ("c1", "c2")]


def finished(bench, *programs) -> None:
    for program in programs:
        assert program.wait() == 0, program.stderr


def train(bench, rounds: int, *options: object) -> None:
    """A run of so many rounds, from its beginning to its end."""
    coordinator = bench.serve(*ADAM, *options, rounds=rounds)
    bench.aggregator()
    finished(bench, coordinator, *edges(bench))


def extend(bench, rounds: int, *options: object):
    return bench.start("flavor", "extend", bench.run, "--rounds", rounds, *options)


def test_an_extended_run_is_the_longer_run_bit_for_bit(bench, bench_at):
    """The momenta of the server step go on as well: after three rounds they differ from those of a beginning."""
    train(bench, 3)
    between = bench.runs.read().global_model
    more = extend(bench, 5)
    more.until("goes on after round 3")  # a site that comes before that is told that the run is over
    finished(bench, more, *edges(bench))
    whole = bench_at(bench.url, f"{bench.run}-whole")
    train(whole, 5)
    found, expected = bench.runs.read().global_model, whole.runs.read().global_model
    assert (found.model.digest, found.state.digest) == (expected.model.digest, expected.state.digest)
    assert found.model.digest != between.model.digest
    assert bench.runs.read().rounds == 5
    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout + verified.stderr
    assert "5 rounds" in verified.stdout


def test_what_cannot_be_extended(bench):
    nothing = extend(bench, 5)
    assert (nothing.wait(), "there is no run" in nothing.stderr) == (1, True), nothing.stderr
    coordinator = bench.serve(rounds=2)
    running = bench.eventually("the run is there", bench.runs.find)
    assert running.state == "waiting"
    early = extend(bench, 5)
    assert early.wait() == 1
    assert (
        "is waiting, and only a finished run is extended: `flavor serve` with the same options goes on" in early.stderr
    )
    stop = bench.done("flavor", "stop", bench.run)
    assert stop.wait() == 0
    coordinator.wait()
    stopped = extend(bench, 5)
    assert stopped.wait() == 1
    assert f"was stopped, and only a finished run is extended: `flavor resume {bench.run} --rounds 5`" in stopped.stderr


def test_fewer_rounds_than_there_are_and_a_server_step_whose_state_is_gone(bench):
    train(bench, 2)
    fewer = extend(bench, 2)
    assert fewer.wait() == 2
    assert "2 rounds are closed already, and --rounds is the number of rounds in all: name more than 2" in fewer.stderr
    before = bench.redis.hgetall(bench.runs.keys.state)
    for state in (bench.store / "runs" / bench.run / "global").glob("0002-state-*"):
        state.unlink()
    more = extend(bench, 3, "--patience-s", 2)
    more.until("goes on after round 2")
    parts = edges(bench)
    assert more.wait() == 1, "the aggregators cannot go on, and the run says so"
    assert "state" in more.stderr
    for part in parts:
        part.wait()
    assert bench.redis.hget(bench.runs.keys.state, "global_digest") == before["global_digest"]


def test_a_coordinator_that_dies_while_it_extends_is_followed_by_flavor_serve(bench):
    train(bench, 2)
    more = bench.start("flavor", "extend", bench.run, "--rounds", 4, env={"FLAVOR_FAILPOINT": "coordinator.opened"})
    more.until("goes on after round 2")
    parts = edges(bench)
    assert more.wait() == -signal.SIGKILL
    again = bench.serve(*ADAM, rounds=4)
    finished(bench, again, *parts)
    assert bench.runs.read().round == 4


def test_a_local_run_is_extended_by_its_folder(bench, tmp_path):
    out = tmp_path / "out"
    words = ["run", "-m", bench.trainer(), "--run", bench.run, "--out", out, "--edges", 2, *ADAM[:2]]
    finished(bench, bench.start("flavor", *words, "--rounds", 2, env=LOCAL))
    more = bench.start("flavor", "extend", out, "--rounds", 4, "--json", env=LOCAL)
    finished(bench, more)
    assert [each["round"] for each in json.loads(more.stdout)["rounds"]] == [1, 2, 3, 4]
    whole = tmp_path / "whole"
    words[words.index(out)] = whole
    finished(bench, bench.start("flavor", *words, "--rounds", 4, env=LOCAL))
    assert (out / "global_model.pkl").read_bytes() == (whole / "global_model.pkl").read_bytes()
    fewer = bench.done("flavor", "extend", out, "--rounds", 3, env=LOCAL)
    assert (fewer.wait(), "4 rounds are closed already" in fewer.stderr) == (2, True), fewer.stderr


def test_a_run_begins_from_the_model_of_another_one_and_its_record_names_it(bench, bench_at, tmp_path):
    train(bench, 3)
    first, one = bench.runs.read(), bench.runs.read_round(1)
    second = bench_at(bench.url, f"{bench.run}-second")
    second.store = bench.store
    coordinator = second.serve("--from-run", bench.run, "--from-round", 1, rounds=1)
    second.aggregator()
    finished(second, coordinator, *edges(second))
    record = Archive(LocalStore(bench.store), second.run).beginning()
    assert record.begun_from.model_dump() == {
        "run": bench.run,
        "run_id": first.run_id,
        "round": 1,
        "digest": one.model.digest,
    }
    assert record.initial.digest == one.model.digest
    verified = second.done("flavor", "verify", second.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stdout + verified.stderr
    began = f"the model of round 1 of run {bench.run!r} (SHA-256 {one.model.digest[:12]}…)"
    assert f"\nbegun from: {began}\n" in verified.stdout
    second.logged("run.created", reason=f"1 round; it begins from {began}")
    assert f"; it begins from {began}" in coordinator.stderr
    for _ in range(2):
        shown = second.done("flavor", "status", second.run)
        assert f"\nbegun from: {began}\n" in shown.stdout
        second.redis.delete(*second.redis.keys(f"flavor:{{{second.run}}}*"))
        rebuilt = second.done("flavor", "recover", "--run", second.run, "--store", second.store, "--untrusted")
        assert rebuilt.wait() == 0, rebuilt.stderr

    for words, said in (
        (["--from-run", bench.run, "--from-round", "best"], "has no best round: it was begun without --select"),
        (["--from-run", bench.run, "--from-round", 9], "has no model of round 9: rounds 1 to 3 are closed"),
        (["--from-run", "nothing"], "there is no run 'nothing'"),
        (["--from-run", bench.run, "--init-model", __file__], "--init-model and --from-run exclude each other"),
    ):
        third = bench_at(bench.url, f"{bench.run}-third")
        wrong = third.serve(*words, rounds=1)
        assert (wrong.wait() in (1, 2), said in wrong.stderr) == (True, True), wrong.stderr
        assert third.runs.find() is None

    out = tmp_path / "local"
    words = ["run", "-m", bench.trainer(), "--run", "local", "--out", out, "--edges", 2, "--rounds", 1]
    local = bench.start("flavor", *words, "--from-run", bench.run, env={**LOCAL, "FLAVOR_REDIS_URL": bench.url})
    finished(bench, local)
    assert Archive(LocalStore(out / "store"), "local").beginning().begun_from.round == 3
    again = tmp_path / "again"
    words = ["run", "-m", bench.trainer(), "--run", "again", "--out", again, "--edges", 2, "--rounds", 1]
    finished(bench, bench.start("flavor", *words, "--from-run", out, env={**LOCAL, "FLAVOR_REDIS_URL": bench.url}))
    begun_from = Archive(LocalStore(again / "store"), "again").beginning().begun_from
    assert (begun_from.run, begun_from.round) == ("local", 1)
