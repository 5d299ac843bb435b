"""Who notices a wrong model: values that are finite alone and not together, integers, masks, training that was lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec
from flavor.checkpoints.encoding import Encoding, encode
from flavor.config import RunConfig
from flavor.cook.metrics import binary_counts
from flavor.coordinator.attempts import refusals_of_spoiled
from flavor.errors import ObjectWithheld
from flavor.ledger.archive import Archive
from flavor.records.info import CONFUSION
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.states import RoundState
from flavor.store.open import open_store
from flavor.store.paths import named, update_prefix
from flavor.store.protocol import ObjectStore
from flavor.view.observer import Lines
from tests.infos import begin_run
from tests.integration.test_worker import TOKEN, open_round, submit, verdict
from workers import jobs
from workers.context import WorkerContext, set_context

MASK = np.triu(np.full((3, 3), -np.inf, np.float32), 1)
Tensors = dict[str, np.ndarray]


class Federation:
    """A run, and what its clients a, b and c hand in."""

    def __init__(self, url: str, store: ObjectStore, **settings: Any) -> None:
        self.redis = connect(url)
        self.redis.flushall()
        self.store, self.runs, self.round = store, RunStore(self.redis, "r", url), 0
        self.told: list[str] = []
        config = RunConfig.parse({"rounds": 9, "min_clients": 2, "store": store.url, **settings})
        begin_run(self.runs, store, config)
        self.redis.set(self.runs.keys.coordinator, TOKEN)
        set_context(
            WorkerContext(self.redis, url, store, name="worker-1", observer=Lines(self.told.append, name_runs=True))
        )

    def hand_in(self, sizes: dict[str, int] | None = None, **updates: Tensors) -> dict[str, str]:
        """Open the next round, and hand in each client's update; who was refused, and why."""
        self.round += 1
        open_round(self.runs, self.round)
        for client, tensors in updates.items():
            submit(self.runs, self.store, client, tensors, size=(sizes or {}).get(client, 100), round_=self.round)
        found = {client: verdict(self.runs, client, self.round) for client in updates}
        self.accepted = [client for client, each in found.items() if each.accepted]
        return {client: each.reason for client, each in found.items() if not each.accepted}

    def aggregate(self) -> RoundView:
        """Aggregate what was accepted, as the coordinator would: without those that an attempt refuses."""
        view = None
        for attempt in (1, 2, 3):
            self.runs.begin_aggregation(
                TOKEN,
                self.round,
                attempt=attempt,
                contributors=self.accepted,
                reason=f"attempt {attempt}",
                refused=refusals_of_spoiled(view) if view is not None else [],
                since=view.since if view is not None else None,
            )
            jobs.aggregate("r", self.round, attempt)
            view = self.runs.read_round(self.round)
            assert view is not None
            if view.state is RoundState.CLOSED or not view.spoiled:
                return view
            assert (*view.unfit, *view.blameless) == view.spoiled, "their objects are what was inspected"
            assert not view.unfit.keys() & view.blameless.keys(), "a coordinator of 0.1.0 counts those that are unfit"
            self.accepted = [client for client in self.accepted if client not in view.spoiled]
        raise AssertionError("three attempts")

    def closed(self, sizes: dict[str, int] | None = None, **updates: Tensors) -> RoundView:
        assert self.hand_in(sizes, **updates) == {}
        view = self.aggregate()
        assert view.state is RoundState.CLOSED, view.error
        return view

    @property
    def model(self) -> Tensors:
        model = self.runs.read().global_model
        assert model is not None
        file = TensorFile.open(self.store.local(model.model.path))
        return {name: np.array(file.tensor(name)) for name in file.names}

    @property
    def merged(self) -> dict[str, Any]:
        model = self.runs.read().global_model
        assert model is not None
        merged: dict[str, Any] = json.loads(self.store.local(model.info.path).read_text())
        return merged


@pytest.fixture
def federation(url: str, tmp_path: Path) -> Iterator[Any]:
    def make(**settings: Any) -> Federation:
        return Federation(url, open_store(str(tmp_path / "store"), create=True), **settings)

    yield make
    set_context(None)


def w(value: float, **more: np.ndarray) -> Tensors:
    return {"w": np.full((2, 3), value, np.float32), **more}


def test_integers_that_are_no_counters_count_in_how_far_an_update_goes(federation: Any) -> None:
    runs = federation(max_update_norm=5.0)
    table, steps = np.arange(4), np.array([3], np.int64)
    runs.closed(a=w(1, ids=table, steps=steps), b=w(1, ids=table, steps=steps))
    near, far = table + np.array([0, 0, 0, 4]), np.full(4, 2**62)
    refused = runs.hand_in(
        a=w(1, ids=near, steps=steps + 1000), b=w(1, ids=far, steps=steps), c=w(2, ids=near + 1, steps=steps)
    )
    reason = refused.pop("b")
    assert "changes the global model by 9.22337e+18 (L2), more than the 5" in reason
    assert "without its integers it is within that, and most of them is tensor 'ids' with 9.22337e+18" in reason
    assert "changes the global model by 5.83095 (L2)" in refused.pop("c"), "√(6 + 28): with the floats"
    assert refused == {}


def test_a_refusal_of_an_asynchronous_run_names_the_model_that_the_site_trained_from(federation: Any) -> None:
    runs = federation(max_update_norm=5.0, mode="async:buffer=2")
    runs.closed(a=w(1), b=w(1))
    refused = runs.hand_in(a=w(9))
    assert "the update changes the model that it trained from by 19.5959 (L2), more than the 5" in refused["a"]


def spoiled(monkeypatch: pytest.MonkeyPatch, store: ObjectStore, path: str, how: str) -> str:
    """Spoil an object of the store in one way; return how a refusal says so."""
    local, file = store.local, store.local(path)
    if how == "changed":
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return "was changed in the store"
    if how == "gone":
        store.delete([path])
        return "is no longer in the store"
    error = ObjectWithheld(f"object {path}: it is archived") if how == "withheld" else PermissionError(13, "denied")

    def kept_back(asked: str, **settings: Any) -> Path:
        if asked == path:
            raise error
        return local(asked, **settings)

    monkeypatch.setattr(store, "local", kept_back)
    return f"cannot be read in the store ({'it is archived' if how == 'withheld' else 'denied'})"


@pytest.mark.parametrize("how", ["gone", "changed", "withheld", "denied"])
@pytest.mark.parametrize("is_early", [False, True])
def test_no_site_is_to_blame_for_a_global_model_that_cannot_be_read(
    federation: Any, monkeypatch: pytest.MonkeyPatch, how: str, is_early: bool
) -> None:
    served = federation(max_update_norm=5.0, **({"mode": "async:buffer=2"} if is_early else {}))
    runs = served.runs
    served.closed(a=w(1), b=w(1))
    path, round_ = runs.read().global_model.model.path, 2
    if is_early:
        served.closed(b=w(2), c=w(2))  # a goes on with its task of round 2
        runs.open_round(TOKEN, 3, expected=["a", "b", "c"], timeout_s=60, reason="go", since={"a": 2})
        round_ = 3
    else:
        open_round(runs, 2)
    said = spoiled(monkeypatch, served.store, path, how)
    submit(runs, served.store, "a", w(2), round_=2)
    refused = verdict(runs, "a", round_)
    whose = "its task began from it, and that is no fault of this site"
    assert refused.reason == f"the global model {path} {said}: {whose}"
    assert runs.refusals() == {}, "nor does it count towards a quarantine"
    untrained = runs.read_round(round_).untrained
    assert untrained == (frozenset() if is_early else {"a"}), "others have a newer model"


@pytest.mark.parametrize("how", ["gone", "withheld"])
def test_a_stale_update_whose_base_cannot_be_read_since_it_was_accepted_is_left_out_without_blame(
    federation: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    served = federation(mode="async:buffer=2")
    runs = served.runs
    served.closed(a=w(1), b=w(1))
    base = runs.read().global_model.model.path
    served.closed(b=w(2), c=w(2))  # a goes on with its task of round 2
    runs.open_round(TOKEN, 3, expected=["a", "b", "c"], timeout_s=60, reason="go", since={"a": 2})
    for client, round_ in (("a", 2), ("b", 3), ("c", 3)):
        submit(runs, served.store, client, w(3), round_=round_)
    served.round, served.accepted = 3, ["a", "b", "c"]
    assert all(verdict(runs, client, 3).accepted for client in "abc")
    said = f"the global model {base}, from which its task of round 2 began, "
    said += spoiled(monkeypatch, served.store, base, how)
    view = served.aggregate()
    assert view.contributors == ("b", "c")
    (failed,) = [each for _, each in runs.redis.xrange(runs.keys.log) if each["event"] == "round.attempt_failed"]
    assert failed["reason"] == f"a: {said}: that is no fault of this site"
    assert runs.redis.hgetall(runs.keys.client("a").verdict(2))["blameless"] == "1"
    assert runs.refusals() == {}, "and it is no step towards a quarantine"


@pytest.mark.parametrize("how", ["gone", "denied"])
def test_an_attempt_without_the_newest_global_model_names_it_and_what_to_do(
    federation: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    served = federation(aggregator="diloco")
    runs = served.runs
    served.closed(a=w(1), b=w(1))
    assert served.hand_in(a=w(2), b=w(2)) == {}
    path = runs.read().global_model.model.path
    said = spoiled(monkeypatch, served.store, path, how)
    runs.begin_aggregation(TOKEN, 2, attempt=1, contributors=["a", "b"], reason="go", refused=[], since={})
    jobs.aggregate("r", 2, 1)
    view = runs.read_round(2)
    assert view.error.startswith(f"the global model {path} {said}: put the global model back into the store as it was")
    assert view.spoiled == ()


def test_statistics_count_in_how_far_an_update_goes_and_a_refusal_says_so(federation: Any) -> None:
    """What did not count would be the way in: one site's variance near 0 breaks everybody's model."""
    runs = federation(max_update_norm=5.0)

    def update(value: float, mean: float, variance: float) -> Tensors:
        counted = {"bn.running_mean": mean, "bn.running_var": variance}
        return w(value, **{name: np.full(4, value, np.float32) for name, value in counted.items()})

    runs.closed(a=update(1, 0, 1), b=update(1, 0, 1))
    refused = runs.hand_in(a=update(1.5, 1, 2), b=update(2, 4, 10), c=update(9, 0, 10))
    said = "without its statistics it is within that, and most of them is tensor 'bn.running_var' with 18"
    assert f"changes the global model by 19.8494 (L2), more than the 5 that this run allows; {said}" in refused["b"]
    assert "changes the global model by 26.6083 (L2)" in refused["c"]
    assert "statistics" not in refused["c"], "its parameters are too far by themselves"
    assert sorted(refused) == ["b", "c"]


class TestStart:
    """Sites that began from other weights train unrelated models, whose mean is worse than each of them."""

    SIZES = (40, 60)

    def begun(self, seed: int, site: int, *, size: tuple[int, int] = SIZES) -> Tensors:
        """A model from the weights of this seed, after some training at this site."""
        start, trained = (np.random.default_rng(each).normal(size=size) for each in (seed, 100 + site))
        weights = {"w": start + 0.7 * trained, "bias": np.full(2000, site), "bn.running_var": np.full((3, 900), 2.0)}
        weights["bn.running_var"][:, site] += site
        return {name: array.astype(np.float32) for name, array in weights.items()}

    @pytest.mark.parametrize("rule", ["fedavg", "median"])
    def test_whose_first_model_has_nothing_in_common_with_the_others_is_named(self, federation: Any, rule: str) -> None:
        runs = federation(aggregator=rule)
        view = runs.closed(a=self.begun(0, 1), b=self.begun(0, 2), c=self.begun(7, 3))
        (told,) = [note for note in view.notes if "nothing in common" in note]
        assert told.startswith("warning: the first models of a and c have nothing in common (correlation ")
        assert "set the same seed at every site" in told
        assert "check-fl" in told
        view = runs.closed(a=self.begun(0, 1), b=self.begun(1, 2), c=self.begun(2, 3))
        assert "nothing in common" not in str(view.notes), "there is a model now, which all began from"

    @pytest.mark.parametrize("seed", [0, 7])
    def test_a_small_model_from_another_seed_is_named(self, federation: Any, seed: int) -> None:
        """160 numbers, as of a small network for tabular data."""
        size = (16, 10)
        view = federation().closed(a=self.begun(0, 1, size=size), b=self.begun(seed, 3, size=size))
        assert ("the first models of a and b have nothing in common" in str(view.notes)) == (seed != 0), view.notes

    @pytest.mark.parametrize("size", [SIZES, (9, 10)], ids=["same weights", "too few to tell"])
    def test_nothing_is_said_without_a_reason(self, federation: Any, size: tuple[int, int]) -> None:
        seeds = (0, 0) if size == self.SIZES else (0, 1)
        models = [self.begun(seed, site, size=size) for site, seed in enumerate(seeds)]
        view = federation().closed(a=models[0], b=models[1], c=models[0])
        assert "nothing in common" not in str(view.notes)


class TestOverflow:
    @pytest.mark.parametrize("value", [-3.4e38, 1e30, np.float32(np.inf)])
    @pytest.mark.parametrize("rule", ["diloco", "fedavg", "geometric_median"])
    def test_one_update_that_no_square_has_room_for_is_refused_and_nobody_else(
        self, federation: Any, rule: str, value: float
    ) -> None:
        """Doors 6: with a huge datasetSize it made the model -inf, then NaN, and the honest sites were quarantined."""
        runs = federation(aggregator=rule)
        runs.closed(a=w(1), b=w(2), c=w(3))
        refused = runs.hand_in({"a": 10**12}, a=w(value), b=w(2), c=w(3))
        assert list(refused) == ["a"]
        assert "tensor 'w' has" in refused["a"]
        assert runs.aggregate().state is RoundState.CLOSED
        assert np.isfinite(runs.model["w"]).all()
        assert runs.runs.refusals() == {"a": 1}

    def test_who_overflows_the_servers_state_alone_is_left_out_of_the_round(self, federation: Any) -> None:
        """AdaGrad's v adds up: each square has room, their sum has not; the model would have stood still for good."""
        runs = federation(aggregator="mean", server_step="adagrad")
        runs.closed(a=w(1), b=w(1), c=w(1))
        for _ in range(8):
            assert runs.hand_in({"a": 10**6}, a=w(7e18 * (-1) ** runs.round), b=w(1), c=w(2)) == {}
            view = runs.aggregate()
            assert view.state is RoundState.CLOSED
            if view.contributors == ("b", "c"):
                break
        else:
            pytest.fail("a was never left out")
        (told,) = [e for _, e in runs.redis.xrange(runs.runs.keys.log) if e["event"] == "round.attempt_failed"]
        assert told["spoiled"] == '["a"]'
        assert (
            "a: with this update the new global model, or the server's state, is not finite in 'v/w'" in told["reason"]
        )
        model = runs.runs.read().global_model
        state = TensorFile.open(runs.store.local(model.state.path))
        assert all(np.isfinite(state.tensor(name)).all() for name in state.names)

    def test_two_who_only_overflow_together_are_found_and_no_third(self, federation: Any) -> None:
        half = {"w": np.array([6e4, 0], np.float16)}
        runs = federation(aggregator="mean", server_step="nesterov:lr=1,momentum=0.9")
        low, none = {"w": np.array([-3e4, 0], np.float16)}, {"w": np.zeros(2, np.float16)}
        runs.closed(a=none, b=none, c=none)
        runs.closed(a=none, b=none, c=low)
        assert runs.hand_in({"c": 1}, a=half, b=half, c=none) == {}
        view = runs.aggregate()
        assert view.state is RoundState.CLOSED
        assert "c" in view.contributors
        assert np.isfinite(runs.model["w"]).all()

    @pytest.mark.parametrize(
        ("broken", "trained"), [(np.nan, np.nan), (1e29, 1.1e29), (1e29, np.nan), (1e29, 1.0), (5e18, np.nan)]
    )
    def test_what_the_global_model_already_had_is_nobodys_fault(
        self, federation: Any, broken: float, trained: float
    ) -> None:
        runs = federation(max_update_norm=5.0)
        runs.closed(a=w(1), b=w(1))
        with runs.store.stage() as staged:
            with TensorFileWriter(staged, [TensorSpec("w", np.dtype(np.float32), (2, 3))]) as writer:
                writer.write("w", np.full((2, 3), broken, np.float32))
            runs.store.put(ObjectRef("runs/r/global/broken.safetensors", writer.sha256), staged)
        key = runs.runs.keys.state
        fields = {"global_path": "runs/r/global/broken.safetensors", "global_digest": writer.sha256, "global_seal": ""}
        runs.redis.hset(key, mapping={**fields, "global_size": str(writer.size_bytes)})
        other = w(trained)
        other["w"].view(np.uint32)[0, 0] ^= 1
        refused = runs.hand_in(a=other, b=w(broken))
        assert ("no site is" if broken != 5e18 else "an update of an earlier round may be") + " to blame" in refused[
            "a"
        ]
        assert runs.runs.refusals() == {}
        untrained = {"a"} if broken != 5e18 else set()
        assert runs.runs.read_round(2).untrained == untrained, "no other try helps; b has handed in the model unchanged"


class TestMasks:
    def test_a_mask_of_infinities_goes_through_every_round(self, federation: Any) -> None:
        runs = federation(aggregator="krum:f=0", server_step="nesterov")
        for value in (1.0, 2.0, 3.0):
            view = runs.closed(a=w(value, mask=MASK), b=w(value, mask=MASK), c=w(value, mask=MASK))
            assert any("'mask'" in note for note in view.notes) is (value == 1.0)  # said once a run
            np.testing.assert_array_equal(runs.model["mask"], MASK)
        other = MASK.copy()
        other[0, 0] = -np.inf
        refused = runs.hand_in(a=w(1, mask=MASK), b=w(1, mask=MASK), c=w(1, mask=other))
        assert list(refused) == ["c"]
        assert "a buffer that is meant to hold infinite values" in refused["c"]

    def test_in_a_first_round_the_sites_decide_which_is_the_buffer(self, federation: Any) -> None:
        runs = federation()
        assert runs.hand_in(a=w(np.inf), b=w(1), c=w(2)) == {}
        view = runs.aggregate()
        assert view.contributors == ("b", "c")
        assert np.isfinite(runs.model["w"]).all()

    def test_a_mask_is_no_change_where_changes_are_sent(self, federation: Any, tmp_path: Path) -> None:
        runs = federation(compress="int8")
        runs.closed(a=w(1, mask=MASK), b=w(2, mask=MASK))
        model = runs.runs.read().global_model
        base = TensorFile.open(runs.store.local(model.model.path))
        trained = tmp_path / "trained.safetensors"
        with TensorFileWriter(trained, base.specs) as writer:
            for spec in writer.specs:
                writer.write(spec.name, MASK if spec.name == "mask" else np.full((2, 3), 4, np.float32))
        runs.round += 1
        open_round(runs.runs, runs.round)
        sent = tmp_path / "sent.safetensors"
        for client in "ab":
            made = encode(trained, sent, base, Encoding("int8", model.model.digest))
            submit(runs.runs, runs.store, client, w(1), round_=runs.round)
            path = named(update_prefix("r", runs.round, client), "update", made.sha256, ".safetensors")
            runs.store.put(ObjectRef(path, made.sha256), sent)
            fields = {"path": path, "digest": made.sha256, "size": str(made.size_bytes)}
            runs.redis.hset(runs.runs.keys.client(client).update(runs.round), mapping=fields)
        assert all(verdict(runs.runs, client, runs.round).accepted for client in "ab")
        runs.accepted = ["a", "b"]
        assert runs.aggregate().state is RoundState.CLOSED
        np.testing.assert_array_equal(runs.model["mask"], MASK)
        np.testing.assert_allclose(runs.model["w"], 4, atol=0.1)


class TestIntegers:
    def labels(self, *values: int) -> np.ndarray:
        return np.array(values, np.int64)

    def test_what_is_no_quantity_is_named(self, federation: Any) -> None:
        runs = federation()
        state = np.array([1, 2], np.uint8)
        a = w(1, labels=self.labels(0, 1), _extra_state=state, steps=np.array(3), table=self.labels(1, 2, 3))
        b = w(1, labels=self.labels(1, 2), _extra_state=state, steps=np.array(5), table=self.labels(3, 2, 1))
        notes = runs.closed(a=a, b=b).notes
        assert any("'labels' (it is called 'labels')" in n and "'_extra_state'" in n for n in notes), notes
        assert any("differ between sites: 'table'" in note and "--equal" in note for note in notes)
        assert not any("steps" in note for note in notes)
        assert runs.told
        logged = [e["reason"] for _, e in runs.redis.xrange(runs.runs.keys.log) if e["event"] == "round.note"]
        assert logged == list(notes)

    @pytest.mark.parametrize("rule", ["fedavg", "median", "krum:f=0", "norm_clip/mean", "diloco"])
    def test_what_is_kept_is_the_first_sites_and_then_the_models(self, federation: Any, rule: str) -> None:
        runs = federation(aggregator=rule, keep=["lab*", "frozen"])
        for round_ in (1, 2, 3):
            value = float(round_)
            a = w(value, labels=self.labels(0, round_), frozen=np.full(2, value, np.float32))
            b = w(value, labels=self.labels(9, 9), frozen=np.full(2, 9, np.float32))
            view = runs.closed(b=b, c=b, a=a)
            assert not any("label" in note for note in view.notes)
            np.testing.assert_array_equal(runs.model["labels"], [0, 1])
            np.testing.assert_array_equal(runs.model["frozen"], 1)

    def test_who_differs_in_what_must_be_equal_is_refused_with_the_name(self, federation: Any) -> None:
        runs = federation(equal=["labels"])
        runs.closed(a=w(1, labels=self.labels(0, 1)), b=w(3, labels=self.labels(0, 1)))
        good, bad = w(1, labels=self.labels(0, 1)), w(9, labels=self.labels(1, 2))
        assert runs.hand_in(a=good, b=bad, c=good) == {}
        assert runs.aggregate().contributors == ("a", "c")
        np.testing.assert_array_equal(runs.model["labels"], [0, 1])
        assert runs.hand_in(a=good, b=bad) == {}, "of two, the one that has the model's is right"
        assert runs.aggregate().contributors == ("a",)

    def test_where_all_differ_in_what_must_be_equal_nothing_is_made_of_it(self, federation: Any) -> None:
        runs = federation(equal=["labels"])
        assert runs.hand_in(a=w(1, labels=self.labels(0, 1)), b=w(1, labels=self.labels(1, 2))) == {}
        view = runs.aggregate()
        assert view.state is RoundState.AGGREGATING
        assert view.error is not None
        assert "tensor 'labels' must be equal at all sites (--equal)" in view.error


class TestCompressed:
    """What must be kept or be equal, where the sites send their change in fewer bits."""

    def handed_in(self, runs: Federation, folder: Path, **updates: Tensors) -> None:
        """Open the next round, and hand in what an edge with `--compress` makes of these."""
        runs.round += 1
        open_round(runs.runs, runs.round)
        model = runs.runs.read().global_model
        assert model is not None
        base, sent = TensorFile.open(runs.store.local(model.model.path)), folder / "sent.safetensors"
        for client, tensors in updates.items():
            trained = folder / f"{client}.safetensors"
            with TensorFileWriter(trained, base.specs) as writer:
                for spec in writer.specs:
                    writer.write(spec.name, tensors[spec.name])
            made = encode(trained, sent, base, Encoding("int8", model.model.digest))
            submit(runs.runs, runs.store, client, w(1), round_=runs.round)
            path = named(update_prefix("r", runs.round, client), "update", made.sha256, ".safetensors")
            runs.store.put(ObjectRef(path, made.sha256), sent)
            fields = {"path": path, "digest": made.sha256, "size": str(made.size_bytes)}
            runs.redis.hset(runs.runs.keys.client(client).update(runs.round), mapping=fields)
        found = {client: verdict(runs.runs, client, runs.round) for client in updates}
        assert all(each.accepted for each in found.values()), found
        runs.accepted = list(updates)

    def test_what_is_kept_is_the_models_to_the_last_bit(self, federation: Any, tmp_path: Path) -> None:
        runs = federation(compress="int8", keep=["frozen", "labels"])
        frozen, labels = np.array([0.1, -3e-9], np.float32), np.array([3, 1], np.int64)
        runs.closed(a=w(1, frozen=frozen, labels=labels), b=w(3, frozen=frozen + 1, labels=labels + 1))
        other = w(8, frozen=frozen + 5, labels=labels + 7)
        self.handed_in(runs, tmp_path, a=other, b=other)
        assert runs.aggregate().state is RoundState.CLOSED
        np.testing.assert_array_equal(runs.model["frozen"], frozen)
        np.testing.assert_array_equal(runs.model["labels"], labels)
        np.testing.assert_allclose(runs.model["w"], 8, atol=0.1)

    def test_who_differs_in_what_must_be_equal_is_left_out(self, federation: Any, tmp_path: Path) -> None:
        """Also where they are floats, whose change is encoded: nobody's noise makes it differ."""
        runs = federation(compress="int8", equal=["labels", "scale"])
        same = {"labels": np.array([0, 1], np.int64), "scale": np.array([0.1, 7.3], np.float32)}
        runs.closed(a=w(1, **same), b=w(3, **same))
        good, bad = w(4, **same), w(9, **{**same, "scale": same["scale"] + 1})
        self.handed_in(runs, tmp_path, a=good, b=bad, c=good)
        view = runs.aggregate()
        assert (view.state, view.contributors) == (RoundState.CLOSED, ("a", "c"))
        np.testing.assert_array_equal(runs.model["scale"], same["scale"])
        np.testing.assert_allclose(runs.model["w"], 4, atol=0.1)
        self.handed_in(runs, tmp_path, a=w(5, **{**same, "labels": same["labels"] + 1}), b=w(5, **same))
        assert runs.aggregate().contributors == ("b",)


class TestTraining:
    def test_a_model_that_did_not_change_is_said(self, federation: Any) -> None:
        runs = federation()
        assert runs.closed(a=w(1), b=w(1)).notes == ()
        notes = runs.closed(a=w(1), b=w(1)).notes
        assert "a, b handed in the global model, unchanged" in notes[0]
        assert notes[1] == "warning: the model did not change in round 2"
        (note,) = runs.closed(a=w(1), b=w(2)).notes
        assert "warning: a handed in" in note
        assert runs.closed(a=w(5), b=w(6)).notes == ()

    def test_an_update_that_is_handed_in_twice_is_said_once(self, federation: Any) -> None:
        """A script that saves the best model of all rounds repeats one, while the global model goes on."""
        runs = federation()
        assert runs.closed(a=w(1), b=w(2)).notes == ()
        (note,) = runs.closed(a=w(1), b=w(3)).notes
        assert note.startswith("warning: a handed in the same update as in round 1, although")
        assert runs.closed(a=w(1), b=w(4)).notes == (), "once, where it begins to"
        (note,) = runs.closed(a=w(5), b=w(4)).notes
        assert note.startswith("warning: b handed in the same update as in round 3,")
        assert runs.closed(a=w(6), b=w(7)).notes == ()

    @pytest.mark.parametrize(
        ("settings", "said"), [({}, True), ({"aggregator": "median"}, False), ({"weights": "equal"}, False)]
    )
    def test_nothing_to_weigh_by_is_said_where_something_weighs(
        self, federation: Any, settings: dict[str, str], said: bool
    ) -> None:
        runs = federation(**settings)
        runs.closed({"a": 0, "b": 0}, a=w(1), b=w(2))
        assert any("warning: datasetSize is 0 at all sites (2)" in line for line in runs.told) is said
        runs.told.clear()
        runs.closed({"a": 0, "b": 1}, a=w(1), b=w(2))
        assert not any("datasetSize" in line for line in runs.told)

    def test_a_site_without_examples_is_told_as_such(self, federation: Any) -> None:
        runs = federation()
        runs.closed(a=w(1), b=w(1))
        notes = runs.closed({"a": 0, "b": 10}, a=w(1), b=w(2)).notes
        (note,) = notes
        assert note.startswith("warning: a had no examples (datasetSize 0) and handed in the global model, unchanged")
        assert "$INPUT_PATH" in note

    def test_whom_a_rule_has_chosen_is_recorded(self, federation: Any) -> None:
        runs = federation(aggregator="multi_krum:f=0,m=2")
        view = runs.closed(a=w(1), b=w(100), c=w(1.5))
        assert view.notes == ("multi_krum:f=0,m=2 kept a, c, and left out b",)
        assert runs.merged["metadata"]["chosen"] == [0, 2]
        assert view.chosen == view.in_model == ("a", "c")
        assert view.reason.endswith("; in the model: a, c")

    @pytest.mark.parametrize("rule", ["mean", "norm_clip:c=1e9", "geometric_median"])
    def test_a_site_without_examples_is_not_left_out_by_the_rule(self, federation: Any, rule: str) -> None:
        view = federation(aggregator=rule).closed({"a": 0, "b": 5}, a=w(1), b=w(2))
        assert view.chosen == ()
        assert view.in_model == ("a", "b")


class TestCounts:
    def test_counts_that_do_not_go_together_are_told(self, federation: Any) -> None:
        runs = federation()
        runs.round, runs.accepted = 1, ["a", "b"]
        open_round(runs.runs, 1)
        metadata = {"epoch": 1, "datasetSize": 4, "importance": 1.0}
        for client, bins in (("a", 10), ("b", 20)):
            info = {"metadata": metadata, "metrics": binary_counts([0, 1, 1], [0.2, 0.7, 0.3], bins=bins)}
            submit(runs.runs, runs.store, client, w(1), told=info)
            assert verdict(runs.runs, client).accepted
        view = runs.aggregate()
        assert view.state is RoundState.CLOSED
        (note,) = view.notes
        assert note == (
            "warning: the metric count/binary/negatives is not merged: the sites report lists of different lengths "
            "(10, 20): let all use the same bins or classes (a: a list of 10; b: a list of 20); 1 more: see "
            "notMerged in the merged information"
        )
        assert set(runs.merged["metadata"]["notMerged"]) == {"count/binary/negatives", "count/binary/positives"}
        assert runs.merged["metrics"]["pooled/accuracy"] == pytest.approx(2 / 3)
        assert "pooled/auc" not in runs.merged["metrics"]


class TestWeights:
    @pytest.mark.parametrize(
        ("kind", "expected"), [("datasetSize", 7.0), ("importance", 3.0), ("product", 5.0), ("equal", 5.0)]
    )
    @pytest.mark.parametrize("rule", ["mean", "norm_clip:c=1e9/mean"])
    def test_a_site_counts_as_the_run_says(self, federation: Any, kind: str, rule: str, expected: float) -> None:
        runs = federation(aggregator=rule, weights=kind)
        runs.round, importance = 1, {"a": 3.0, "b": 1.0}
        open_round(runs.runs, 1)
        for client, value, size in (("a", 1.0, 100), ("b", 9.0, 300)):
            info = {
                "metadata": {"epoch": 1, "datasetSize": size, "importance": importance[client]},
                "metrics": {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")},
            }
            submit(runs.runs, runs.store, client, w(value), told=info)
            assert verdict(runs.runs, client).accepted
        runs.accepted = ["a", "b"]
        assert runs.aggregate().state is RoundState.CLOSED
        np.testing.assert_allclose(runs.model["w"], expected)

    def test_local_steps_divide_and_are_in_the_manifest(self, federation: Any) -> None:
        """A site that does not say its steps is refused by name, and the others' round closes.

        A site that does many more steps than the others, in some rounds, is told of once.
        """
        runs = federation(aggregator="fednova")
        models = {"a": 1.0, "b": 9.0, "c": 2.0}
        for runs.round, steps in (
            (1, {"a": 5, "b": 5}),
            (2, {"a": 2, "b": 6.0}),
            (3, {"a": 1, "b": 999}),
            (4, {"a": 2, "b": 6}),
            (5, {"a": 1, "b": 998}),
            (6, {"a": 999, "b": 1}),
        ):
            before = runs.model["w"] if runs.round > 1 else None
            open_round(runs.runs, runs.round)
            for client, value in models.items():
                metadata = {"epoch": 1, "datasetSize": 100, "importance": 1.0}
                told = {"metadata": metadata, "metrics": dict.fromkeys(CONFUSION, -1)}
                if client in steps:
                    metadata["localSteps"] = steps[client]
                submit(runs.runs, runs.store, client, w(value), told=told, round_=runs.round)
            if runs.round < 4:  # it is quarantined then
                refused = verdict(runs.runs, "c", runs.round)
                assert not refused.accepted
                assert "no metadata.localSteps" in refused.reason
                assert "rule fednova" in refused.reason
            assert all(verdict(runs.runs, client, runs.round).accepted for client in "ab")
            runs.accepted = ["a", "b"]
            view = runs.aggregate()
            assert view.state is RoundState.CLOSED
            manifest = Archive(runs.store, "r").manifest(runs.round)
            assert manifest is not None
            assert {each.client: each.local_steps for each in manifest.contributors} == steps
            if before is not None:
                down = (
                    min(steps.values()) * ((before - 1) / steps["a"] + (before - 9) / steps["b"]) / 2
                )  # the fewer steps
                np.testing.assert_allclose(runs.model["w"], before - down, rtol=1e-5)
            warned = {3: "localSteps is 999 at b and 1 at a", 6: "localSteps is 999 at a and 1 at b"}.get(runs.round)
            assert [note[9:42] for note in view.notes if "localSteps" in note] == ([warned] if warned else [])

    @pytest.mark.parametrize(("importance", "said"), [(-1.0, "needs one >= 0"), (0.0, "of 1 update is 0")])
    def test_what_is_no_weight_is_refused(self, federation: Any, importance: float, said: str) -> None:
        runs = federation(weights="importance")
        runs.round = 1
        open_round(runs.runs, 1)
        info = {
            "metadata": {"epoch": 1, "datasetSize": 1, "importance": importance},
            "metrics": {f"basic/confusion_{cell}": -1 for cell in ("tp", "fp", "fn", "tn")},
        }
        submit(runs.runs, runs.store, "a", w(1), told=info)
        found = verdict(runs.runs, "a")
        if found.accepted:
            runs.accepted = ["a"]
            error = runs.aggregate().error
            assert error is not None
            assert said in error
        else:
            assert said in found.reason
