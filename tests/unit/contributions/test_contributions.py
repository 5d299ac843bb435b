"""What sites contribute to made-up runs whose answers are known.

The judge's metric is the first weight of the model, so that a site which adds to it helps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flavor.checkpoints import TensorFile
from flavor.config import RunConfig
from flavor.contributions.by_command import ByCommand
from flavor.contributions.kept import read_kept
from flavor.contributions.measure import measure
from flavor.contributions.result import Contributions, Part, how_to_read, lines_of, mean, table_of
from flavor.errors import DigestMismatch, EvaluatorFailed, InvalidRecord, RunError
from flavor.ledger.keys import SigningKey
from flavor.ledger.trust import Trust
from flavor.policy.selection import Select
from tests.unit.contributions.madeup import MadeRun, weights
from tests.unit.forged_run import overwrite

GOOD, BAD = weights(1, 1), weights(-1, -1)
ZERO = weights(0, 0)


@dataclass
class FirstWeight:
    """A `ModelJudge`: the first weight of the model. It fails for models below `least`."""

    least: float = -np.inf
    seen: list[float] = field(default_factory=list)

    def value(self, model: Path, *, round_: int, format_: str) -> float:
        assert format_ == "pickle"
        value = float(np.asarray(TensorFile.open(model).tensor("w"))[0])
        self.seen.append(value)
        if value < self.least:
            raise EvaluatorFailed("the command of -e ended (exit code 3)")
        return value


def measured(
    run: MadeRun, tmp_path: Path, *, most: int | None = None, judge: FirstWeight | None = None, metric="w:max"
) -> Contributions:
    kept = read_kept(run.archive, Trust(), most)
    trial = ByCommand(judge or FirstWeight(), Select.parse(metric), tmp_path)
    return measure(kept, run.store, threads=2, trial=trial)


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path / "store", ZERO)


def contributions(found: Contributions) -> dict[str, float | None]:
    return {site.client: site.contribution.mean if site.contribution else None for site in found.sites}


def test_the_site_with_a_flipped_sign_has_a_negative_cosine_and_contribution_and_comes_first(run, tmp_path):
    run.round({"a": (GOOD, 10), "b": (GOOD, 10), "c": (BAD, 10)})
    found = measured(run, tmp_path)
    worst = found.sites[0]
    assert worst.client == "c"
    assert worst.cosine.mean == pytest.approx(-1)
    assert worst.without.mean == pytest.approx(1)
    assert contributions(found) == pytest.approx({"c": 1 / 3 - 1, "a": 1 / 3, "b": 1 / 3})
    assert [site.cosine.mean for site in found.sites[1:]] == pytest.approx([1, 1])
    assert contributions(measured(run, tmp_path, metric="w:min")) == pytest.approx(
        {"c": 2 / 3, "a": -1 / 3, "b": -1 / 3}
    )


def test_equal_sites_contribute_nothing_and_their_model_is_judged_once(run, tmp_path):
    run.round(dict.fromkeys("abc", (GOOD, 10)))
    judge = FirstWeight()
    found = measured(run, tmp_path, judge=judge)
    assert contributions(found) == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert judge.seen == [1.0]
    assert [site.norm_ratio.mean for site in found.sites] == pytest.approx([1, 1, 1])


def test_several_rounds_have_a_spread_and_the_weights_of_the_run_count(run, tmp_path):
    run.round({"a": (weights(4, 0), 30), "b": (weights(0, 4), 10)})
    assert run.tensors()["w"].tolist() == [3, 1]
    run.round({"a": (weights(3, 1), 30), "b": (weights(3, 5), 10)})
    found = measured(run, tmp_path)
    (a,) = [site for site in found.sites if site.client == "a"]
    assert (a.contribution.lowest, a.contribution.highest, a.contribution.rounds) == (0, 3, 2)
    assert a.cosine.rounds == 1  # in the second round it has changed nothing
    assert a.cosine.mean == pytest.approx(3 / np.sqrt(10))
    heads, rows = table_of(found)
    assert heads == ["SITE", "ROUNDS", "EXAMPLES", "COSINE", "NORM", "WITHOUT IT", "CONTRIBUTION"]
    assert rows[1] == ["a", "2", "30", "0.9487", "0.6325 (0 … 1.265)", "1.5 (0 … 3)", "+1.5 (+0 … +3)"]
    assert "spread over the rounds" in how_to_read(found)


@pytest.mark.parametrize(
    "config",
    [
        {"aggregator": "diloco"},
        {"aggregator": "median", "server_step": "adam"},
        {"compress": "bf16"},
        {"compress": "int8"},
        {"aggregator": "norm_clip:c=1/median"},
        {"weights": "equal"},
    ],
    ids=str,
)
def test_each_round_is_made_again_bit_for_bit_with_the_server_state_before_it(config, tmp_path):
    rng = np.random.default_rng(7)
    run = MadeRun(tmp_path / "store", {"w": rng.normal(size=5000).astype(np.float32)}, config=config)
    for _ in range(3):
        base = run.tensors()["w"]
        run.round(
            {c: ({"w": base + rng.normal(size=5000).astype(np.float32)}, 10 * i + 1) for i, c in enumerate("abc")}
        )
    found = measured(run, tmp_path)
    assert [each.value is not None for each in found.rounds] == [True] * 3
    assert not [each.why_not for each in found.rounds if each.why_not]
    assert all(site.contribution.rounds == 3 for site in found.sites)


def test_a_first_round_without_a_model_has_no_cosine_but_contributions(tmp_path):
    run = MadeRun(tmp_path / "store")
    run.round({"a": (GOOD, 10), "b": (weights(3, 3), 10)})
    found = measured(run, tmp_path)
    assert [site.cosine for site in found.sites] == [None, None]
    assert contributions(found) == {"a": -1, "b": 1}
    assert "round 1: no cosine: it began from no model, so that there is no change to compare" in lines_of(found)


def test_a_mask_of_infinities_takes_no_part(tmp_path):
    mask = {"mask": np.array([0, -np.inf], np.float32)}
    run = MadeRun(tmp_path / "store", ZERO | mask)
    run.round({"a": (GOOD | mask, 10), "b": (BAD | mask, 30)}, constants={"a": ["mask"], "b": ["mask"]})
    found = measured(run, tmp_path)
    assert contributions(found) == pytest.approx({"b": -1.5, "a": 0.5})


def test_a_rule_that_needs_more_sites_says_so_and_the_cosines_stay(tmp_path):
    run = MadeRun(tmp_path / "store", ZERO, config={"aggregator": "krum:f=1"})
    run.round({c: (weights(1 + i / 10, 1), 10) for i, c in enumerate("abcdef")})
    assert measured(run, tmp_path).is_judged
    few = MadeRun(tmp_path / "few", ZERO, config={"aggregator": "trimmed_mean:f=1"})
    few.round({c: (weights(1 + i / 10, 1), 10) for i, c in enumerate("abc")})
    found = measured(few, tmp_path)
    assert not found.is_judged
    assert {site.why_not for site in found.sites} != {""}
    (line,) = [line for line in lines_of(found) if "without a, b, c: trimmed_mean" in line]
    assert "got n = 2" in line
    assert all(site.cosine.mean > 0.9 for site in found.sites)


def test_a_round_of_one_site_leaves_none_out(run, tmp_path):
    run.round({"a": (GOOD, 10)})
    found = measured(run, tmp_path)
    assert not found.is_judged
    assert found.rounds[0].why_not == "it has the update of one site alone"


def test_a_model_that_the_rule_does_not_make_is_told(run, tmp_path):
    other = RunConfig(**{**run.settings.to_mapping(), "aggregator": "median"})
    run.round({"a": (GOOD, 10), "b": (BAD, 20)}, by=other)
    found = measured(run, tmp_path)
    assert not found.is_judged
    assert "aggregated again by fedavg, give a model with the SHA-256" in found.rounds[0].why_not
    assert {site.client for site in found.sites if site.cosine} == {"a", "b"}


@pytest.mark.parametrize("aggregator", ["command", "aumai-fedtrain"])
def test_a_model_of_another_aggregator_leaves_no_site_out(aggregator, tmp_path):
    run = MadeRun(tmp_path / "store", ZERO, config={"aggregator": aggregator})
    own = RunConfig(**{**run.settings.to_mapping(), "aggregator": "fedavg"})
    run.round({"a": (GOOD, 10), "b": (BAD, 20)}, by=own)
    judge = FirstWeight()
    found = measured(run, tmp_path, judge=judge)
    assert judge.seen == []
    assert found.sites[0].client == "a"
    assert found.rounds[0].why_not


def test_an_evaluator_that_fails_for_one_model_costs_that_value_alone(run, tmp_path):
    run.round({"a": (weights(2, 0), 10), "b": (weights(-2, 0), 10), "c": (weights(3, 0), 10)})
    found = measured(run, tmp_path, judge=FirstWeight(least=0.2))
    assert contributions(found) == {"b": -1.5, "a": 0.5, "c": None}
    (c,) = [site for site in found.sites if site.client == "c"]
    assert c.why_not == "the command of -e ended (exit code 3)"
    with pytest.raises(EvaluatorFailed):
        measured(run, tmp_path, judge=FirstWeight(least=5))


def test_which_rounds_are_pruned_is_told(run, tmp_path):
    for _ in range(4):
        run.round({"a": (GOOD, 10), "b": (BAD, 20)})
    run.prune(1)
    run.prune(2)
    found = measured(run, tmp_path)  # --keep-rounds 3
    assert [each.round for each in found.rounds] == [3, 4]
    assert found.lacking == {2: "the update of a is pruned (--keep-rounds 3)"}
    assert [each.round for each in measured(run, tmp_path, most=1).rounds] == [4]
    assert list(measured(run, tmp_path, most=9).lacking) == [1, 2]
    for round_ in (3, 4):
        run.prune(round_)
    with pytest.raises(RunError, match=r"round 2 cannot be looked at: .*, and 2 further rounds likewise"):
        measured(run, tmp_path)


def test_a_round_that_is_pruned_during_the_reading_is_left_out(run, tmp_path):
    for _ in range(2):
        run.round({"a": (GOOD, 10), "b": (BAD, 20)})
    kept = read_kept(run.archive, Trust(), None)
    run.prune(1)
    found = measure(kept, run.store, threads=1)
    assert [each.round for each in found.rounds] == [2]
    assert found.lacking == {1: "the update of a is pruned (--keep-rounds 3), since this command has begun"}
    run.prune(2)
    with pytest.raises(RunError, match="has gone on, and the updates of all these rounds are pruned"):
        measure(kept, run.store, threads=1)


def test_a_run_without_closed_rounds(run, tmp_path):
    with pytest.raises(RunError, match="no closed round yet"):
        measured(run, tmp_path)


def test_what_was_changed_in_the_store_is_refused(run, tmp_path):
    manifest = run.round({"a": (GOOD, 10), "b": (BAD, 20)})
    with pytest.raises(InvalidRecord, match="--trust does not name"):
        read_kept(run.archive, Trust.read([str(SigningKey.generate().public)]), None)
    overwrite(run.store.local(manifest.contributors[0].path), b"x" * manifest.contributors[0].size_bytes)
    with pytest.raises(DigestMismatch):
        measured(run, tmp_path)


def test_an_opaque_run_is_refused(tmp_path):
    run = MadeRun(tmp_path / "store", ZERO, config={"checkpoint": "opaque"})
    tensors = RunConfig(**{**run.settings.to_mapping(), "checkpoint": "tensors"})
    run.round({"a": (GOOD, 10), "b": (BAD, 20)}, by=tensors)
    with pytest.raises(RunError, match="'opaque', which have no tensors"):
        measured(run, tmp_path)


def test_nothing_is_written_to_the_store(run, tmp_path):
    run.round({"a": (GOOD, 10), "b": (BAD, 20)})
    before = sorted(run.folder.rglob("*"))
    measured(run, tmp_path)
    assert sorted(run.folder.rglob("*")) == before


def test_what_rounding_leaves_is_no_contribution() -> None:
    """A site with -5.6e-17 was marked as one that hurts."""
    part = Part(num_examples=1)
    assert part.compared(0.7, 0.7 + 1.2e-16, Select.parse("loss:min")).contribution == 0
    assert part.compared(3e-17, 1e-17, Select.parse("loss:min")).contribution == pytest.approx(-2e-17)
    assert mean([0.1, 0.2, -0.3]) == 0
    assert mean([1e-17, 3e-17]) == pytest.approx(2e-17)
