"""A trainer on a compute node without a way out: its edge passes its events on by files (`--relay-events files`)."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import networks
import pytest

from tests.conftest import TRAINER
from tests.faults.federation import MISSED, Faulty
from tests.faults.servers import Server

SLURM = Path(__file__).with_name("slurm.py")
PAGE = Path(__file__).parents[2] / "docs" / "slurm.md"
ON_NODE = """
import os, runpy, socket, sys
assert "s3cret" not in str(dict(os.environ)), "no credential of the edge"
assert not [name for name in os.environ if "REDIS" in name or name.startswith("FLAVOR_TLS")], "no secret of the bus"
for host, port in (("127.0.0.1", {port}), ("10.77.1.1", {port})):
    try:
        socket.create_connection((host, port), timeout=5)
    except OSError as error:
        print("no way to Redis:", error.strerror)
    else:
        sys.exit("Redis can be reached from here")
from flavor.cook import utils
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


class Cluster:
    """A login node, where the edges and this test are, and a compute node."""

    def __init__(self, faulty: Faulty, network: networks.Network, port: int) -> None:
        self.faulty, self.bench, work = faulty, faulty.bench, faulty.bench.work
        for name, script in (("main.py", TRAINER), ("evaluate.py", TRAINER.with_name("toy_evaluator.py"))):
            (work / name).write_text(ON_NODE.format(port=port, script=str(script)))
        for name, text in re.findall(r"```sh (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL):
            (work / name).write_text(text)
        for name in ("srun", "sbatch", "scancel"):
            (work / name).symlink_to(SLURM)
        path = os.pathsep.join([str(work), os.path.dirname(sys.executable), os.environ["PATH"]])
        self._node = {"TEST_SLURM_NODE": shlex.join(network.under), "TEST_SLURM_JOBS": str(work), "PATH": path}

    def edge(
        self, client: str, *flags: object, by: str = "srun --partition=gpu python main.py", job: int = 7, judge=()
    ):
        command = " ".join([by, *map(str, flags)])
        env = {**self._node, "TEST_SLURM_JOB": str(job)}
        env["AWS_SECRET_ACCESS_KEY"] = "s3cret"
        return self.bench.edge(client, command, "--relay-events", "files", *judge, env=env)

    def start(self, client: str) -> Path:
        """The folder of the last start of this client's script."""
        return sorted((self.bench.folder / client / "relay").iterdir())[-1]


@pytest.fixture
def cluster(on_port: Faulty, redis_server: Server) -> Iterator[Cluster]:
    if why := networks.why_not():
        pytest.skip(why)
    network = networks.Network()
    yield Cluster(on_port, network, redis_server.port)
    network.close()


def test_a_trainer_on_a_node_without_a_network_takes_part(cluster: Cluster) -> None:
    faulty, bench = cluster.faulty, cluster.bench
    coordinator = faulty.serve()
    bench.aggregator()
    judge = ("-e", "srun --partition=gpu python evaluate.py")
    edges = {"c1": cluster.edge("c1", judge=judge), "c2": cluster.edge("c2", by="sh submit.sh", job=8)}
    faulty.finish(coordinator, edges)
    assert edges["c1"].stdout.count("no way to Redis") == 4, "the trainer and its evaluator have tried two addresses"
    assert "round 3 starts from" in (bench.folder / "c1" / "logs" / "trainer.log").read_text()
    assert "the script runs on " in edges["c1"].stderr
    assert ", in Slurm's job 7" in edges["c1"].stderr
    assert bench.runs.read_round(3).contributors == ("c1", "c2")
    assert "round 3: the result is handed in" in edges["c1"].stderr
    assert "did not read the global model" not in edges["c1"].stderr
    assert "still running" not in edges["c2"].stderr, "a job of sbatch is seen to end soon"
    assert "[c2] round 3 starts from" in edges["c2"].stdout


def test_jobs_that_outlive_a_killed_edge_lose_nothing_and_disturb_nothing(cluster: Cluster) -> None:
    """Row 59: one has saved its round, and its new edge hands it in; one is in the midst of it, and leaves no trace."""
    faulty, bench = cluster.faulty, cluster.bench
    gates = {client: faulty.gate(client) for client in ("c1", "c2")}
    coordinator = faulty.serve(*MISSED)
    bench.aggregator()
    where = {"c1": "saved", "c2": "started"}
    old = {c: cluster.edge(c, "--gate", gates[c].path, "--at", 2, "--where", where[c]) for c in gates}
    for gate in gates.values():
        gate.reached()
    for edge in old.values():
        edge.send(signal.SIGKILL)
        edge.wait()
    starts = {client: cluster.start(client) for client in gates}
    gates["c1"].open()
    bench.eventually("the job asks for TrainFinished", lambda: _asks(starts["c1"], "TrainFinished"))
    new = {client: cluster.edge(client, job=8) for client in gates}
    new["c1"].until("round 2 was trained before: handing it in")
    new["c2"].until("the script runs on ")  # so the folders of earlier starts are emptied
    gates["c2"].open()
    bench.eventually(
        "the late job saves its model in a folder of its own", (starts["c2"] / "local" / "model.ckpt").exists
    )
    bench.eventually("the old jobs end", lambda: not [c for c in bench.survivors().values() if "--gate" in c])
    faulty.finish(coordinator, new)
    assert bench.runs.read_round(2).contributors == ("c1", "c2")


def test_a_job_ends_with_its_edge_and_a_command_that_starts_none_says_why(cluster: Cluster) -> None:
    """By srun, and by the scripts that docs/slurm.md has for sbatch."""
    faulty, bench = cluster.faulty, cluster.bench
    coordinator = faulty.serve()
    other = cluster.edge("c2", by="srun --partition=none python main.py")
    assert other.wait() == 5
    assert "before TrainInitDone (exit code 1): srun: error: Unable to allocate resources: Invalid" in other.stderr
    assert "its script has not asked for anything: if it has begun, its job lacks the environment" in other.stderr
    gates = {client: faulty.gate(client) for client in ("c1", "c2")}
    job = (bench.work / "train.sbatch").read_text()
    (bench.work / "train.sbatch").write_text(job.replace("main.py", f"main.py --gate {gates['c2'].path} --at 1"))
    edges = [cluster.edge("c1", "--gate", gates["c1"].path, "--at", 1), cluster.edge("c2", by="sh submit.sh", job=8)]
    for gate in gates.values():
        gate.reached()
    edges[1].until("[c2] round 1 starts from", stream="stdout")
    assert "in Slurm's job 8" in edges[1].stderr
    for edge in edges:
        edge.send(signal.SIGTERM)
        assert edge.wait() == 143
    bench.eventually("no job is left", lambda: not [c for c in bench.survivors().values() if "main.py" in c])
    coordinator.send(signal.SIGTERM)
    coordinator.wait()


def _asks(start: Path, event: str) -> bool:
    return any(event in path.read_text() for path in (start / "asks").glob("[!.]*.json"))
