"""Row 51: a finite update that makes the model, or the server's state, infinite."""

from __future__ import annotations

import numpy as np

from flavor.checkpoints import TensorFile
from flavor.store.open import open_store
from tests.faults.federation import Faulty


def test_a_finite_update_that_overflows_costs_its_site_alone(own_url, bench_at):
    """Row 51: -3.4e38 with a datasetSize of 2^62, then 1e30; all stays finite, and no honest site is blamed."""
    faulty = Faulty(bench_at(own_url), clients=("c1", "c2", "c3"))
    bench = faulty.bench
    coordinator = faulty.serve("--aggregator", "diloco", "--quorum", 2)
    aggregator = bench.aggregator()
    hostile = ("--fail", "huge,far", "--at", 2, "--only", "c3")
    edges = faulty.edges(only={"c3": hostile})
    assert coordinator.wait() == 0, coordinator.stderr
    assert [edge.wait() for edge in edges.values()] == [0, 0, 0]
    aggregator.end()
    assert "nothing bounds a site's share" in coordinator.stderr
    refused = [(entry["client"], entry["round"]) for entry in bench.log() if entry["event"] == "update.refused"]
    assert refused == [("c3", "2"), ("c3", "3")]
    assert [bench.runs.read_round(n).contributors for n in (1, 2, 3)] == [faulty.clients, ("c1", "c2"), ("c1", "c2")]
    store, model = open_store(str(bench.store)), bench.runs.read().global_model
    for path in (model.model.path, model.state.path):
        file = TensorFile.open(store.local(path))
        assert all(np.isfinite(file.tensor(name)).all() for name in file.names)
