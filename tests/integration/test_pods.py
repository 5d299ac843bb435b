"""The pods of the charts do what they are for, as processes under the restrictions of their manifests.

One story: a whole run of two sites, whose aggregators KEDA starts and ends, and during which every pod is replaced by a
new one, as an upgrade does it.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from redisserver import needed
from safetensors.numpy import load_file

from tests import charts, pods
from tests.keda import Keda
from tests.pods import Cluster, Pod
from tests.polled import eventually

HERE = Path(__file__).parent
VALUES: dict[str, Any] = {
    "store": {"claim": {"create": True}},
    "runs": {"digits": {"rounds": 4, "min-clients": 2, "heartbeat-timeout-s": 4, "aggregation-lease-s": 4}},
    "aggregator": {
        "args": ["--main", "python /app/pod_aggregator.py"],
        "keda": {"enabled": True, "maxReplicas": 2, "cooldownPeriod": 1},
        "extraVolumes": [{"name": "gate", "persistentVolumeClaim": {"claimName": "gate"}}],
        "extraVolumeMounts": [{"name": "gate", "mountPath": "/gate", "readOnly": True}],
    },
    "metrics": {"enabled": True},
}
EDGE = {
    "image": "site",
    "input": {"claim": "gate"},
    "store": {"claim": "demo-flavor-store"},
    "main": "python pod_trainer.py",
}
HOST = "demo-flavor-redis.fl.svc"


class Story:
    """The cluster, and what its operator does."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder / "cluster")
        self.app = folder / "app"
        self.app.mkdir()
        for name in ("pod_trainer.py", "pod_aggregator.py"):
            shutil.copy(HERE / name, self.app)
        asked = {"flavor": ("flavor", VALUES)}
        for number in (1, 2):
            values = EDGE | {"tokenSecret": f"site-{number}", "env": [{"name": "NUMBER", "value": str(number)}]}
            values |= {"state": {"claim": f"site-{number}-state"}}
            asked[f"site-{number}"] = ("flavor-edge", values)
        self._manifests = charts.rendered(asked)
        assert not [each for each in self._manifests.values() if isinstance(each, str)], self._manifests
        for each in self._manifests.values():
            self.cluster.apply(each)  # type: ignore[arg-type]
        self.gate = self.cluster.claim("gate", {"fsGroup": 10001})
        self._connected: dict[tuple[str, str], redis.Redis] = {}
        self.aggregators: list[Pod] = []
        self.ending: list[Pod] = []

    def manifest(self, kind: str, part: str = "", of: str = "flavor") -> dict[str, Any]:
        (found,) = (
            each
            for each in self._manifests[of]
            if isinstance(each, dict) and each["kind"] == kind and part in each["metadata"]["name"]
        )
        return found

    def started(self, kind: str, part: str = "", *, of: str = "flavor", app: Path | None = None) -> Pod:
        return self.cluster.pod(self.manifest(kind, part, of), app=app)

    def open(self, gate: str) -> None:
        (self.gate / gate).touch()

    def scale(self, number: int) -> None:
        """Have so many aggregators: the oldest ends first, with a job or without."""
        while len(self.aggregators) > number:
            self.ending.append(self.aggregators.pop(0))
            self.ending[-1].terminate()
        while len(self.aggregators) < number:
            self.aggregators.append(self.started("Deployment", "aggregator", app=self.app))

    def working(self) -> Pod:
        """The aggregator that has the command of one's own under way."""
        look = ("sh", "-c", "cat /proc/[0-9]*/cmdline")
        pods = [pod for pod in (*self.aggregators, *self.ending) if pod.container.code is None]
        (found,) = (pod for pod in pods if "\0/app/pod_aggregator.py" in pod.container.execute(*look).stdout)
        return found

    def redis(self, user: str, key: str) -> redis.Redis:
        folder = self.cluster.folder / "operator"
        folder.mkdir(exist_ok=True)
        (folder / "ca.pem").write_bytes(self.cluster.secrets["demo-flavor-redis-tls"]["ca.pem"])
        password = self.cluster.secrets["demo-flavor-redis"][key].decode()
        address = next(line.split()[0] for line in self.cluster.hosts.read_text().splitlines() if HOST in line)
        if (address, user) not in self._connected:
            self._connected[address, user] = redis.Redis(
                address, 6379, username=user, password=password, ssl=True, ssl_ca_certs=str(folder / "ca.pem"),
                ssl_check_hostname=False, decode_responses=True,
            )  # fmt: skip
        return self._connected[address, user]

    def close(self) -> None:
        for client in self._connected.values():
            client.close()
        self.cluster.close()


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    if why := pods.why_not():
        pytest.skip(why)
    needed()
    made = Story(tmp_path)
    yield made
    made.close()


LUA = (
    "local kind = redis.call('type', KEYS[1]).ok "
    "if kind == 'zset' then return redis.call('zcard', KEYS[1]) else return redis.call('llen', KEYS[1]) end"
)
"""What KEDA's scaler asks of Redis: one query for lists and sorted sets, by EVAL."""


@charts.needs_helm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_an_upgrade_of_every_pod_and_a_scale_to_zero_and_back(story: Story) -> None:
    pods.in_own_network(lambda: told(story))


def told(story: Story) -> None:
    cluster = story.cluster
    bus = story.started("StatefulSet", "redis").start()
    cluster.serve(story.manifest("Service", "redis"), bus)

    coordinator = story.started("Job", "digits").start()
    operator = story.started("Deployment", "operator").start()
    for site in ("site-1", "site-2"):
        made = operator.container.execute("flavor", "enroll", "digits", site, "--store", "/store")
        assert made.returncode == 0, made.stderr
        cluster.secrets[site] = {"token": made.stdout.encode()}
    edges = [story.started("Job", of=site, app=story.app).start() for site in ("site-1", "site-2")]
    watching = {name: story.started("Deployment", f"-{name}").start() for name in ("ui", "metrics")}
    for each in (bus, coordinator, operator, *edges, *watching.values()):
        check_restrictions(each)
    reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.3)"
    for port, is_open in (("6379", True), ("22", False)):  # of Redis; its policy, and that of the site
        tried = edges[0].container.execute("python", "-c", reach, bus.address, port)
        assert (tried.returncode == 0, "timed out" in tried.stderr) == (is_open, not is_open)
    tried = operator.container.execute("python", "-c", reach, coordinator.address, "80")
    assert "timed out" in tried.stderr

    def count(key: str) -> int:
        return int(story.redis("flavor-keda", "keda-password").eval(LUA, 1, key))

    keda = Keda(story.manifest("ScaledObject"), count, story.scale)

    def until(what: str, look: Callable[[], Any], timeout_s: float = 60) -> None:
        def looked() -> Any:
            keda.look()
            return look()

        eventually(what, looked, timeout_s, told=lambda: logs(story), pause_s=0.1)

    def state(round_: int) -> str | None:
        found = story.redis("default", "password").hget(f"flavor:{{digits}}:round:{round_}", "state")
        assert found is None or isinstance(found, str)
        return found

    def closed(round_: int) -> bool:
        return state(round_) == "closed"

    def is_under_way() -> bool:
        """Whether the aggregation of round 2 is."""
        return state(2) == "aggregating" and (count("rq:wip:flavor"), count("rq:queue:flavor")) == (1, 0)

    # from zero, and back to zero
    keda.look()
    assert keda.pods == 0
    story.open("aggregate")
    story.open("train-1")
    until("round 1 is closed", lambda: closed(1))
    until("no aggregator is left", lambda: keda.pods == 0)
    ended(story)

    # a job under way keeps its pod, although no job waits; an upgrade lets it finish
    (story.gate / "aggregate").unlink()
    story.open("train-2")
    until("a job is under way and none waits", is_under_way)
    held_until = time.monotonic() + 2.5 * 1
    until("the cooldown is over", lambda: time.monotonic() > held_until)
    assert keda.pods == 1
    working = story.working()
    check_restrictions(working)
    if working in story.aggregators:  # else it was told to end when one pod was enough again
        story.aggregators.append(story.started("Deployment", "aggregator", app=story.app).start())
        story.aggregators.remove(working)
        story.ending.append(working)
        working.terminate()
    held_until = time.monotonic() + 2
    until("it works on", lambda: time.monotonic() > held_until)
    assert working.container.code is None
    assert not closed(2)
    story.open("aggregate")
    until("round 2 is closed", lambda: closed(2))
    assert working.container.wait(30) == 0, working.container.text
    assert "round 2, attempt" not in coordinator.container.text

    # an upgrade of all others during round 3: the new pod is there before the old one is told to end
    new = story.started("Job", "digits")
    assert new.container.wait(30) not in failing(new), new.container.text  # the old one serves the run
    assert "is already running" in new.container.text
    coordinator.end(143)
    coordinator = story.started("Job", "digits").start()  # as the Job does after some seconds
    for number, site in enumerate(("site-1", "site-2")):
        new = story.started("Job", of=site, app=story.app)
        assert new.container.wait(30) not in failing(new), new.container.text
        assert "is already running" in new.container.text
        edges[number].end(143)
        edges[number] = story.started("Job", of=site, app=story.app).start()  # as the Job does after some seconds
    for name in ("ui", "metrics"):
        new = story.started("Deployment", f"-{name}").start()
        watching[name].end(0)
        watching[name] = new
    bus.end(0)
    bus = story.started("StatefulSet", "redis").start()
    cluster.serve(story.manifest("Service", "redis"), bus)
    story.open("train-3")
    until("round 3 is closed", lambda: closed(3), 90)

    # those who look, and a probe that fails
    tokens = {name: value.decode() for name, value in cluster.secrets["demo-flavor-tokens"].items()}

    def scraped() -> str:
        found = watching["metrics"].container.get(9600, "/metrics", Authorization=f"Bearer {tokens['metrics-token']}")
        return str(found[1])

    until("the metrics have found Redis again", lambda: 'flavor_run_round{run="digits"}' in scraped())
    assert watching["metrics"].container.get(9600, "/metrics")[0] == 401
    assert watching["ui"].container.get(8600, f"/?token={tokens['ui-token']}")[0] == 200
    check_liveness(coordinator)

    story.open("train-4")
    until("the run is over", lambda: coordinator.container.code is not None)
    assert coordinator.container.code == 0
    assert [edge.container.wait(30) for edge in edges] == [0, 0]
    until("no aggregator is left", lambda: keda.pods == 0)
    ended(story)
    assert max(keda.seen) <= 2
    assert keda.seen.count(0) >= 2

    verified = operator.container.execute("flavor", "verify", "digits")
    assert verified.returncode == 0, verified.stderr
    operator.end(0)
    store = cluster.claim("demo-flavor-store", {})
    (model,) = (store / "runs" / "digits" / "global").glob("0004-model-*.safetensors")
    np.testing.assert_array_equal(load_file(model)["w"], np.full(4, 4 * 1.5, np.float32))


def failing(pod: Pod) -> list[int]:
    """The exit codes with which the Job of a pod has failed, and starts no other pod."""
    rules = pod.workload["spec"]["podFailurePolicy"]["rules"]
    return next(rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob")


def ended(story: Story) -> None:
    """Every aggregator that was told to end has ended by itself, or by the signal where it had not begun yet."""
    for each in story.ending:
        code = each.container.wait(30)
        begun = "listens on queue" in each.container.text
        assert code == 0 or (code == 128 + signal.SIGTERM and not begun), each.container.text
    story.ending.clear()


def check_restrictions(pod: Pod) -> None:
    """Its user, its capabilities, its root."""
    inside = pod.container.execute("sh", "-c", "id -u; grep CapEff /proc/self/status; touch /x /usr/x /app/x; ls /proc")
    user, capabilities, *processes = inside.stdout.split("\n")
    assert (user, capabilities.split()[1]) == ("10001", "0" * 16)
    assert inside.stderr.count("Read-only file system") == 3, inside.stderr
    status = Path(f"/proc/{pod.container.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t10001\t10001" in status
    assert "1" in processes


def check_liveness(pod: Pod) -> None:
    """A program that stands still fails, and one that goes on passes again."""
    pod.container.signal(signal.SIGSTOP)
    pod.container.execute("touch", "-d", "-100 seconds", "/run/flavor/alive")
    assert not pod.container.passes("livenessProbe")
    pod.container.signal(signal.SIGCONT)
    eventually("it is alive", lambda: pod.container.passes("livenessProbe"), pause_s=0.3)


def logs(story: Story) -> str:
    return "\n".join(
        f"--- {pod.name} ({pod.container.code}): {pod.container.text[-3000:]}" for pod in story.cluster.pods
    )
