"""Settings of one site: those that the run has for it, and its own, which count before them and stay at the site."""

from __future__ import annotations

import pytest

from flavor.bus.acl import enroll
from flavor.config import RunConfig
from flavor.coordinator.set_for import not_enrolled
from tests.conftest import Bench

RUNS = ["--set", "LR=0.1", "--set-for", "c1", "LR=0.5", "--set-for", "c1", "BATCH_SIZE=16", "--set-for", "c2", "LR=0.7"]
RUNS += ["--set-for", "c2", "KUBECONFIG=/of/run", "--set-for", "C-1", "HP_X=1"]
OWN = ["--set", "LR=0.98765", "--set", "KUBECONFIG=/of/site"]
SHOW = 'import os; print("has", *(os.environ.get(name, "-") for name in ("LR", "BATCH_SIZE", "KUBECONFIG", "HP_X")))'


def everything(bench: Bench) -> str:
    """All that Redis and the store hold."""
    found = []
    for key in bench.redis.scan_iter(f"*{bench.run}*"):
        read = {"hash": bench.redis.hgetall, "string": bench.redis.get, "stream": bench.redis.xrange}
        read |= {"set": bench.redis.smembers, "list": lambda key: bench.redis.lrange(key, 0, -1)}
        found.append(f"{key} {read.get(bench.redis.type(key), str)(key)}")
    return "\n".join(found) + "".join(
        path.read_bytes().decode("latin-1") for path in bench.store.rglob("*") if path.is_file()
    )


def test_a_site_gets_what_is_set_for_it_and_its_own_settings_count_first(
    bench: Bench, subtests: pytest.Subtests
) -> None:
    (bench.folder / "show.py").write_text(SHOW)
    show = ("-p", f"python {bench.folder / 'show.py'}")
    coordinator = bench.serve(*RUNS, rounds=1)
    bench.aggregator()
    c1 = bench.edge("c1", bench.trainer(), *show)
    c2 = bench.edge("c2", bench.trainer(), *show, *OWN)
    assert [coordinator.wait(), c1.wait(), c2.wait()] == [0, 0, 0], coordinator.stderr
    with subtests.test("each script gets what is meant for it"):
        assert "has 0.5 16 - -" in c1.stdout
        assert "has 0.98765 - /of/site -" in c2.stdout
    with subtests.test("each site is told, of its own settings the names"):
        assert "the run sets for its trainer: LR=0.5 BATCH_SIZE=16" in c1.stderr
        assert "itself" not in c1.stderr
        own = "this site sets for its script itself: KUBECONFIG (in place of the run's), LR (in place of the run's)"
        assert own in c2.stderr
        assert "the run sets" not in c2.stderr, "nothing of it counts here"
    with subtests.test("the run's log has the names, and no value leaves the site"):
        reason = (
            "its site itself sets KUBECONFIG, LR for its script (--set): the run's values for them do not count there"
        )
        assert [entry["reason"] for entry in bench.log() if entry["event"] == "client.sets"] == [reason]
        assert f"c2: {reason}" in coordinator.stderr
        for where in (everything(bench), coordinator.stderr, c2.stderr):
            assert "0.98765" not in where
            assert "/of/site" not in where
        assert "/of/run" in everything(bench), "so it would have been found"
    with subtests.test("a name that never joined"):
        line = "--set-for C-1: no client of this name {}, so its settings have reached no script; of those that have "
        line += "joined there are c1, c2"
        for when in ("has not joined yet", "has never joined"):
            assert coordinator.stderr.count(line.format(when)) == 1, coordinator.stderr
    others = ["--set-for", "c1", "BATCH_SIZE=8"]
    coordinator = bench.start("flavor", "resume", bench.run, "--rounds", 2, *others)
    coordinator.until("goes on from round 1")  # an edge that came before would find the run finished
    c1, c2 = bench.edge("c1", bench.trainer(), *show), bench.edge("c2", bench.trainer(), *show)
    assert [coordinator.wait(), c1.wait(), c2.wait()] == [0, 0, 0], coordinator.stderr
    with subtests.test("resume replaces them"):
        assert "changed: set_for C-1 HP_X=1, c1" in coordinator.stderr
        assert " -> c1 BATCH_SIZE=8" in coordinator.stderr
        assert "has 0.1 8 - -" in c1.stdout
        assert "has 0.1 - - -" in c2.stdout
        assert "has never joined" not in coordinator.stderr
    with subtests.test("verify takes that for a change that may be"):
        verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
        assert verified.wait() == 0, verified.stderr
        assert "set_for C-1" in verified.stdout + verified.stderr


def test_where_clients_are_enrolled_another_name_is_told_at_the_start(bench: Bench) -> None:
    config = RunConfig.parse({"rounds": 1, "store": "s", "set_for": (("Site-1", "LR=1"), ("site-2", "LR=1"))})
    assert not_enrolled(bench.runs, config) == [], "without users of their own, any name may come"
    try:
        for client in ("site-1", "site-2"):
            enroll(bench.redis, bench.run, client, where="here")
        assert not_enrolled(bench.runs, config) == [
            f"--set-for Site-1: no client of this name is enrolled in run {bench.run!r}: there are site-1, site-2"
        ]
    finally:
        for client in ("site-1", "site-2"):
            bench.redis.acl_deluser(f"flavor:{bench.run}:{client}")
