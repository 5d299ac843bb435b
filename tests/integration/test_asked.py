"""A run that asks for what a site does not give: that site declines in one line, and the others go on."""

from __future__ import annotations

from tests.conftest import Bench, Process

ASKED = ("--checkpoint", "opaque", "--set", "LEARNING_RATE=0.1", "--set", "KUBECONFIG=/tmp/theirs")


def declined(edge: Process) -> str:
    """Its last line: of an edge that has started nothing."""
    assert edge.wait() == 2, edge.stderr
    assert edge.stdout == "", "no trainer ran"
    assert "Traceback" not in edge.stderr
    assert "joined" not in edge.stderr
    return edge.stderr.splitlines()[-1]


def test_what_a_run_asks_is_declined_by_who_does_not_give_it_and_the_others_go_on(bench: Bench) -> None:
    """Doors 2: opaque checkpoints, and a variable that is on no list; both, one or none of them allowed."""
    coordinator = bench.serve(*ASKED, rounds=1, clients=2)
    aggregator = 'sh -c \'cp "$(head -n 1 "$OUTPUT_PATH/localModels")" "$(cat "$OUTPUT_PATH/globalModel")"\''
    bench.aggregator("-m", aggregator, "--workspace", bench.folder / "agg")
    allow = ("--allow-set", "KUBE*")
    trainer = bench.trainer("--say", "hello")
    edges = {
        "c1": bench.edge("c1", trainer),
        "c2": bench.edge("c2", trainer, "--opaque"),
        "c3": bench.edge("c3", trainer, *allow),
    }
    for client in ("c1", "c3"):
        line = declined(edges[client])
        assert f"Error: run {bench.run!r} has opaque checkpoints" in line, line
        assert "start with --opaque if you trust its coordinator that far" in line
    line = declined(edges["c2"])
    assert f"Error: run {bench.run!r} sets KUBECONFIG=/tmp/theirs for its trainers" in line, line
    assert "start with --allow-set KUBECONFIG if you agree" in line
    assert bench.runs.clients(["c2"])["c2"][0].failure == "declined"
    for client in edges:
        lacks = "a setting of --set (--allow-set KUBECONFIG)" if client == "c2" else "opaque checkpoints (--opaque)"
        told = f'"it does not take part as this run asks: its user has not allowed {lacks}"'
        assert bench.logged("client.lost", client=client)["reason"] == told
        assert f"{client} joined" not in coordinator.stderr
        coordinator.until(f"{client} came without a key")
    assert coordinator.stderr.count(', and takes no part: "it does not take part as this run asks: ') == 3
    shown = 'import os; print(os.environ["KUBECONFIG"], os.environ["LEARNING_RATE"])'
    (bench.folder / "shown.py").write_text(shown)
    agreed = [
        bench.edge(client, trainer, "--opaque", *allow, "-p", f"python {bench.folder / 'shown.py'}")
        for client in ("c1", "c4")
    ]
    assert [coordinator.wait(), *(edge.wait() for edge in agreed)] == [0, 0, 0], coordinator.stderr
    for edge in agreed:
        assert "its checkpoints are opaque: nothing looks into the global models" in edge.stderr
        assert "the run sets for its trainer: KUBECONFIG=/tmp/theirs LEARNING_RATE=0.1" in edge.stderr
        assert "/tmp/theirs 0.1" in edge.stdout
    assert bench.runs.read_round(1).contributors == ("c1", "c4")
    assert all(f"{client} joined with key " in coordinator.stderr for client in ("c1", "c4"))
