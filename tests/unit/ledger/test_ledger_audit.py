"""`flavor verify` finds whatever was changed, and says what it cannot find."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flavor.errors import OtherProtocol, RunNotFound
from flavor.ledger.audit import audit
from flavor.ledger.keys import SigningKey
from flavor.ledger.trust import Trust, trust_hint
from flavor.store.paths import accepted_path, client_folder, global_prefix, manifest_path, round_of
from tests.unit.forged_run import CONFIG, SIZES, ForgedRun, overwrite, put


@pytest.fixture
def run(tmp_path: Path) -> ForgedRun:
    return ForgedRun(tmp_path / "s").complete()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ForgedRun:
    return ForgedRun(tmp_path_factory.mktemp("whole") / "s").complete()


def found(run: ForgedRun, trust: Trust | None = None, **options: str) -> list[str]:
    return [str(problem) for problem in audit(run.archive, trust, **options).problems]


def trusting(run: ForgedRun, **clients: SigningKey) -> Trust:
    named = {client: frozenset({str(key.public)}) for client, key in clients.items()}
    return Trust(frozenset({str(run.worker.public)}), named)


def remade(run: ForgedRun, round_: int, key: SigningKey, **changes: object) -> None:
    """Replace a round's manifest by another, signed with `key`."""
    path = run.store.local(manifest_path(run.name, round_))
    forged = run.manifests[round_ - 1].model_copy(update=changes).signed(key)
    overwrite(path, forged.to_bytes())
    run.manifests[round_ - 1] = forged


def test_an_honest_run_is_right(run: ForgedRun) -> None:
    found = audit(run.archive, trusting(run, **run.clients))
    assert found.problems == []
    assert (found.chain.closed, found.chain.head) == (3, run.manifests[2].digest)
    assert (
        found.checked == 1 + 3 * 8
    )  # the initial model; model, info, state, two updates with their infos, the staged manifest
    assert found.gone == {}


def test_a_round_without_the_server_state_of_the_round_before_is_of_another_rule(run: ForgedRun) -> None:
    """As a worker leaves it that takes no outer step."""
    model = run.manifests[2].global_model.model_copy(update={"state_path": "", "state_digest": ""})
    remade(run, 3, run.worker, global_model=model)
    assert found(run) == [
        f"round 3: {manifest_path('r', 3)}: it has no server state, and round 2 has one: "
        "it was aggregated by another rule"
    ]


KINDS = ("/run.json", "/round-", "/staged-", "/global/0000-model", "-model-", "-info-", "-state-", "-update-")


def any_file(run: ForgedRun, data: st.DataObject) -> Path:
    """A file of any kind."""
    kind = data.draw(st.sampled_from(KINDS), label="kind")
    return data.draw(st.sampled_from([path for path in run.files() if kind in str(path)]), label="file")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_found(whole: ForgedRun, data: st.DataObject) -> None:
    path = any_file(whole, data)
    before = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(before) - 1), label="byte"), data.draw(st.integers(0, 7), label="bit")
    changed = bytearray(before)
    changed[at] ^= 1 << bit
    try:
        overwrite(path, bytes(changed))
        try:
            assert any(path.name in problem for problem in found(whole))
        except OtherProtocol:  # the bit made the run's record one of another release
            assert path.name == "run.json"
    finally:
        overwrite(path, before)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_file_cut_off_or_prolonged_is_found(whole: ForgedRun, data: st.DataObject) -> None:
    path = any_file(whole, data)
    before = path.read_bytes()
    changed = data.draw(st.sampled_from([before[:-1], before + b"\n", before + before, b""]))
    try:
        overwrite(path, changed)
        assert any(path.name in problem for problem in found(whole))
    finally:
        overwrite(path, before)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 3), (1, 3)])
def test_two_manifests_swapped(run: ForgedRun, one: int, other: int) -> None:
    first, second = (run.store.local(manifest_path("r", round_)) for round_ in (one, other))
    data = first.read_bytes()
    overwrite(first, second.read_bytes())
    overwrite(second, data)
    problems = found(run)
    for round_, there in ((one, other), (other, one)):
        assert (
            f"round {round_}: {manifest_path('r', round_)}: it is the manifest of round {there} of run 'r'" in problems
        )


@pytest.mark.parametrize("round_", [1, 2, 3])
def test_a_manifest_removed(run: ForgedRun, round_: int) -> None:
    run.store.local(manifest_path("r", round_)).unlink()
    assert any(f"{manifest_path('r', round_)}: missing" in problem for problem in found(run))


def stray(run: ForgedRun, round_: int) -> str:
    """A file where a manifest would be."""
    path = run.folder / manifest_path("r", round_)
    path.write_text("{}")
    return manifest_path("r", round_)


def test_a_stray_manifest_of_a_round_that_the_run_does_not_have_is_one_problem(run: ForgedRun) -> None:
    path = stray(run, 90_000)
    result = audit(run.archive)
    assert [str(problem) for problem in result.problems] == [
        f"round 90000: {path}: it does not belong to the run, which has 3 rounds"
    ]
    assert (result.chain.closed, result.chain.head) == (3, run.manifests[2].digest)


def test_a_gap_is_one_problem_however_long(tmp_path: Path) -> None:
    """Of a run that nobody knows the rounds of; the reader visits what is there."""
    run = ForgedRun(tmp_path / "s").complete(2)
    run.store.local("runs/r/run.json").unlink()
    path = stray(run, 90_000)
    begun, gap, unreadable = found(run)
    assert "runs/r/run.json: missing" in begun
    missing = "missing, as are those up to round 89999, although later rounds have theirs"
    assert gap == f"round 3: {manifest_path('r', 3)}: {missing}"
    assert unreadable.startswith(f"round 90000: {path}: not a record")
    assert [link.round for link in audit(run.archive).chain.links] == [1, 2, 3, 90_000]


def test_the_run_s_record_removed_or_replaced(run: ForgedRun) -> None:
    path = run.store.local("runs/r/run.json")
    overwrite(path, run.record.model_copy(update={"rounds": 9}).to_bytes())
    assert any("does not follow runs/r/run.json" in problem for problem in found(run))
    path.unlink()
    assert any("the run: runs/r/run.json: missing" in problem for problem in found(run))


@pytest.mark.parametrize("what", ["model", "info", "state"])
def test_the_newest_objects_must_be_there_and_older_ones_need_not(run: ForgedRun, what: str) -> None:
    for round_ in (3, 1):
        made = [path for path in run.store.list("runs/r/global/") if round_of(path) == round_]
        next(run.store.local(path) for path in made if what in path).unlink()
    result = audit(run.archive)
    assert [(problem.round, problem.what.split(":")[0]) for problem in result.problems] == [(3, "missing")]
    assert list(result.gone) == [1]


def prune(run: ForgedRun, round_: int) -> None:
    for client in SIZES:
        run.store.delete([path for path in run.store.list(client_folder("r", client)) if round_of(path) == round_])


def test_pruned_updates_are_no_fault_and_others_are(run: ForgedRun) -> None:
    prune(run, 1)
    whole = [f"the {what} of {client}" for client in SIZES for what in ("update", "information")]
    assert audit(run.archive).gone == {1: whole}
    assert found(run) == []
    prune(run, 2)
    assert [problem.rpartition(": ")[2] for problem in found(run)] == whole


def while_reading(act: Callable[[], object]) -> Callable[[int, int], None]:
    """As `progress`: does this once, after the first object."""
    return lambda done, total: act() if done == 1 else None


def test_a_run_that_goes_on_while_it_is_read_has_nothing_wrong(tmp_path: Path) -> None:
    """What has to be there is told by the round that is the newest at the end."""
    run = ForgedRun(tmp_path / "s", config={**CONFIG, "rounds": 4, "keep_rounds": 1}).complete(2)

    def goes_on() -> None:
        run.close(run.manifest(3))
        prune(run, 2)
        run.store.delete([path for path in run.store.list("runs/r/global/") if round_of(path) == 2])

    result = audit(run.archive, trusting(run), progress=while_reading(goes_on))
    assert (result.problems, result.chain.closed) == ([], 2)
    assert {"the global model", "the update of a"} <= set(result.gone[2])


def test_what_is_removed_while_it_is_read_and_has_to_be_there_is_missing(run: ForgedRun) -> None:
    result = audit(run.archive, progress=while_reading(lambda: prune(run, 3)))
    whole = [f"missing: the {what} of {client}" for client in SIZES for what in ("update", "information")]
    assert [problem.what for problem in result.problems] == whole


def test_what_no_record_names_and_is_removed_while_it_is_read_is_nothing(run: ForgedRun) -> None:
    path, _ = put(run.store, global_prefix("r", 3), "model", b"of an attempt that failed", ".safetensors")
    assert audit(run.archive, progress=while_reading(lambda: run.store.delete([path]))).problems == []


def test_a_round_that_is_closed_while_it_is_read_has_its_manifest_in_the_end(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    manifest = run.manifest(3)
    result = audit(run.archive, progress=while_reading(lambda: run.close(manifest)))
    assert (result.problems, result.chain.closed) == ([], 2)


def test_a_manifest_that_was_put_in_place_by_others_while_it_was_read_is_found(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    manifest = run.manifest(3)
    forge = while_reading(lambda: run.close(manifest, SigningKey.generate()))
    assert any(
        "--trust does not name" in str(each) for each in audit(run.archive, trusting(run), progress=forge).problems
    )


@pytest.mark.parametrize(("before", "after", "gone"), [(0, 1, (1, 2)), (1, 0, (1,)), (3, 1, (1, 2))])
def test_what_a_run_keeps_may_have_changed_when_it_was_resumed(
    tmp_path: Path, before: int, after: int, gone: tuple[int, ...]
) -> None:
    run = ForgedRun(tmp_path / "s", config={**CONFIG, "keep_rounds": before}).complete(2)
    run.config = {**run.config, "keep_rounds": after}
    run.close(run.manifest(3))
    for round_ in gone:
        prune(run, round_)
    assert found(run) == []
    prune(run, 3)
    assert len(found(run)) == 4


def test_a_round_signed_anew_with_another_key(run: ForgedRun) -> None:
    """In the middle the next manifest gives it away; the last one only a key that is known from elsewhere."""
    thief = SigningKey.generate()
    remade(run, 2, thief, closed_ms=7)
    assert any("does not follow" in problem for problem in found(run))
    remade(run, 3, thief, previous=run.manifests[1].digest)
    assert found(run) == []  # from round 2 on, all by the thief's key: nothing in the store contradicts it
    problems = found(run, trusting(run))
    assert [problem.split(":")[0] for problem in problems] == ["round 2"]
    assert "(and so in 1 more round, up to round 3)" in problems[0]
    assert all(f"key {thief.public.fingerprint}, which --trust does not name" in problem for problem in problems)


def test_a_forged_model_is_betrayed_by_the_clients_that_trained_from_it(run: ForgedRun) -> None:
    """They have signed the digest of the model that they were given; nobody can sign for them."""
    thief = SigningKey.generate()
    forged = run.manifest(2, tag=" with a back door").global_model
    remade(run, 2, thief, global_model=forged)
    remade(run, 3, thief, previous=run.manifests[1].digest, trained_from=forged.digest)
    problems = found(run)
    for client in ("a", "b"):
        assert any(f"round 3: {manifest_path('r', 3)}: {client}: the signature on its update" in p for p in problems)


def test_a_forged_contribution(run: ForgedRun) -> None:
    thief = SigningKey.generate()
    a, b = run.manifests[2].contributors
    remade(run, 3, run.worker, contributors=(a, b.model_copy(update={"num_examples": 2000})))
    assert any("b: the signature on its update is not that of its key" in problem for problem in found(run))
    statement = run.manifests[2].statement(b)
    forged = {"public_key": str(thief.public), "signature": thief.sign(statement.message())}
    remade(run, 3, run.worker, contributors=(a, b.model_copy(update=forged)))
    assert any("b: its key is" in problem for problem in found(run))
    remade(run, 3, run.worker, contributors=(a, b.model_copy(update={"public_key": "", "signature": ""})))
    assert any("b: its update is not signed, and it had the key" in problem for problem in found(run))
    remade(run, 3, run.worker, contributors=(a, a))
    assert any("a client is in it twice" in problem for problem in found(run))
    strange = b.model_copy(update={"path": a.path})
    remade(run, 3, run.worker, contributors=(a, strange))
    assert any("is not an update of b in this round" in problem for problem in found(run))


def test_a_client_whose_key_is_known_from_elsewhere(tmp_path: Path) -> None:
    """Another key in all rounds is right in itself; so is none at all."""
    run = ForgedRun(tmp_path / "s").complete()
    real = SigningKey.generate()
    assert found(run) == []
    (problem,) = found(run, trusting(run, a=real))
    assert "which --trust does not name for it (and so in 2 more rounds, up to round 3)" in problem
    unsigned = ForgedRun(tmp_path / "u", clients={"a": None, "b": SigningKey.generate()}).complete()
    assert found(unsigned) == []
    assert sum("a: its update is not signed" in problem for problem in found(unsigned, trusting(unsigned, a=real))) == 3


def test_a_key_that_was_changed_by_agreement(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    old, run.clients["a"] = run.clients["a"], SigningKey.generate()
    assert isinstance(old, SigningKey)
    run.close(run.manifest(3))
    assert len(found(run)) == 1
    both = Trust(clients={"a": frozenset({str(old.public), str(run.clients["a"].public)})})
    assert found(run, both) == []


def with_another_key(tmp_path: Path, *, recorded: bool) -> tuple[ForgedRun, str]:
    """Five rounds; site a's key is another one from round 3 on. The run, and the key before."""
    run = ForgedRun(tmp_path / "s", config={**CONFIG, "rounds": 6}).complete(2)
    old, run.clients["a"] = run.clients["a"], SigningKey.generate()
    assert isinstance(old, SigningKey)
    if recorded:
        run.replaced["a"] = (str(old.public),)
    for round_ in (3, 4, 5):
        run.close(run.manifest(round_))
    return run, str(old.public)


def test_a_key_that_an_operator_replaced_is_told_once_and_needs_no_old_key(tmp_path: Path) -> None:
    """The aggregator's signature vouches for the record; where that is not trusted, the record is not believed."""
    run, old = with_another_key(tmp_path, recorded=True)
    new = run.clients["a"]
    assert new is not None
    for trust in (trusting(run), trusting(run, a=new), Trust(records=True)):
        result = audit(run.archive, trust)
        assert result.problems == []
        (notice,) = [str(notice) for notice in result.notices]
        assert notice.startswith("round 3: ")
        assert f"a: its key is {new.public.fingerprint} from here on" in notice
        assert notice.endswith("since round 1: an operator enrolled it anew")
    (problem,) = found(run)
    assert "an operator enrolled it anew, the record says, which --trust AGGREGATOR believes" in problem
    assert f"--trust 'a {old}' --trust 'a {new.public}'" in problem


def test_a_key_that_changed_without_an_operator_is_told_once_with_what_to_name(tmp_path: Path) -> None:
    run, old = with_another_key(tmp_path, recorded=False)
    (problem,) = found(run, trusting(run))
    assert problem.startswith("round 3: ")
    named = re.findall(r"--trust '(.+?)'", problem)
    assert [word for word in named if old in word] == [f"a {old}"]
    assert found(run, Trust.read([str(run.worker.public), *named])) == []


HOSTILE_KEYS = ("ed25519:'; touch /tmp/x #", "ed25519:$(touch x)", "x\ny", "ed25519:" + "0" * 64)


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_no_command_is_suggested_with_text_that_is_no_key(run: ForgedRun, key: str) -> None:
    """The text is in records, which any party that can write to the store can write."""
    other = SigningKey.generate()
    contributors = run.manifests[2].contributors
    hostile = contributors[0].model_copy(update={"public_key": key})
    remade(run, 3, other, contributors=(hostile, *contributors[1:]))
    for trust in (None, trusting(run), trusting(run, **{each: SigningKey.generate() for each in SIZES})):
        text = "\n".join(found(run, trust))
        assert text
        assert not [hint for hint in re.findall(r"right: (--trust .*)", text, re.DOTALL) if f"a {key}" in hint]
        for hint in re.findall(r"right: (--trust .*)\)", text):
            assert re.fullmatch(r"(--trust (ed25519:[0-9a-f]{64}|'[a-z] ed25519:[0-9a-f]{64}') ?)+", hint)


@pytest.mark.parametrize("name", ["a'; touch x #", "$(touch x)", "a b", "", "../a"])
def test_a_suggested_key_is_one_word_of_a_shell_and_only_for_a_name(name: str) -> None:
    key = str(SigningKey.generate().public)
    assert trust_hint((name, key)) == ""
    assert trust_hint(("a", key), (name, key)) == ""
    assert trust_hint((None, key)) == f"if that is right: --trust {key}"
    assert shlex.split(trust_hint(("a", key)))[-2:] == ["--trust", f"a {key}"]


def test_a_record_of_another_operator_s_act_does_not_cover_a_key(tmp_path: Path) -> None:
    run, _ = with_another_key(tmp_path, recorded=False)
    run.replaced["a"] = (str(SigningKey.generate().public),)
    run.clients["a"] = SigningKey.generate()
    run.close(run.manifest(6))
    assert len([each for each in found(run, trusting(run)) if "a: its key is" in each]) == 2


def test_an_aggregator_s_new_key_is_told_once_and_the_old_one_need_not_be_named(tmp_path: Path) -> None:
    """What it signed is held by the rounds that followed it; among or after rounds of named keys it is wrong."""
    run = ForgedRun(tmp_path / "s", config={**CONFIG, "rounds": 5}).complete(2)
    old, new = run.worker, SigningKey.generate()
    for round_ in (3, 4):
        run.close(run.manifest(round_), new)
    result = audit(run.archive, Trust.read([str(new.public)]))
    assert result.problems == []
    (notice,) = [str(notice) for notice in result.notices]
    assert f"round 1: {manifest_path('r', 1)}: it is signed with key {old.public.fingerprint}" in notice
    assert notice.endswith("from round 3 on another key signs, which it names: an aggregator has a new key")
    (problem,) = found(run, Trust.read([str(old.public)]))
    assert problem.endswith(f"(and so in 1 more round, up to round 4) (if that is right: --trust {new.public})")
    run.close(run.manifest(5), old)
    (problem,) = found(run, Trust.read([str(old.public)]))
    assert problem.startswith("round 3: ")


def test_unsigned_updates_in_a_run_that_takes_none(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s", config={"require_signatures": True}, clients={"a": None, "b": None}).complete(1)
    assert sum("took signed ones only" in problem for problem in found(run)) == 2


@pytest.mark.parametrize(
    "change",
    [{"attempt": 2}, {"opened_ms": 1}, {"closed_ms": 1}, {"expected": ("a", "b", "c")}, {"signature": "0" * 128}],
)
def test_the_newest_manifest_is_held_by_its_signature_alone(run: ForgedRun, change: dict[str, object]) -> None:
    overwrite(run.store.local(manifest_path("r", 3)), run.manifests[2].model_copy(update=change).to_bytes())
    (problem,) = found(run)
    assert "the signature is not that of its key" in problem


def test_an_unsigned_manifest(run: ForgedRun) -> None:
    data = run.manifests[2].model_copy(update={"signature": "", "public_key": ""}).to_bytes()
    overwrite(run.store.local(manifest_path("r", 3)), data)
    assert any("it is not signed" in problem for problem in found(run))


def test_settings_that_were_changed_on_the_way(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    run.config = {**run.config, "seed": 7}
    run.close(run.manifest(3))
    assert [problem.rpartition(": ")[2] for problem in found(run)] == ["seed"]


def test_settings_that_a_resumed_run_may_change_are_told_and_nothing_is_wrong(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    before = run.config["keep_rounds"]
    run.config = {**run.config, "keep_rounds": 7, "rounds": run.config["rounds"] + 1}
    for number in range(3, run.config["rounds"] + 1):
        run.close(run.manifest(number))
    result = audit(run.archive)
    assert not result.problems
    told = [str(notice) for notice in result.notices if "resumed" in str(notice)]
    assert len(told) == 1
    assert f"keep_rounds {before} -> 7, rounds" in told[0]
    assert "round 3: " in told[0]


def test_a_round_that_changed_nothing_is_told_and_nothing_is_wrong(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    run.close(run.manifest(3, weights=b"weights 2"))
    result = audit(run.archive)
    assert not result.problems
    (notice,) = [str(notice) for notice in result.notices]
    assert "round 3: " in notice
    assert notice.endswith("the model did not change in this round: nothing was trained")


def test_a_chain_cut_short_is_found_by_an_earlier_head(run: ForgedRun) -> None:
    head = audit(run.archive).chain.head
    assert found(run, head=head) == []
    for path in run.folder.glob("runs/r/**/*"):
        if path.name.startswith(("0003-", "round-3", "staged-3")):
            path.unlink()
    assert found(run) == []  # the store alone cannot know
    assert found(run, head=head) == [f"the run: runs/r/run.json: no record has the digest {head} given by --head"]
    assert found(run, head=run.manifests[1].digest) == []


def test_what_does_not_belong_does_no_harm(run: ForgedRun) -> None:
    (run.folder / "runs/r/notes.txt").write_text("mine")
    (run.folder / "runs/r/global/0003-a b-0123456789abcdef.bin").write_text("not a path of ours")
    assert [problem.split(": ")[0] for problem in found(run)] == ["round 3"]


def test_information_that_is_nested_too_deeply_is_a_problem(run: ForgedRun) -> None:
    """By whoever may sign rounds: its bytes are those that were recorded."""
    nested = b"[" * 1_000_000 + b"]" * 1_000_000
    path, digest = put(run.store, global_prefix("r", 3), "info", nested, ".json")
    model = run.manifests[2].global_model.model_copy(update={"info_path": path, "info_digest": digest})
    remade(run, 3, run.worker, global_model=model)
    assert found(run) == [f"round 3: {path}: it is nested too deeply to be the information of a round"]


def test_a_manifest_that_is_nested_too_deeply_is_a_problem(run: ForgedRun) -> None:
    path = run.store.local(manifest_path("r", 3))
    for depth in (300, 900, 100_000):
        config = b'"config":{"x":' + b"[" * depth + b"]" * depth + b","
        overwrite(path, run.manifests[2].to_bytes().replace(b'"config":{', config))
        (problem,) = found(run)
        assert problem.startswith(f"round 3: {manifest_path('r', 3)}: not "), depth


@pytest.mark.parametrize("round_", ["3", "1", "9", "0", "x"])
def test_what_a_client_puts_into_its_own_folder_cannot_make_it_fail(run: ForgedRun, round_: str) -> None:
    """It may write there what it likes; no record names it. Not even reading it is needed, however large it is."""
    path = f"runs/r/clients/a/{round_.zfill(4)}-x-0123456789abcdef.bin"
    file = run.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("other bytes than those that its name says")
    result = audit(run.archive)
    assert result.problems == []
    assert result.checked == 1 + 3 * 8
    (notice,) = result.notices
    where = f"round {round_}" if round_ in "319" else "the run"
    assert str(notice) == f"{where}: {path}: no record names it: refused, late, or none of this run's"


def test_what_was_taken_as_a_copy_is_known_where_its_site_left_it(run: ForgedRun) -> None:
    """Sites and aggregators that are users of their own: a worker cannot move another's file."""
    first, *others = run.manifests[2].contributors
    taken = accepted_path(first.path)
    copy = run.store.local(first.path).read_bytes()
    (run.folder / taken).parent.mkdir(parents=True)
    (run.folder / taken).write_bytes(copy)
    remade(run, 3, run.worker, contributors=(first.model_copy(update={"path": taken}), *others))
    result = audit(run.archive)
    assert (result.problems, result.notices) == ([], [])


def test_what_was_taken_for_the_round_in_hand_is_no_stranger(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s").complete(2)
    for round_ in (3, 4):
        path = run.folder / accepted_path(f"{client_folder('r', 'a')}{round_:04d}-update-0123456789abcdef.bin")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("accepted")
    (notice,) = audit(run.archive).notices
    assert notice.round == 4


def test_of_an_update_that_became_a_file_of_terabytes_nothing_is_read(run: ForgedRun) -> None:
    path = run.store.local(run.manifests[2].contributors[0].path)
    recorded = path.stat().st_size
    os.truncate(path, 4 * 2**40)
    (problem,) = found(run)
    assert f"has {4 * 2**40} bytes, not the recorded {recorded}" in problem


def test_an_update_that_a_record_names_stays_a_problem(run: ForgedRun) -> None:
    contributor = run.manifests[2].contributors[0]
    overwrite(run.store.local(contributor.path), b"other bytes")
    (problem,) = found(run)
    assert f"round 3: {contributor.path}: the update of a was changed" in problem
    assert audit(run.archive).notices == []


def test_a_run_that_has_just_begun_and_one_that_is_not(tmp_path: Path) -> None:
    run = ForgedRun(tmp_path / "s")
    with pytest.raises(RunNotFound, match="no run 'r' in the store"):
        audit(run.archive)
    run.begin()
    result = audit(run.archive)
    assert (result.problems, result.chain.closed, result.chain.head) == ([], 0, run.record.digest)


def test_progress_is_told_of_every_object(run: ForgedRun) -> None:
    told: list[tuple[int, int]] = []
    audit(run.archive, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == len(told) - 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("a",), "its chosen clients are not those of the manifest"),  # the merged information names none
        (("b", "a"), "its chosen clients are not contributors, in the order of the contributors"),
        (("a", "x"), "its chosen clients are not contributors, in the order of the contributors"),
    ],
)
def test_whom_a_manifest_says_the_rule_chose_is_checked(run: ForgedRun, chosen: tuple[str, ...], message: str) -> None:
    remade(run, 3, run.worker, chosen=chosen)
    assert any(problem.startswith("round 3") and message in problem for problem in found(run))
