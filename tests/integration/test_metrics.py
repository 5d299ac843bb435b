"""`flavor metrics` as a process: a run on a real Redis that goes away and comes back, scraped by a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from flavor.bus.acl import viewer_rules
from flavor.bus.connection import connect
from flavor.cli.metrics import metrics
from flavor.metrics.scrape import Scraper
from flavor.view.board import Board
from tests.conftest import Bench, Process
from tests.driven import Driven
from tests.faults.servers import Server, free_port
from tests.polled import eventually
from tests.promtool import RULES
from tests.served import Served

TOKEN = "only-for-this-test"


def until(what: str, look: Callable[[], Any]) -> Any:
    return eventually(what, look, 60)


def got(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read().decode())


def address_of(process: Process) -> str:
    process.until("Ctrl-C ends that")
    found = re.search(r"metrics at (http://\S+)/metrics;", process.stderr)
    assert found
    return found[1]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path / "redis")
    yield found
    found.kill()


def test_a_run_is_measured_through_an_outage_of_redis(own: Server, bench_at, tmp_path: Path) -> None:
    bench: Bench = bench_at(own.url)
    served = Served(own.url, tmp_path, on_quorum_lost="wait", round_timeout_s=600.0)
    with served.opened():
        process = bench.start("flavor", "metrics", "--port", 0)
        address = address_of(process)

        def samples() -> dict[str, float]:
            text = got(f"{address}/metrics", Accept="application/openmetrics-text; version=1.0.0")
            return {
                sample.name + "".join(sorted(sample.labels.values())): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        until("the run is seen", lambda: samples().get("flavor_run_roundr") == 1)
        served.hands_in("a")
        served.accept("a")
        said = until("it is seen", lambda: (now := samples()).get("flavor_round_accepted_updatesr") and now)
        assert said["flavor_updates_totalacceptedr"] == 1
        assert said["flavor_round_quorum_marginr"] == 0
        assert said["flavor_run_coordinator_upr"] == 1
        assert said["flavor_redis_memory_used_bytes"] > 100_000
    own.kill()
    assert until("it is missed", lambda: (now := samples()) == {"flavor_redis_up": 0} and now)
    more = [bench.start("flavor", *words, "--port", 0) for words in (["metrics"], ["ui", "--no-open"])]
    for each in more:
        each.until("3 min")  # it is a service, which waits for longer than a command does
    own.start()
    for each, says in zip(more, ("metrics at", "the page is at"), strict=True):
        each.until(says)
        each.send(signal.SIGTERM)
        assert each.wait() == 0
    until("it is back", lambda: (now := samples()).get("flavor_redis_up") == 1 and "flavor_run_roundr" in now)
    process.send(signal.SIGTERM)
    assert process.wait() == 0, "it was told to end, as a service"


def test_a_viewers_user_of_redis_is_enough_and_less_costs_the_memory_alone(url: str, tmp_path: Path) -> None:
    admin = connect(url)
    admin.execute_command("ACL SETUSER", "viewer", *viewer_rules("secret"))
    admin.execute_command("ACL SETUSER", "less", *viewer_rules("secret"), "-info")
    served = Served(url, tmp_path, on_quorum_lost="wait", round_timeout_s=600.0)
    found = {}
    with served.opened():
        for user in ("viewer", "less"):
            address = url.replace("unix://", f"unix://{user}:secret@")
            with Board(address) as board:
                scene = Scraper.on(address, board).scene()
            assert scene.problem == ""
            assert [run.document["run"] for run in scene.runs] == ["r"]
            found[user] = scene.server
    assert found["less"] is None
    assert found["viewer"] is not None
    assert found["viewer"].used_bytes > 0
    assert found["viewer"].is_kept


@pytest.mark.parametrize("key", ["rq:queue:flavor", "rq:workers:flavor", "flavor:resting:flavor", "flavor:dropped"])
def test_a_key_of_a_queue_that_has_another_type_hides_no_run(url: str, key: str, capfd) -> None:
    run = Driven(url)
    run.runs.redis.delete(key)
    run.runs.redis.set(key, "of another type")
    with Board(url) as board:
        scraper = Scraper.on(url, board)
        scene, again = scraper.scene(), scraper.scene()
    run.runs.redis.delete(key)
    assert scene.problem == again.problem == ""
    assert run.runs.run in [each.document["run"] for each in scene.runs]
    assert scene.dropped is None
    assert capfd.readouterr().err.count("the metrics lack the queues") == 1, "it is said once"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0: other machines can reach it"),
        (("--token", "short"), "a token needs 8 characters or more"),
        (("--port", "99999"), "99999 is not in the range"),
    ],
)
def test_wrong_use_ends_in_one_line(options: tuple[str, ...], why: str) -> None:
    found = CliRunner().invoke(metrics, options)
    assert found.exit_code == 2
    assert why in found.stderr.splitlines()[-1]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("prometheus_client.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "flavor.metrics.server", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    found = CliRunner().invoke(metrics, ["--redis-url", "redis://localhost"])
    assert found.exit_code == 2
    assert (
        found.stderr
        == "Error: metrics need a library that is not installed: pip install '.[metrics]' in flavor's folder\n"
    )


def test_an_address_that_cannot_be_used_ends_in_one_line(bench: Bench) -> None:
    process = bench.done("flavor", "metrics", "--host", "192.0.2.1", env={"FLAVOR_METRICS_TOKEN": TOKEN})
    assert process.wait() == 2
    assert process.stderr.startswith("Error: --host 192.0.2.1: this machine cannot listen on that address")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs promtool")
def test_prometheus_scrapes_it_with_the_token_and_the_rules_fire(own: Server, bench_at, tmp_path: Path) -> None:
    served = Served(own.url, tmp_path, on_quorum_lost="wait", round_timeout_s=600.0)
    bench: Bench = bench_at(own.url)
    process = bench.start("flavor", "metrics", "--port", 0, env={"FLAVOR_METRICS_TOKEN": TOKEN})
    place = address_of(process).removeprefix("http://")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "metrics.token").write_text(f"{TOKEN}\n")
    rules = re.sub(r"^        for: .*\n", "", RULES.read_text(), flags=re.MULTILINE)
    (folder / "rules.yml").write_text(rules)
    config = (RULES.parent / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(config.replace("localhost:9600", place).replace("15s", "1s"))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        prometheus = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def asked(query: str) -> list[dict[str, Any]]:
        try:
            url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            return list(json.loads(got(url))["data"]["result"])
        except OSError:
            return []

    try:
        with served.opened():
            found = until("it is scraped", lambda: asked('flavor_run_state{flavor_run_state="running"} == 1'))
            assert found[0]["metric"]["run"] == "r"
            assert asked('up{job="flavor"} == 1')
            assert asked('ALERTS{alertstate="firing"}') == []
        firing = until("nobody serves the run", lambda: asked('ALERTS{alertstate="firing"}'))
        assert [each["metric"]["alertname"] for each in firing] == ["FlavorCoordinatorGone"]
    finally:
        prometheus.terminate()
        prometheus.wait(30)
