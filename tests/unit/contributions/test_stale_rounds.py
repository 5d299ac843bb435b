"""Rounds with stale updates are made again from the manifests: the same bytes, with and without a site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aggregators.staleness import Polynomial
from flavor.contributions.kept import read_kept
from flavor.contributions.reading import RoundUpdates
from flavor.ledger.trust import Trust
from tests.unit.contributions.madeup import MadeRun


@pytest.mark.parametrize("compress", ["none", "int8"])
def test_a_round_with_a_stale_update_is_made_again(tmp_path: Path, compress: str) -> None:
    rng = np.random.default_rng(5)

    def model() -> dict[str, np.ndarray]:
        return {"w": rng.normal(size=600).astype(np.float32)}

    config = {"mode": "async:buffer=2", "min_clients": 3, "compress": compress}
    run = MadeRun(tmp_path / "s", initial=model(), config=config)
    for _ in range(2):
        run.round({client: (model(), 10) for client in "abc"})
    run.round({client: (model(), 10) for client in "abc"}, stale={"b": (1, Polynomial(0.5).factor(2))})
    kept = read_kept(run.archive, Trust(), None).rounds[-1]
    assert kept.stale["b"].task_round == 1
    assert kept.stale["b"].scale == Polynomial(0.5).factor(2)
    reader = RoundUpdates(run.store, kept, 1)
    reader.read()
    assert reader.agreement() is not None
    assert reader.make(tmp_path / "again") == kept.manifest.global_model.digest
    assert reader.make(tmp_path / "without", without="b") != kept.manifest.global_model.digest
