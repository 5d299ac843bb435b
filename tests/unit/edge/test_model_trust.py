"""What a site that trusts an aggregator's key trains from, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.edge.trust import ModelTrust
from flavor.errors import InvalidSetting, UntrustedModel
from flavor.ledger.keys import SigningKey
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.store.paths import manifest_path
from tests.recorded import changed
from tests.unit.forged_run import ForgedRun, overwrite


@pytest.fixture
def run(tmp_path: Path) -> ForgedRun:
    return ForgedRun(tmp_path / "s").complete(2)


def made(run: ForgedRun, round_: int = 2) -> GlobalModel:
    """The global model of a round, as the bus names it."""
    return run.manifests[round_ - 1].global_model.to_global("")


def trusting(run: ForgedRun, *more: str) -> ModelTrust:
    return ModelTrust.parse([str(run.worker.public), *more])


def refusal(trust: ModelTrust, run: ForgedRun, model: GlobalModel | None, round_: int = 2, run_id: str = "") -> str:
    with pytest.raises(UntrustedModel) as error:
        trust.check(run.archive, run_id or run.run_id, round_, model)
    return str(error.value)


def test_the_model_that_its_round_made_is_trained_from(run: ForgedRun) -> None:
    trusting(run).check(run.archive, run.run_id, 2, made(run))
    trusting(run).check_final(run.archive, run.run_id, 2, made(run))
    trusting(run).check_final(run.archive, run.run_id, 3, made(run))  # a third round was open when the run ended


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "0" * 64}, "Redis names 000000000000…"),
        ({"size_bytes": 1}, "is of a model with SHA-256"),
        ({"info_digest": "0" * 64}, "is of other merged information"),
        ({"info_digest": ""}, "is of other merged information"),
        ({"info_path": "", "info_digest": ""}, "is of other merged information"),
        ({"format": "pickle"}, "or of another format"),
    ],
)
def test_another_model_than_the_manifest_names(run: ForgedRun, change: dict[str, object], said: str) -> None:
    assert said in refusal(trusting(run), run, changed(made(run), **change))  # type: ignore[arg-type]


def test_a_manifest_of_another_round_run_or_key(run: ForgedRun, tmp_path: Path) -> None:
    trust = trusting(run)
    assert "is of a model with" in refusal(trust, run, made(run, 1))  # correctly signed, and of an earlier round
    assert "is not in the store" in refusal(trust, run, made(run), round_=3)
    assert "of another run" in refusal(trust, run, made(run), run_id="f" * 32)
    assert "is not named" in refusal(trust, run, None)
    thief = ModelTrust.parse([str(SigningKey.generate().public)])
    assert "which --trust does not name" in refusal(thief, run, made(run))


def test_a_manifest_that_was_changed_or_is_none(run: ForgedRun) -> None:
    file = run.store.local(manifest_path(run.name, 2))
    overwrite(file, file.read_bytes().replace(b'"attempt":1', b'"attempt":2'))
    assert "its signature is not that of its key" in refusal(trusting(run), run, made(run))
    overwrite(file, b"{}")
    assert "is not trained from" in refusal(trusting(run), run, made(run))


def test_initial_weights_are_named_by_their_digest(run: ForgedRun) -> None:
    initial = run.record.initial
    assert initial is not None
    model = initial.to_global("")
    assert f"--trust sha256:{model.model.digest}" in refusal(trusting(run), run, model, round_=0)
    trusting(run, f"sha256:{model.model.digest}").check(run.archive, run.run_id, 0, model)
    trusting(run).check(run.archive, run.run_id, 0, None)


def test_no_merged_information_is_taken_before_the_first_round(run: ForgedRun) -> None:
    """Nobody has signed any: whoever writes the run's hash had named a file of its own beside the named weights."""
    assert run.record.initial is not None
    model = run.record.initial.to_global("")
    trust = trusting(run, f"sha256:{model.model.digest}")
    made_up = changed(model, info_path="runs/r/global/0000-info.json", info_digest="0" * 64)
    told = refusal(trust, run, made_up, round_=0)
    assert "merged information (runs/r/global/0000-info.json) before its first round" in told
    assert "\n" not in told
    with pytest.raises(UntrustedModel, match="before its first round"):
        trust.check_final(run.archive, run.run_id, 0, made_up)
    ModelTrust.parse([]).check(run.archive, run.run_id, 0, made_up)


def test_without_a_key_every_model_is_trained_from(run: ForgedRun) -> None:
    ModelTrust.parse([]).check(run.archive, "", 7, changed(made(run), digest="0" * 64))


def test_what_is_no_trust(run: ForgedRun, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"site-1 {run.worker.public}\n")
    for words in (["sha256:" + "0" * 64], [str(keys)], ["ed25519:x"], ["sha256:x"]):
        with pytest.raises(InvalidSetting):
            ModelTrust.parse(words)
    keys.write_text(f"site-1 {SigningKey.generate().public}\n{run.worker.public}\n")
    trust = ModelTrust.parse([str(keys), "sha256:" + "0" * 64])
    assert trust.keys == {str(run.worker.public)}
    assert ModelTrust.parse(trust.words()) == trust


def test_a_manifest_that_was_copied_to_the_place_of_an_open_round_refuses_no_final_model(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    trust, last = ModelTrust.parse([str(run.worker.public)]), run.manifests[-1]
    model, data = last.global_model.to_global(""), run.archive.data(2)
    assert data is not None
    with run.store.stage() as staged:
        staged.write_bytes(data)
        run.store.put(ObjectRef(manifest_path(run.archive.run, 3), last.digest), staged)
    trust.check_final(run.archive, run.run_id, 3, model, digest=lambda: last.digest)
