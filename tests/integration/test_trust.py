"""A site that trains from what a trusted aggregator has signed alone."""

from __future__ import annotations

from flavor.ledger.keys import SigningKey
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
