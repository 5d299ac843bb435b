"""Row 48: a second run where an earlier one was."""

from __future__ import annotations

from flavor.records.names import Event
from tests.faults.federation import Faulty


def numbers(edge) -> list[str]:
    """What the trainer began each round from."""
    return [line.split()[-1] for line in edge.stdout.splitlines() if "starts from" in line]


def test_a_second_run_in_the_same_workspace_trains_its_first_round_from_nothing(faulty, bench_class, tmp_path):
    """Row 48: the same folders, another run; then the same name once more, after `flavor rm --objects`."""
    workspaces = {client: tmp_path / client for client in faulty.clients}
    bench = faulty.bench

    def trained(name: str) -> None:
        bench.run = name
        bench.runs = type(bench.runs)(bench.redis, name, bench.url)
        (bench.handed_in).unlink(missing_ok=True)
        coordinator, aggregator = faulty.serve(), bench.aggregator()
        edges = {c: bench.edge(c, bench.trainer(), "--workspace", path) for c, path in workspaces.items()}
        assert coordinator.wait() == 0, coordinator.stderr
        for edge in edges.values():
            assert edge.wait() == 0, edge.stderr
            assert numbers(edge) == ["0.0000", "1.6667", "3.3333"]
        aggregator.end()

    first = bench.run
    trained(first)
    left = [path / "global" / "model.ckpt" for path in workspaces.values()]
    assert all(path.exists() for path in left), "or nothing is tested"
    trained(f"{first}-2")
    removed = bench.done("flavor", "rm", first, "--objects", "--store", bench.store)
    assert removed.wait() == 0, removed.stderr
    keys = bench.runs.keys
    trained(first)
    assert keys.run == f"{first}-2"


def test_events_that_another_runs_trainer_left_end_no_round(faulty):
    """Row 48: TrainFinished of every round stands there already when an edge of the same name joins."""
    assert isinstance(faulty, Faulty)
    bench = faulty.bench
    coordinator = faulty.serve()
    bench.aggregator()
    bench.logged("run.created")
    for client in faulty.clients:
        keys = bench.runs.keys.client(client)
        for round_ in range(1, 4):
            for event in (Event.TRAIN_STARTED, Event.TRAIN_FINISHED, Event.PROCESS_FINISHED):
                bench.redis.set(keys.event(round_, event), "1")
        bench.redis.set(keys.event(0, Event.TRAIN_INIT_DONE), "1")
        bench.redis.mset({keys.started: "3", keys.taken: "3"})
    faulty.finish(coordinator, faulty.edges())


def test_two_sites_with_one_local_model_path_do_not_hand_in_each_others_model(faulty):
    """A path in the environment of both: the second is told so before it has touched anything."""
    bench = faulty.bench
    coordinator = faulty.serve()
    bench.aggregator()
    shared = bench.folder / "shared" / "model.pkl"
    named = {"LOCAL_MODEL_PATH": str(shared)}
    first = bench.edge("c1", bench.trainer("--hold", "--at", 1), env=named)
    first.until(f"taken from the environment: LOCAL_MODEL_PATH={shared}")
    second = bench.edge("c2", bench.trainer(), env=named)
    assert second.wait() == 2
    assert (
        f"the folder {shared.parent} is in use: client 'c1' of run {bench.run!r} has it (pid {first.pid})"
        in second.stderr
    )
    second = bench.edge("c2", bench.trainer())
    bench.held("c1")
    bench.release("c1")
    faulty.finish(coordinator, {"c1": first, "c2": second})
