"""Rounds with updates that were trained from older global models, by the worker's own combiner on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregators.staleness import Polynomial
from flavor.checkpoints import TensorFile
from flavor.errors import AggregationError, StoreUnavailable
from flavor.programs.aggregator_files import RoundFiles
from flavor.records.objects import ObjectRef
from tests.unit.contributions.madeup import MadeRun
from workers.combiner import Combined, Work
from workers.command_inputs import laid_out
from workers.stale import Stale, without_base

rng = np.random.default_rng(11)
FACTOR = Polynomial(0.5).factor


def model(size: int = 40) -> dict[str, Any]:
    return {"w": rng.normal(size=size).astype(np.float32), "steps": np.array([int(rng.integers(1, 9))])}


def begun(folder: Path, **config: Any) -> MadeRun:
    """A run from an initial model, with two closed rounds of three sites."""
    run = MadeRun(folder, initial=model(), config=config)
    for _ in range(2):
        run.round({client: (model(), 10) for client in "abc"})
    return run


def of_round(run: MadeRun, round_: int) -> Any:
    """The global model after this round; 0 is the initial one."""
    return np.array(TensorFile.open(run.store.local(run.made[round_].model.path)).tensor("w"), np.float64)


@pytest.mark.parametrize("compress", ["none", "int8"])
@pytest.mark.parametrize("aggregator", ["fedavg", "diloco"])
def test_a_round_is_the_step_of_fedbuff_from_the_newest_model(tmp_path: Path, compress: str, aggregator: str) -> None:
    run = begun(tmp_path, compress=compress, aggregator=aggregator)
    theta, given = of_round(run, 2), {"a": (model(), 10), "b": (model(), 30), "c": (model(), 20)}
    bases = {"a": theta, "b": of_round(run, 0), "c": of_round(run, 1)}
    scales = {"a": 1.0, "b": FACTOR(2), "c": FACTOR(1)}
    before = run.tensors()["w"].astype(np.float64)
    assert before.tolist() == theta.tolist()
    momentum = _momentum(run) if aggregator == "diloco" else None
    run.round(given, stale={"b": (1, scales["b"]), "c": (2, scales["c"])})
    down = sum(n * scales[c] * (bases[c] - each["w"]) for c, (each, n) in given.items()) / 60
    if momentum is not None:
        momentum = 0.9 * momentum + down
        down = 0.7 * (down + 0.9 * momentum)
    found = run.tensors()["w"]
    np.testing.assert_allclose(found, theta - down, rtol=1e-5, atol=1e-5 if compress == "none" else 0.03)


@pytest.mark.parametrize("compress", ["none", "int8"])
def test_local_steps_divide_the_change_that_a_stale_update_counts_with(tmp_path: Path, compress: str) -> None:
    run = MadeRun(tmp_path, initial=model(), config={"compress": compress, "aggregator": "fednova"})
    run.steps = steps = {"a": 4, "b": 40, "c": 10}
    for _ in range(2):
        run.round({client: (model(), 10) for client in "abc"})
    theta, given = of_round(run, 2), {"a": (model(), 10), "b": (model(), 30), "c": (model(), 20)}
    bases, scales = {"a": theta, "b": of_round(run, 0), "c": theta}, {"a": 1.0, "b": FACTOR(2), "c": 1.0}
    run.round(given, stale={"b": (1, scales["b"])})  # 10 steps: a and c have half of the weight
    down = 10 * sum(n * scales[c] * (bases[c] - each["w"]) / steps[c] for c, (each, n) in given.items()) / 60
    np.testing.assert_allclose(run.tensors()["w"], theta - down, rtol=1e-5, atol=1e-5 if compress == "none" else 0.1)


def _momentum(run: MadeRun) -> Any:
    assert run.model is not None
    assert run.model.state is not None
    return np.array(TensorFile.open(run.store.local(run.model.state.path)).tensor("momentum/w"), np.float64)


def test_a_stale_client_with_the_whole_factor_and_the_same_model_is_like_a_fresh_one(tmp_path: Path) -> None:
    """A model that did not change between two rounds moves no update."""
    run = MadeRun(tmp_path / "s", initial=(first := model()))
    run.round(dict.fromkeys("ab", (first, 10)))
    other = MadeRun(tmp_path / "f", initial=first)
    other.round(dict.fromkeys("ab", (first, 10)))
    given = {"a": (model(), 10), "b": (model(), 5)}
    run.round(given, stale={"b": (1, 1.0)})
    other.round(given)
    np.testing.assert_allclose(run.tensors()["w"], other.tensors()["w"], rtol=1e-6, atol=1e-6)


def test_an_update_that_is_its_own_base_is_told(tmp_path: Path) -> None:
    run = begun(tmp_path)
    first = {name: np.array(tensor) for name, tensor in _whole(run, 1).items()}
    run.round({"a": (model(), 10), "b": (first, 10)}, stale={"b": (2, 0.5)})
    assert [note for note in run.notes if "b handed in the global model, unchanged" in note], run.notes
    run.round({"a": (model(), 10), "b": (first, 10)}, stale={"b": (3, 0.5)})
    assert not [note for note in run.notes if "unchanged" in note], "it is another model than the one of its task"


def _whole(run: MadeRun, round_: int) -> dict[str, Any]:
    file = TensorFile.open(run.store.local(run.made[round_].model.path))
    return {name: file.tensor(name) for name in file.names}


class Inputs:
    """A `Combiner` that lays out the files of a user's aggregator, and takes the first client's as the result."""

    made_by = "command"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: RoundFiles | None = None

    def combine(self, work: Work, target: Path) -> Combined:
        self.files = laid_out(work, self.folder)
        target.write_bytes(work.store.local(work.updates["a"].object.path).read_bytes())
        update = work.updates["a"].object
        return Combined(update.digest, update.size_bytes or 0, work.info)


def test_an_aggregator_of_the_users_own_gets_stale_models_on_the_newest_one(tmp_path: Path) -> None:
    from flavor.checkpoints import read

    run = begun(tmp_path / "store", weights="equal")
    theta, base, given = of_round(run, 2), of_round(run, 1), {"a": (model(), 10), "b": (model(), 10)}
    inputs = Inputs(tmp_path / "files")
    inputs.folder.mkdir()
    run.round(given, stale={"b": (2, 0.5)}, combiner=inputs)
    assert inputs.files is not None
    fresh, stale = (read(path).tensors for path in inputs.files.local_models)
    assert fresh["w"].tobytes() == given["a"][0]["w"].tobytes()
    np.testing.assert_allclose(stale["w"], theta + 0.5 * (given["b"][0]["w"] - base), rtol=1e-5, atol=1e-6)
    newest = int(_whole(run, 2)["steps"][0])
    assert stale["steps"].tolist() == [newest + int(given["b"][0]["steps"][0]) - int(_whole(run, 1)["steps"][0])]


def test_a_base_of_another_structure_is_named(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.made[1] = run.made[0].__class__(run.put("runs/r/global/0001-", "other", {"w": np.zeros(2, np.float32)}))
    with pytest.raises(AggregationError, match="'steps' is not in the global model that it began from"):
        run.round({"a": (model(), 10), "b": (model(), 10)}, stale={"b": (2, 0.5)})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailable("answered 403", passing=False), "cannot be read in the store (answered 403)"),
        (StoreUnavailable("no answer", passing=True), ""),
    ],
)
def test_a_base_that_cannot_be_read_is_told_apart_from_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """What reports a failed attempt asks this: an error of its own would leave the attempt without a report."""
    run = begun(tmp_path)
    stale = {client: Stale(task, run.made[task - 1], 0.5) for client, task in (("a", 1), ("b", 2))}
    opened = run.store.open

    def of_one(ref: ObjectRef) -> Path:
        if ref == run.made[0].model:
            raise error
        return opened(ref)

    monkeypatch.setattr(run.store, "open", of_one)
    run.store.delete([run.made[1].model.path])
    found = without_base(run.store, stale)
    assert "no longer in the store: that is no fault of this site" in found.pop("b")
    assert [f"task of round 1 began, {said}: that is no" in reason for reason in found.values()] == [True] * bool(said)
