"""A record on Redis that an administrator has damaged ends each program in one line, and hides no other run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flavor.cli.status import status
from flavor.config import RunConfig
from tests.conftest import Bench, Process

DAMAGES = {
    "rounds missing": ("rounds", None),
    "config list": ("config", "[]"),
    "config deep": ("config", "[" * 100_000),
    "changed 5": ("changed", "5"),
}


def begun(bench: Bench) -> None:
    config = RunConfig.parse({"rounds": 1, "store": str(bench.store)}).to_mapping()
    bench.runs.create(rounds=1, config=config, run_id=32 * "a")


def one_line(process: Process, *told: str) -> None:
    assert process.wait() == 1, process.stderr
    assert "Traceback" not in process.stderr
    for text in told:
        assert text in process.stderr.splitlines()[-1], process.stderr


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_told_in_one_line_and_hides_no_other(bench: Bench, name: str) -> None:
    begun(bench)
    other = type(bench.runs)(bench.redis, f"{bench.run}-sound")
    other.create(rounds=3, config={})
    field, text = DAMAGES[name]
    key = bench.runs.keys.state
    if text is None:
        bench.redis.hdel(key, field)
    else:
        bench.redis.hset(key, field, text)
    where = f"field '{field}'"
    for command in ("status", "stop"):
        one_line(bench.done("flavor", command, bench.run), key, where)
    one_line(bench.edge("edge-1", "true"), key, where)
    one_line(bench.serve(rounds=1, clients=1), key, where)
    listed = bench.done("flavor", "status", "--json")
    assert listed.wait() == 0, listed.stderr
    rows = {row["run"]: row for row in json.loads(listed.stdout)}
    assert (rows[bench.run]["state"], rows[bench.run]["rounds"], rows[other.run]["state"]) == (
        "damaged",
        None,
        "waiting",
    )
    assert where in rows[bench.run]["reason"]
    table = bench.done("flavor", "status")
    assert table.wait() == 0, table.stderr
    assert any(line.startswith(bench.run) and "damaged" in line for line in table.stdout.splitlines())
    assert any(line.startswith(other.run) and "0 of 3" in line for line in table.stdout.splitlines())
    assert bench.done("flavor", "rm", bench.run).wait() == 0
    assert bench.runs.find() is None
    other.remove_keys()


def test_a_key_of_another_type_damages_its_run_alone(bench: Bench) -> None:
    begun(bench)
    bench.redis.delete(bench.runs.keys.state)
    bench.redis.set(bench.runs.keys.state, "x")
    one_line(bench.done("flavor", "status", bench.run), bench.runs.keys.state, "it is no hash")
    assert json.loads(bench.done("flavor", "status", "--json").stdout)[-1]["state"] == "damaged"
    assert bench.done("flavor", "rm", bench.run).wait() == 0


def with_text(bench: Bench, *keys: str) -> None:
    for key in keys:
        bench.redis.delete(key)
        bench.redis.set(key, "x")


def with_config(bench: Bench, **values: str) -> None:
    store = {"store": str(bench.store)} if values else {}
    bench.redis.hset(bench.runs.keys.state, "config", json.dumps({**store, **values}))


SPOILED = {
    "log": ("waiting", "WRONGTYPE", lambda bench: with_text(bench, bench.runs.keys.log)),
    "members": ("waiting", "WRONGTYPE", lambda bench: with_text(bench, bench.runs.keys.members)),
    "round": ("running", "WRONGTYPE", lambda bench: with_text(bench, bench.runs.keys.round(1))),
    "verdicts": ("running", "WRONGTYPE", lambda bench: with_text(bench, bench.runs.keys.verdicts(1))),
    "a word of another release": (
        "waiting",
        "newer_word",
        lambda bench: with_config(bench, on_quorum_lost="newer_word"),
    ),
    "no store": ("waiting", "store", with_config),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_run_that_cannot_be_read_as_a_whole_is_listed_with_its_state_and_why(bench: Bench, name: str) -> None:
    begun(bench)
    other = type(bench.runs)(bench.redis, f"{bench.run}-sound")
    other.create(rounds=3, config={"rounds": 3, "store": str(bench.store)})
    state, why, spoil = SPOILED[name]
    if state == "running":
        bench.redis.hset(bench.runs.keys.state, mapping={"state": "running", "round": "1"})
        bench.redis.hset(bench.runs.keys.round(1), mapping={"state": "open", "expected": "[]"})
    spoil(bench)
    listed = CliRunner().invoke(status, ["--json", "--redis-url", bench.url])
    assert listed.exit_code == 0, listed.output
    rows = {row["run"]: row for row in json.loads(listed.stdout)}
    assert rows[bench.run]["state"] == state
    assert why in rows[bench.run]["reason"], rows[bench.run]
    if name in ("log", "members"):
        key = getattr(bench.runs.keys, name)
        assert f": {key}: another program has written the key: delete it; " in rows[bench.run]["reason"]
    assert "no coordinator serves it" in rows[other.run]["reason"]
    other.remove_keys()


def test_a_damaged_run_is_rebuilt_from_the_store(bench: Bench) -> None:
    coordinator = bench.serve(rounds=1, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer())
    assert [process.wait() for process in (coordinator, edge)] == [0, 0]
    bench.redis.hset(bench.runs.keys.state, "config", "[]")
    words = ("recover", "--run", bench.run, "--store", bench.store, "--untrusted")
    one_line(bench.done("flavor", *words), "field 'config'", "--replace", "nothing was changed")
    done = bench.done("flavor", *words, "--replace")
    assert done.wait() == 0, done.stderr
    assert bench.runs.read().state == "finished"


@pytest.mark.parametrize("size", ["abc", "-1"])
def test_a_task_that_cannot_be_read_ends_the_edge_and_the_operator_is_told(bench: Bench, size: str) -> None:
    begun(bench)
    record = Path(bench.store) / "runs" / bench.run / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"run_id": 32 * "a"}))
    keys = bench.runs.keys.client("edge-1")
    bench.redis.hset(bench.runs.keys.state, mapping={"state": "running", "round": "1"})
    bench.redis.hset(keys.admission, mapping={"admitted": "1"})
    bench.redis.hset(keys.task(1), mapping={"rounds": "1", "global_path": "p", "global_size": size})
    one_line(bench.edge("edge-1", bench.trainer()), keys.task(1), "global_size")
    told = bench.redis.hgetall(keys.hash)
    assert (told["state"], told["failure"]) == ("failed", "damaged-record")
    assert told["reason"] == "a record on Redis, such as its task, cannot be read"
