"""Manifests of rounds that Redis has not closed: made up by who writes to the store, or known to a newer Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.edge.trust import ModelTrust
from flavor.errors import StateLost, UntrustedModel
from flavor.ledger.archive import Archive
from flavor.ledger.audit import audit
from flavor.ledger.history import History
from flavor.ledger.keys import SigningKey
from flavor.ledger.manifest import Contributor, Manifest
from flavor.ledger.recover import recover
from flavor.ledger.trust import Trust
from flavor.ledger.witnesses import aggregators
from flavor.records.states import RoundState
from flavor.store.open import open_store
from flavor.store.paths import manifest_path
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Lines
from tests.integration.test_signatures import KEY, OTHER, TOKEN, aggregate, begun, submit_both
from tests.unit.forged_run import ForgedRun, overwrite
from workers.context import context, set_context

UNKNOWN = SigningKey.generate()
KEYS = {"a": KEY, "b": OTHER}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def runs(url: str, store: ObjectStore) -> Iterator[RunStore]:
    runs = begun(url, store)
    yield runs
    set_context(None)
    runs.redis.close()


@pytest.fixture
def told() -> list[str]:
    return []


def first_round(runs: RunStore, store: ObjectStore) -> Manifest:
    """Close it, and open the second one."""
    submit_both(runs, store)
    aggregate(runs)
    manifest = Archive(store, "r").manifest(1)
    assert manifest is not None
    runs.open_round(TOKEN, 2, expected=["a", "b"], timeout_s=60, reason="go")
    return manifest


def after(before: Manifest, *signing: str) -> Manifest:
    """A manifest of the round after another, as true as one can be made by who has the keys of these clients."""
    made = before.model_copy(
        update={
            "round": before.round + 1,
            "previous": before.digest,
            "trained_from": before.global_model.digest,
            "public_key": "",
            "signature": "",
        }
    )

    def again(of: Contributor) -> Contributor:
        if of.client not in signing:
            return of
        return of.model_copy(update={"signature": KEYS[of.client].sign(made.statement(of).message())})

    return made.model_copy(update={"contributors": tuple(again(each) for each in made.contributors)})


def put(store: ObjectStore, manifest: Manifest, key: SigningKey) -> Manifest:
    """Into the place of its round, whatever lies there."""
    archive, signed = Archive(store, manifest.run), manifest.signed(key)
    store.delete([manifest_path(manifest.run, manifest.round)])
    archive.put(manifest_path(manifest.run, manifest.round), signed.to_bytes())
    return signed


def test_the_runs_aggregators_are_read_once_however_often_one_is_made_up(
    runs: RunStore, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, archive, asked = first_round(runs, store), Archive(store, "r"), list[int]()
    committed = Archive.committed
    monkeypatch.setattr(Archive, "committed", lambda *of: asked.append(of[1]) or committed(*of))
    for _ in range(3):
        assert aggregators(runs, archive, 2) == {before.public_key}
    assert asked == [1]


def test_one_that_a_site_has_made_up_stops_nothing(runs: RunStore, store: ObjectStore, told: list[str]) -> None:
    """Signed with the site's own key, and with its own statement: a coordinator starts, a worker closes the round."""
    before, archive = first_round(runs, store), Archive(store, "r")
    made_up = put(store, after(before, "a"), KEY)
    history = History(runs, archive, told.append)
    for _ in range(2):  # as after each reconnection: it is told of once
        history.check()
    [line] = told
    assert "round 2: runs/r/manifests/round-2.json is signed with key" in line
    assert "fewer than 2 of its clients have signed what it names" in line
    assert line.endswith("it counts for no round; the run goes on")
    submit_both(runs, store, 2, before.global_model.digest)
    context().observer = Lines(told.append, name_runs=True)
    aggregate(runs, 2)
    view = runs.read_round(2)
    assert view is not None
    assert (view.state, view.error) == (RoundState.CLOSED, None)
    assert any(line.startswith("run r, round 2: runs/r/manifests/round-2.json is signed") for line in told)
    assert archive.manifest(2) == made_up
    history.settle(2, view.manifest)
    assert view.manifest is not None
    true = archive.manifest(2)
    assert true is not None
    assert true.digest == view.manifest.digest
    assert "it is put back; the run goes on" in told[-1]
    History(runs, archive, told.append).check()
    found = audit(archive, trust=Trust(frozenset({str(context().key.public)})))
    assert (found.chain.closed, [each for each in found.problems if each.round == 2]) == (2, [])
    log = (fields for _, fields in runs.redis.xrange(runs.keys.log) if fields["event"] == "round.note")
    notes = [fields["reason"] for fields in log if "round-2.json" in fields["reason"]]
    assert ["it counts for no round" in note for note in notes] == [True, True, False]


def test_in_the_first_round_too(runs: RunStore, store: ObjectStore, told: list[str]) -> None:
    """No aggregator is known yet, and the clients are by the keys that they joined with."""
    submit_both(runs, store)
    aggregate(runs)
    archive = Archive(store, "r")
    true = archive.manifest(1)
    assert true is not None
    runs.redis.hset(runs.keys.round(1), mapping={"state": "aggregating", "attempt": "1"})
    runs.redis.hdel(runs.keys.round(1), "lease", "lease_ms", "closed_ms", "manifest_path", "manifest_digest")
    [mine, theirs] = true.contributors
    for contributors in (
        (mine,),
        (mine, theirs.model_copy(update={"num_examples": 7})),
        (mine, theirs.model_copy(update={"public_key": str(KEY.public), "signature": mine.signature})),
        (mine, theirs.model_copy(update={"public_key": "", "signature": ""})),
        (mine, mine),
        (mine, *(mine.model_copy(update={"client": name, "signature": ""}) for name in ("x", "y"))),
    ):
        put(store, true.model_copy(update={"contributors": contributors}), UNKNOWN)
        History(runs, archive, told.append).check()
    assert len(told) == 6
    put(store, true, UNKNOWN)
    with pytest.raises(StateLost, match="Redis has 0 closed"):
        History(runs, archive, told.append).check()


@pytest.mark.parametrize("signed_by", ["an aggregator that is known", "one that is not"])
def test_what_an_older_redis_does_not_know_is_refused(
    runs: RunStore, store: ObjectStore, told: list[str], signed_by: str
) -> None:
    """By its aggregator, of however unknown clients; or by its clients, of a new aggregator: by all, and loudly."""
    before, archive = first_round(runs, store), Archive(store, "r")
    known = signed_by == "an aggregator that is known"
    put(store, after(before) if known else after(before, "a", "b"), context().key if known else UNKNOWN)
    with pytest.raises(StateLost, match="has 2 closed rounds in the store, but Redis has 1 closed"):
        History(runs, archive, told.append).check()
    submit_both(runs, store, 2, before.global_model.digest)
    aggregate(runs, 2)
    view = runs.read_round(2)
    assert view is not None
    assert "closed in the object store, but not on Redis" in (view.error or "")
    assert told == []


def test_a_redis_from_before_the_clients_joined_cannot_tell(
    runs: RunStore, store: ObjectStore, told: list[str]
) -> None:
    """Then it stops the run, as do clients that are known and sign nothing: who writes to the store can name them."""
    before, archive = first_round(runs, store), Archive(store, "r")
    put(store, after(before), UNKNOWN)
    runs.redis.hdel(runs.keys.public_keys, "b")
    with pytest.raises(StateLost, match="Redis has 1 closed"):
        History(runs, archive, told.append).check()
    runs.redis.delete(runs.keys.public_keys)
    runs.redis.sadd(runs.keys.members, "a", "b")
    unsigned = after(before)
    bare = tuple(each.model_copy(update={"public_key": "", "signature": ""}) for each in unsigned.contributors)
    put(store, unsigned.model_copy(update={"contributors": bare}), UNKNOWN)
    with pytest.raises(StateLost, match="Redis has 1 closed"):
        History(runs, archive, told.append).check()
    assert told == []


def test_one_in_the_place_of_a_true_one_hides_no_later_round(
    runs: RunStore, store: ObjectStore, told: list[str]
) -> None:
    before, archive = first_round(runs, store), Archive(store, "r")
    second = after(before, "a", "b")
    put(store, after(second, "a", "b"), context().key)
    put(store, after(before, "a"), KEY)
    for _ in range(2):
        with pytest.raises(StateLost, match="has 3 closed rounds in the store, but Redis has 1 closed"):
            History(runs, archive, told.append).check()
        overwrite(store.local(manifest_path("r", 2)), b"{}")


def test_a_run_begins_where_only_made_up_rounds_lie_if_its_clients_are_known(
    runs: RunStore, store: ObjectStore, told: list[str]
) -> None:
    """An operator has pinned their keys. Without, an empty Redis cannot tell, and refuses."""
    submit_both(runs, store)
    aggregate(runs)
    archive = Archive(store, "r")
    true, record = archive.manifest(1), archive.beginning()
    assert true is not None
    assert record is not None
    runs.remove_keys()
    made_up = put(store, true.model_copy(update={"contributors": true.contributors[:1]}), KEY)
    with pytest.raises(StateLost, match="Redis does not know it"):
        History(runs, archive, told.append).begin(record)
    for client, key in KEYS.items():
        runs.pin_key(client, str(key.public))
    assert History(runs, archive, told.append).begin(record) == record
    assert "it counts for no round; the run goes on" in told[0]
    assert archive.manifest(1) == made_up, "it is replaced when the round is closed"
    assert not runs.redis.exists(runs.keys.log)
    put(store, true, UNKNOWN)
    with pytest.raises(StateLost, match="Redis does not know it"):
        History(runs, archive, told.append).begin(record)


# -- the store alone

CONFIG = RunConfig(rounds=3, min_clients=2, store="elsewhere").to_mapping()


@pytest.fixture
def run(tmp_path: Path) -> ForgedRun:
    """Two rounds are closed, of the clients a and b."""
    return ForgedRun(tmp_path / "forged", config=dict(CONFIG), clients=dict(KEYS)).complete(2)


def made_up(run: ForgedRun, *signing: str, key: SigningKey = KEY) -> Manifest:
    return put(run.store, after(run.manifests[-1], *signing), key)


def test_a_run_is_rebuilt_without_a_round_that_was_made_up(run: ForgedRun, url: str, told: list[str]) -> None:
    trust = Trust(frozenset({str(run.worker.public)}))
    made_up(run, "a")
    found = audit(run.archive, trust=trust)
    assert (found.chain.closed, found.chain.head) == (2, run.manifests[-1].digest)
    [problem] = [each for each in found.problems if each.round == 3]
    assert "it counts for no round (if it is a round of the run: --trust ed25519:" in str(problem)
    with connect(url) as redis:
        redis.flushall()
        runs = RunStore(redis, "r", url)
        assert recover(run.archive, runs, url=url, trust=trust, tell=told.append).round == 2
        assert [line for line in told if "round-3.json" in line]
        assert runs.read().round == 2
        History(runs, run.archive, told.append).check()
        assert told[-1].endswith("it counts for no round; the run goes on")


def test_what_may_be_a_round_of_a_new_aggregator_is_not_left_out(run: ForgedRun, url: str, told: list[str]) -> None:
    trust = Trust(frozenset({str(run.worker.public)}))
    third = put(run.store, run.manifest(3), UNKNOWN)
    assert audit(run.archive, trust=trust).chain.closed == 3
    with connect(url) as redis:
        redis.flushall()
        with pytest.raises(StateLost, match="which --trust does not name"):
            recover(run.archive, RunStore(redis, "r", url), url=url, trust=trust, tell=told.append)
    run.archive.stage(third.signed(run.worker))
    made_up(run, "a")
    assert audit(run.archive, trust=trust).chain.closed == 3, "a true round was replaced: that is no other matter"


def test_a_site_takes_a_final_model_although_the_open_round_has_a_made_up_manifest(run: ForgedRun) -> None:
    trust, model = ModelTrust(frozenset({str(run.worker.public)})), run.manifests[-1].global_model.to_global("")
    digest = run.manifests[-1].digest
    made_up(run, "a")
    trust.check_final(run.archive, run.run_id, 3, model, digest=lambda: digest)
    earlier = run.manifests[0].global_model.to_global("")
    with pytest.raises(UntrustedModel):
        trust.check_final(run.archive, run.run_id, 2, earlier, digest=lambda: digest)
    overwrite(run.store.local(manifest_path("r", 2)), b"{}")
    trust.check_final(run.archive, run.run_id, 2, model, digest=lambda: digest)
