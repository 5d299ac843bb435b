"""Contributors that have done the task of an earlier round: their record, their statement, and the audit of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.errors import InvalidRecord
from flavor.ledger.audit import audit
from flavor.ledger.manifest import Manifest
from tests.unit.forged_run import ForgedRun


def initial(run: ForgedRun) -> str:
    assert run.record.initial is not None
    return run.record.initial.digest


def with_stale(folder: Path, task_round: int, base: Callable[[ForgedRun], str]) -> ForgedRun:
    """A run whose third round counts an update of `b` that was begun for an earlier one."""
    run = ForgedRun(folder)
    run.begin()
    for round_ in (1, 2):
        run.close(run.manifest(round_))
    run.close(run.manifest(3, stale={"b": (task_round, base(run))}))
    return run


def test_a_stale_contributor_is_recorded_and_its_statement_is_that_of_its_task(tmp_path: Path) -> None:
    run = with_stale(tmp_path, 2, lambda run: run.manifests[0].global_model.digest)
    stale = run.manifests[2].contributors[1]
    assert (stale.task_round, stale.trained_from) == (2, run.manifests[0].global_model.digest)
    statement = run.manifests[2].statement(stale)
    assert (statement.round, statement.trained_from) == (2, stale.trained_from)
    assert statement.is_signed(stale.public_key, stale.signature)
    assert audit(run.archive).problems == []


def test_the_first_model_may_be_the_base(tmp_path: Path) -> None:
    assert audit(with_stale(tmp_path, 1, initial).archive).problems == []


def test_a_round_without_stale_contributors_has_the_same_record_as_before(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path).complete(1)
    written = run.manifests[0].to_bytes().decode()
    assert written.count("trained_from") == 1, "that of the round alone"
    assert "task_round" not in written


@pytest.mark.parametrize(
    ("task_round", "base", "what"),
    [
        (2, initial, "b trained from another global model than the one before round 2"),
        (1, lambda run: "ab" * 32, "b trained from another global model than the one before round 1"),
        (3, lambda run: run.manifests[1].global_model.digest, "b did the task of round 3, which had not begun before"),
        (9, lambda run: "ab" * 32, "b did the task of round 9, which had not begun before this round"),
    ],
)
def test_a_base_that_is_not_that_of_the_chain_is_found(
    tmp_path: Path, task_round: int, base: Callable[[ForgedRun], str], what: str
) -> None:
    found = [problem.what for problem in audit(with_stale(tmp_path, task_round, base).archive).problems]
    assert any(what in each for each in found), found


def test_a_changed_round_of_a_task_breaks_the_signature(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path)
    run.begin()
    for round_ in (1, 2):
        run.close(run.manifest(round_))
    manifest = run.manifest(3, stale={"b": (2, run.manifests[0].global_model.digest)})
    fresh, stale = manifest.contributors
    moved = stale.model_copy(update={"task_round": 1, "trained_from": initial(run)})
    run.close(manifest.model_copy(update={"contributors": (fresh, moved)}))
    found = [problem.what for problem in audit(run.archive).problems]
    assert any("signature" in each and "b" in each for each in found), found
    assert any("is not an update of b in this round" in each for each in found), found


@pytest.mark.parametrize("field", ["task_round", "trained_from"])
def test_half_a_stale_contributor_is_no_record(tmp_path: Path, field: str) -> None:
    run = ForgedRun(tmp_path)
    run.begin()
    run.close(run.manifest(1))
    manifest = run.manifest(2, stale={"b": (1, initial(run))})
    fresh, stale = manifest.contributors
    half = manifest.model_copy(update={"contributors": (fresh, stale.model_copy(update={field: None}))})
    with pytest.raises(InvalidRecord, match="go together"):
        Manifest.parse(half.to_bytes(), "round-2.json")
