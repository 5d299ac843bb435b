"""From the three lines of a training script to `flavor status`: how far each site is, and what a site keeps."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flavor.cli.log import log
from flavor.cli.status import status
from flavor.records.pulse import Doing, Pulse
from flavor.records.reported import Reported
from flavor.view.snapshot import ClientSnapshot, take_snapshot
from tests.conftest import Bench
from tests.served import Served


def sites(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench.done("flavor", "status", bench.run, "--json").stdout)["clients"]
    return found


def snapshot(bench: Bench, client: str) -> ClientSnapshot:
    return take_snapshot(bench.runs).clients[client]


def test_what_a_script_reports_is_seen_and_what_a_site_keeps_is_not(bench: Bench) -> None:
    bench.serve("--heartbeat-timeout-s", 6, rounds=2)
    bench.aggregator()
    token = bench.done("flavor", "enroll", "--unsaved", bench.run, "c1").stdout.strip()
    trainer = bench.trainer("--hold", "--at", 2, "--report", shlex.quote("\x1b[1mepoch 3"))
    edges = [
        bench.edge("c2", trainer, "--no-report"),
        bench.start(
            "flavor-fl",
            *("--join", token, "-m", trainer, "--workspace", bench.folder / "c1"),
            env={"FLAVOR_REDIS_URL": None, "FLAVOR_STORE": str(bench.store), "TEST_BUS": bench.url},
        ),
    ]
    for client in ("c1", "c2"):
        bench.held(client)

    def told() -> bool:
        one, two = (snapshot(bench, client).progress for client in ("c1", "c2"))
        now_ms = bench.runs.now_ms()
        is_here = one.reported is not None and one.load is not None and (one.lasts_s(now_ms) or 0) >= 5
        return is_here and two.doing is Doing.TRAINING and (two.lasts_s(now_ms) or 0) >= 5

    bench.eventually("both tell what they do", told)
    found = sites(bench)
    assert found["c1"]["reported"] == {
        "done": 3,
        "total": 10,
        "message": "\x1b[1mepoch 3",
        "metrics": {"loss": 0.25},
        "round": 2,
    }
    assert found["c1"]["doing"] == found["c2"]["doing"] == "training"
    assert 5 <= found["c1"]["doing_s"] < 600
    assert found["c1"]["load"]["total_bytes"] > found["c1"]["load"]["used_bytes"] > 0
    assert (found["c2"]["reported"], found["c2"]["load"]) == (None, None)
    kept = bench.redis.hgetall(bench.runs.keys.client("c2").hash)
    assert (kept["reported"], kept["reported_ms"], kept["load"]) == ("", "0", "")
    assert 0 <= found["c1"]["reported_s"] < 600
    assert found["c2"]["reported_s"] is None
    shown = bench.done("flavor", "status", bench.run).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith(("SITE", "c1", "c2"))}
    assert "REPORTS" in lines["SITE"]
    assert "training 30 % (3 of 10), " in lines["c1"]
    assert 'loss 0.25, "\\x1b[1mepoch 3"' in lines["c1"]
    assert "training, for " in lines["c2"]
    bench.release("c1", "c2")
    assert [edge.wait() for edge in edges] == [0, 0]
    assert all(site["reported"] is site["doing"] is None for site in sites(bench).values()), "the run is over"


PRINTS = r"""
import sys
for number in range(3000):
    print("line", number)
print("\x1b[2J\x07it\tis     over")
print("        indented")
sys.exit(3)
"""


def test_a_site_shares_the_output_of_its_script_only_if_it_says_so(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(PRINTS)
    bench.serve("--on-quorum-lost", "wait", rounds=1)
    command = f"{sys.executable} {script}"
    assert bench.edge("c1", command, "--share-log", 40).wait() != 0
    assert bench.edge("c2", command).wait() != 0
    bench.logged("client.joined", client="c2")
    shown = bench.done("flavor", "log", bench.run, "--script", "c1")
    lines = shown.stdout.splitlines()
    assert lines == [
        *(f"c1 | line {number}" for number in range(2962, 3000)),
        "c1 | \\x1b[2J\\x07it is over",
        "c1 |         indented",
    ]
    as_json = json.loads(bench.done("flavor", "log", bench.run, "--script", "c1", "--json").stdout)
    assert as_json["lines"][-2:] == ["\x1b[2J\x07it\tis     over", "        indented"]
    assert bench.redis.exists(bench.runs.keys.client("c2").log) == 0
    for site, said in (("c2", "shares no output of its script"), ("c3", "no site of this name")):
        refused = bench.done("flavor", "log", bench.run, "--script", site)
        assert (refused.wait(), refused.stdout) == (2, "")
        assert said in refused.stderr
    assert bench.done("flavor", "log", bench.run, "--script", "c1", "--follow").wait() == 2
    bench.edge("c1", command).wait()
    assert bench.redis.exists(bench.runs.keys.client("c1").log) == 0, "what an earlier process shared is removed"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe" * 200_000, b"\n" * 200_000, None], ids=["no text", "lines", "no string"]
)
def test_nonsense_in_place_of_an_output_is_bounded(url: str, tmp_path: Path, content: bytes | None) -> None:
    served = Served(url, tmp_path)
    with served.opened():
        key = served.runs.keys.client("a").log
        if content is None:
            served.runs.redis.rpush(key, "x")
        else:
            served.runs.redis.set(key, content)
        lines = served.runs.shared_log("a")
        assert len(lines) <= 1000
        assert sum(map(len, lines)) <= 64 * 1024
        shown = CliRunner().invoke(log, ["r", "--script", "a", "--redis-url", served.url])
        assert shown.exit_code == (2 if content is None else 0), shown.output


SHELL = """
set -eu
flavor event set TrainInitDone
while flavor event wait TrainStarted; do
    flavor report 30/100 --message "from a shell" --metric loss=0.5
    flavor report nonsense --metric loss=high
    echo here > "$OUTPUT_PATH/here"
    while [ ! -e "$OUTPUT_PATH/go" ]; do sleep 0.1; done
    exit 0
done
"""


def test_a_script_of_another_language_reports(bench: Bench, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    flavor = programs / "flavor"
    flavor.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m flavor.cli.main "$@"\n')
    flavor.chmod(0o755)
    script = tmp_path / "main.sh"
    script.write_text(SHELL)
    bench.serve(rounds=1, clients=1)
    bench.aggregator()
    bench.edge("c1", f"sh {script}", env={"PATH": f"{programs}:/usr/bin:/bin"})
    expected = Reported(30, 100, "from a shell", {"loss": 0.5}, 1)
    bench.logged("round.opened")
    bench.eventually("its report is there", lambda: snapshot(bench, "c1").progress.reported == expected)
    (bench.folder / "c1" / "output" / "go").touch()


@pytest.mark.parametrize(
    "nonsense",
    [
        {"doing": "x" * 100_000, "reported": "[" * 100_000, "load": "{" * 100_000},
        {"doing": "training", "doing_round": "1", "doing_ms": "9" * 15, "reported": "[" * 4000, "load": "[" * 1000},
        {
            "doing": "training",
            "doing_round": "1",
            "doing_ms": "1",
            "reported": '{"done": NaN}',
            "load": "[1e999, 1, 1]",
        },
        {"doing": b"\xff\xfe", "reported": b"\xff\xfe", "load": b"\x00"},
    ],
    ids=["too long", "deep", "no numbers", "no text"],
)
def test_nonsense_in_a_site_s_hash_costs_its_own_line_alone(
    url: str, tmp_path: Path, nonsense: dict[str, str | bytes]
) -> None:
    served = Served(url, tmp_path)
    with served.opened():
        keys = served.runs.keys
        good = Pulse(Doing.TRAINING, 1, int(time.time() * 1000) - 60_000, Reported(1, 4, round=1))
        served.runs.redis.hset(keys.client("a").hash, mapping=nonsense)  # type: ignore[arg-type]
        served.runs.redis.hset(keys.client("b").hash, mapping=good.to_hash())
        for client in "ab":
            served.runs.redis.publish(keys.client(client).state, "")
        found = take_snapshot(served.runs).clients
        assert found["a"].progress.reported is found["a"].progress.load is None
        assert (found["a"].phase, found["a"].state) == ("training", "ready"), "it takes part as before"
        assert found["b"].progress.reported == Reported(1, 4, round=1)
        shown = CliRunner().invoke(status, ["r", "--redis-url", served.url])
        assert shown.exit_code == 0, shown.output
        assert "training 25 % (1 of 4)" in shown.output
