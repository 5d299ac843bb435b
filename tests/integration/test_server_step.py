"""A run with a rule by name: its server state lies beside the model, and a run that was stopped goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import aggregators
from aggregators.lora_residual import lora_residual
from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec
from flavor.config import RunConfig
from flavor.errors import DigestMismatch
from flavor.ledger.archive import Archive
from flavor.records.counts import LORA_RESIDUAL
from flavor.records.info import CONFUSION
from flavor.records.objects import ObjectRef
from flavor.records.states import RoundState
from flavor.store.open import open_store
from flavor.store.paths import named, update_prefix
from tests.conftest import Bench
from tests.infos import begin_run, put_info
from tests.recorded import accepted
from workers import jobs
from workers.context import WorkerContext, set_context

TOKEN = "coordinator"
ROUNDS = 6
SIZES = {"a": 100, "b": 300}


def update(client: str, round_: int, base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([ord(client), round_])
    return {name: (array * 0.9 + rng.normal(size=array.shape)).astype(array.dtype) for name, array in base.items()}


def start() -> dict[str, np.ndarray]:
    return {"w": np.ones((3, 4), np.float32), "b": np.zeros(5, np.float64)}


def adapter() -> dict[str, np.ndarray]:
    of = np.random.default_rng(7)
    return {"q.lora_A.weight": of.normal(size=(2, 4)), "q.lora_B.weight": of.normal(size=(3, 2)), "w": np.ones(5)}


def a_round(runs: RunStore, store, round_: int, base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Open round `round_`, hand in an update for each client, aggregate; the new global model."""
    runs.open_round(TOKEN, round_, expected=sorted(SIZES), timeout_s=60, reason="go")
    for client, size in SIZES.items():
        tensors = update(client, round_, base)
        info = {
            "metadata": {"epoch": round_, "datasetSize": size, "importance": 1.0},
            "metrics": dict.fromkeys(CONFUSION, -1),
        }
        with store.stage() as staged:
            specs = [TensorSpec(name, array.dtype, array.shape) for name, array in tensors.items()]
            with TensorFileWriter(staged, specs) as writer:
                for spec in writer.specs:
                    writer.write(spec.name, tensors[spec.name])
            path = named(update_prefix("r", round_, client), "update", writer.sha256, ".safetensors")
            store.put(ObjectRef(path, writer.sha256), staged)
        of_info = put_info(store, update_prefix("r", round_, client), info)
        verdict = accepted(
            path=path,
            digest=writer.sha256,
            size_bytes=writer.size_bytes,
            seal=store.seal(path),
            format="pickle",
            num_examples=size,
            info_path=of_info["info_path"],
            info_digest=of_info["info_digest"],
        )
        assert runs.judge(round_, client, verdict)
    runs.begin_aggregation(TOKEN, round_, attempt=1, contributors=sorted(SIZES), reason="all")
    jobs.aggregate("r", round_, 1)
    view = runs.read_round(round_)
    assert view is not None
    assert view.state is RoundState.CLOSED, view.error
    model = runs.read().global_model
    assert model is not None
    file = TensorFile.open(store.local(model.model.path))
    return {spec.name: np.array(file.tensor(spec.name)) for spec in file.specs}


def in_one_go(aggregator: str, server_step: str | None) -> list[dict[str, np.ndarray]]:
    """The same rounds, by the engine alone in memory."""
    rule = aggregators.parse(aggregator, server_step)
    base, state, models, known = start(), None, [], None
    for round_ in range(1, ROUNDS + 1):
        now = rule.without_global() if known is None and rule.needs_global else rule
        result = aggregators.run(
            [update(client, round_, base) for client in sorted(SIZES)],
            [SIZES[client] for client in sorted(SIZES)],
            reducer=now.reducer,
            server_step=now.server_step,
            global_model=known,
            state=state,
        )
        base = known = result.model
        state = result.state
        models.append(result.model)
    return models


@pytest.mark.parametrize(
    ("aggregator", "server_step"),
    [
        ("fedavg", None),
        ("diloco", None),
        ("median", None),
        ("mean", "nesterov:lr=0.5,momentum=0.8"),
        ("norm_clip:c=1/mean", "momentum"),
        ("mean", "adagrad"),
        ("mean", "adam:lr=0.05"),
        ("mean", "yogi"),
    ],
)
def test_each_round_in_a_fresh_worker_is_bit_for_bit_one_go(
    url: str, tmp_path: Path, aggregator: str, server_step: str | None
) -> None:
    redis = connect(url)
    redis.flushall()
    store = open_store(str(tmp_path / "store"), create=True)
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=ROUNDS, min_clients=2, aggregator=aggregator, server_step=server_step, store=store.url)
    begin_run(runs, store, config)
    redis.set(runs.keys.coordinator, TOKEN)
    base = start()
    try:
        for round_, expected in enumerate(in_one_go(aggregator, server_step), 1):
            set_context(WorkerContext(connect(url), url, store, name=f"worker-{round_}"))  # nothing but what is stored
            base = a_round(runs, store, round_, base)
            for name, array in expected.items():
                assert array.tobytes() == base[name].tobytes(), (round_, name)
        model = runs.read().global_model
        assert model is not None
        assert bool(model.state) == bool(aggregators.parse(aggregator, server_step).server_step.slots)
    finally:
        set_context(None)
        redis.close()


def test_a_rule_that_has_not_converged_is_told_in_the_log(url: str, tmp_path: Path) -> None:
    redis = connect(url)
    redis.flushall()
    store = open_store(str(tmp_path / "store"), create=True)
    runs = RunStore(redis, "r", url)
    rule = "geometric_median:rounds=2,tol=1e-15"
    begin_run(runs, store, RunConfig(rounds=ROUNDS, min_clients=2, aggregator=rule, store=store.url))
    redis.set(runs.keys.coordinator, TOKEN)
    set_context(WorkerContext(redis, url, store, name="worker"))
    try:
        a_round(runs, store, 1, start())
        told = [note for note in runs.read_round(1).notes if "has not converged" in note]
        assert [note.partition(": its")[0] for note in told] == ["warning: round 1: geometric_median has not converged"]
    finally:
        set_context(None)
        redis.close()


def test_the_residual_of_lora_adapters_is_a_metric_of_the_round(url: str, tmp_path: Path, subtests) -> None:
    redis = connect(url)
    for rule in ("lora-exact", "fedavg"):
        with subtests.test(rule=rule):
            redis.flushall()
            store = open_store(str(tmp_path / rule), create=True)
            runs = RunStore(redis, "r", url)
            begin_run(runs, store, RunConfig(rounds=ROUNDS, min_clients=2, aggregator=rule, store=store.url))
            redis.set(runs.keys.coordinator, TOKEN)
            set_context(WorkerContext(redis, url, store, name="worker"))
            try:
                made = a_round(runs, store, 1, adapter())
                model = runs.read().global_model
                assert model is not None
                metrics = json.loads(store.local(model.info.path).read_text())["metrics"]
                (note,) = [note for note in runs.read_round(1).notes if "LoRA" in note]
            finally:
                set_context(None)
            sites = [update(client, 1, adapter()) for client in sorted(SIZES)]
            weights = [SIZES[client] for client in sorted(SIZES)]
            found = lora_residual(sites, weights, made)
            assert found is not None
            assert metrics[LORA_RESIDUAL] == pytest.approx(found.relative)
            assert f" {found.relative:.2%} from the mean" in note
            expected = aggregators.aggregate(sites, weights, aggregator=rule)
            for name, array in expected.items():
                np.testing.assert_array_equal(made[name], array)
    redis.close()


def test_a_changed_server_state_is_found(url: str, tmp_path: Path) -> None:
    redis = connect(url)
    redis.flushall()
    store = open_store(str(tmp_path / "store"), create=True)
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=ROUNDS, min_clients=2, aggregator="diloco", store=store.url)
    begin_run(runs, store, config)
    redis.set(runs.keys.coordinator, TOKEN)
    set_context(WorkerContext(redis, url, store, name="worker"))
    try:
        base = a_round(runs, store, 2 - 1, start())
        base = a_round(runs, store, 2, base)
        model = runs.read().global_model
        assert model is not None
        state = store.local(model.state.path)
        state.chmod(0o644)
        data = bytearray(state.read_bytes())
        data[-1] ^= 1
        state.write_bytes(data)
        with pytest.raises(AssertionError, match=DigestMismatch.__name__ + "|not those that were recorded"):
            a_round(runs, store, 3, base)
    finally:
        set_context(None)
        redis.close()


def norms(round_: int, client: str) -> dict[str, np.ndarray]:
    """A batch norm whose variances fall, and a count that has no known name."""
    rng = np.random.default_rng([round_, *map(ord, client)])
    fall = (0.3**round_ * rng.uniform(0.5, 1.5, 4)).astype(np.float32)
    numbers = {"exp_avg": np.ones(2), "opt/lr": np.array(0.5 * 0.6**round_), "scale": np.array(1.0)}
    return {
        "bn.weight": rng.normal(size=4).astype(np.float32),
        "bn.running_var": fall,
        "codes.size": 8 * fall,
    } | numbers


def test_statistics_take_the_mean_and_what_turns_negative_is_told(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = connect(url)
    redis.flushall()
    store = open_store(str(tmp_path / "store"), create=True)
    runs = RunStore(redis, "r", url)
    config = RunConfig(rounds=3, min_clients=2, server_step="momentum", store=store.url)
    begin_run(runs, store, config)
    redis.set(runs.keys.coordinator, TOKEN)
    set_context(WorkerContext(redis, url, store, name="worker"))
    monkeypatch.setattr(f"{__name__}.update", lambda client, round_, base: norms(round_, client))
    try:
        model: dict[str, np.ndarray] = {}
        for round_ in (1, 2, 3):
            model = a_round(runs, store, round_, model)
            mean = np.average(
                [norms(round_, client)["bn.running_var"].astype(float) for client in SIZES], axis=0, weights=[1, 3]
            )
            np.testing.assert_allclose(model["bn.running_var"], mean, rtol=1e-6)
            np.testing.assert_allclose(model["opt/lr"], 0.5 * 0.6**round_)
        notes = [runs.read_round(round_).notes for round_ in (1, 2, 3)]
        assert (
            "which is averaged with the weights, and takes part in the server step: 'exp_avg', 'opt/lr'" in notes[0][0]
        )
        assert notes[0][1].startswith("statistics, and no parameters, are 'bn.running_var': no server step")
        assert notes[0][2].startswith(
            "no server step is taken with single numbers, of no dimensions: 'opt/lr', 'scale'"
        )
        assert [note for note in (*notes[1], *notes[2]) if "statistics, and" in note or "exp_avg" in note] == []
        assert notes[2][0].startswith("warning: round 3: 'codes.size': negative values after the server step")
        assert (model["codes.size"] < 0).any()
    finally:
        set_context(None)
        redis.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aggregator", "medain"], "unknown aggregator 'medain'; there are: fedavg"),
        (["--aggregator", "trimmed_mean"], "f is missing; write trimmed_mean:f="),
        (["--aggregator", "krum:f=2"], "at least 7 clients, got n = 3"),
        (["--server-step", "nesterov:lr=fast"], "'fast' does not fit lr"),
        (["--server-step", "median"], "unknown server step 'median'; there are: replace"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_before_anything_starts(
    bench: Bench, options: list[str], message: str
) -> None:
    process = bench.start("flavor", "run", "-m", "true", "--edges", "3", "--rounds", "2", *options)
    assert process.wait() == 2
    assert message in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_the_rules_are_listed(bench: Bench) -> None:
    text = bench.done("flavor", "aggregators").stdout
    listed = json.loads(bench.done("flavor", "aggregators", "--json").stdout)
    assert {entry["name"] for entry in listed} >= {"fedavg", "diloco", "bulyan", "yogi", "replace"}
    for entry in listed:
        assert entry["usage"] in text
        assert entry["source"] in text
        assert entry["condition"] in text


def test_whom_krum_chose_stands_in_manifest_credits_and_log(bench: Bench) -> None:
    coordinator = bench.serve("--aggregator", "multi_krum:f=0,m=2", rounds=1, clients=3)
    bench.aggregator()
    edges = [bench.edge(f"edge-{index}", bench.trainer()) for index in (1, 2, 3)]
    assert [process.wait() for process in (coordinator, *edges)] == [0, 0, 0, 0]
    manifest = Archive(open_store(str(bench.store)), bench.run).manifest(1)
    assert manifest is not None
    clients = [each.client for each in manifest.contributors]
    assert clients == ["edge-1", "edge-2", "edge-3"]
    assert manifest.chosen is not None
    assert len(manifest.chosen) == 2
    chosen = list(manifest.chosen)
    (left_out,) = set(clients) - set(chosen)

    def credits(*options: object) -> str:
        return bench.done("flavor", "credits", bench.run, *options).stdout

    assert json.loads(credits("--json"))["rounds"] == [
        {"round": 1, "samples": {"edge-1": 10, "edge-2": 20, "edge-3": 30}, "chosen": chosen}
    ]
    header, *rows = [line.split() for line in credits("--by-round").splitlines()]
    assert header == ["client", "round", "in", "model", "examples"]
    assert {row[0]: row[2] for row in rows} == {client: "yes" if client in chosen else "no" for client in clients}
    assert {row.split()[0]: row.split()[2] for row in credits().splitlines()[1:]}[left_out] == "0"
    (closed,) = [entry for entry in bench.log() if entry["event"] == "round.closed"]
    assert closed["reason"].endswith(f"; in the model: {', '.join(chosen)}")

    verified = bench.done("flavor", "verify", bench.run, "--store", bench.store)
    assert verified.wait() == 0, verified.stderr
    assert f"{left_out} (left out)" in verified.stdout
    bench.redis.delete(bench.runs.keys.verdicts(1))  # then credits reads the manifest
    assert json.loads(credits("--json", "--store", bench.store))["rounds"][0]["chosen"] == chosen
