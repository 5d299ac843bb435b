"""A site that trains from what a trusted aggregator has signed alone."""

from __future__ import annotations

from flavor.ledger.keys import SigningKey
from flavor.store.paths import manifest_path
from tests.conftest import Bench


def test_a_site_with_trust_trains_from_signed_models_alone(bench: Bench) -> None:
    """With another key it ends before the second round; with the right one it takes part to the end."""
    signer = bench.folder / "aggregator.key"
    coordinator = bench.serve("--on-quorum-lost", "wait", rounds=3, clients=1)
    bench.aggregator("--key", signer)
    other = SigningKey.generate().public
    wrong = bench.edge("edge-1", bench.trainer(), "--trust", other)
    assert wrong.wait() == 1, wrong.stderr
    last = wrong.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: the global model of round 1 is not trained from: "), wrong.stderr
    assert f"key {SigningKey.load(signer).public.fingerprint}, which --trust does not name" in last
    assert "Traceback" not in wrong.stderr
    right = bench.edge("edge-1", bench.trainer(), "--trust", other, "--trust", f"{signer}.pub")
    assert [right.wait(), coordinator.wait()] == [0, 0], right.stderr
    assert "could not be fetched" not in right.stderr


def test_what_is_no_manifest_stops_nothing_and_is_named(bench: Bench) -> None:
    """Somebody who can write to the store puts two bytes where the manifests of this round and the next will lie."""
    coordinator = bench.serve(rounds=2, clients=1)
    bench.aggregator()
    edge = bench.edge("edge-1", bench.trainer("--hold", "--at", "1"))
    bench.held("edge-1")
    for round_ in (1, 2):
        path = bench.store / manifest_path(bench.run, round_)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    bench.release("edge-1")
    assert [edge.wait(), coordinator.wait()] == [0, 0], coordinator.stderr
    assert "is not the manifest that its aggregator has signed" in coordinator.stderr
    found = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert found.wait() == 1
    for round_ in (1, 2):
        assert f"wrong: round {round_}: {manifest_path(bench.run, round_)}: " in found.stderr
