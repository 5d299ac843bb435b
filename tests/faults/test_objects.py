"""Rows 28 to 33: a store in trouble, objects that were changed or are gone, updates that a hostile site makes up."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from buckets import Fault, proxied

from flavor.bus.embedded import embedded_server
from tests.faults.federation import Faulty
from tests.faults.forge import STATE, Forge, info, model
from tests.faults.history import KEEP


def rewritten(path, change: Callable[[bytes], bytes]) -> None:
    """What somebody with access to the store can do to an object, which is read-only for good reason."""
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_objects_that_are_changed_or_gone_before_their_inspection_are_refused(faulty):
    """Rows 29 and 30: one byte changed, cut off, made longer, deleted; those clients alone, in that round alone."""
    faulty.clients, faulty.rounds, bench = ("c1", "c2", "c3", "c4", "c5"), 2, faulty.bench
    changes: dict[str, tuple[Callable, str]] = {
        "c2": (lambda path: rewritten(path, flipped), "is not what was submitted"),
        "c3": (lambda path: rewritten(path, lambda data: data[:-3]), " were signed"),
        "c4": (lambda path: rewritten(path, lambda data: data + b"more"), " were signed"),
        "c5": (lambda path: path.unlink(), "is not in the store"),
    }
    coordinator = faulty.serve("--quorum", 1)
    edges = faulty.edges()
    updates = {client: bench.runs.keys.client(client).update(1) for client in faulty.clients}
    bench.eventually("all have handed in", lambda: bench.redis.exists(*updates.values()) == len(updates))
    for client, (change, _) in changes.items():
        change(bench.store / bench.redis.hget(updates[client], "path"))
    bench.aggregator()
    for client, (_, words) in changes.items():
        assert words in bench.logged("update.refused", client=client, round=1)["reason"]
    faulty.finish(coordinator, edges)
    assert [bench.runs.read_round(n).contributors for n in (1, 2)] == [("c1",), faulty.clients]
    for client in changes:
        assert "round 1: the update was refused: " in edges[client].stderr


def test_objects_that_are_changed_after_they_were_accepted_are_never_aggregated(faulty):
    """Row 29: endless, one byte changed, a link out of the store; the round goes on without their sites.

    All are found at once, and of c1's four terabytes nothing is read.
    """
    faulty.clients, bench = ("c1", "c2", "c3", "c4", "c5"), faulty.bench
    coordinator = faulty.serve("--quorum", 2)
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 2)})
    bench.held("c2")
    for client in ("c1", "c3", "c4", "c5"):
        bench.logged("update.accepted", client=client, round=2)
    named = {client: bench.runs.read_round(2).inspected(client).object.path for client in ("c1", "c3", "c4")}
    paths = {client: bench.store / path for client, path in named.items()}
    os.truncate(paths["c1"], 4 * 2**40)
    rewritten(paths["c3"], flipped)
    elsewhere = bench.folder / "elsewhere"
    paths["c4"].rename(elsewhere)
    paths["c4"].symlink_to(elsewhere)
    bench.release("c2")
    faulty.finish(coordinator, edges)
    everybody = faulty.clients
    assert [bench.runs.read_round(n).contributors for n in (1, 2, 3)] == [everybody, ("c2", "c5"), everybody]
    (failed,) = [entry["reason"] for entry in bench.log() if entry["event"] == "round.attempt_failed"]
    assert f"object {named['c1']}: " in failed
    assert f"({4 * 2**40} of them, expected " in failed
    assert f"round 2: without c1, c3, c4, because: object {named['c1']}: " in coordinator.stderr


def test_a_round_that_needs_an_object_that_was_changed_fails_and_says_which(faulty):
    """Row 29: without its site there is no quorum."""
    bench = faulty.bench
    coordinator = faulty.serve()
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 2)})
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=2)
    path = bench.runs.read_round(2).inspected("c1").object.path
    rewritten(bench.store / path, flipped)
    bench.release("c2")
    assert coordinator.wait() == 1
    why = f"object {path}: the bytes are not those that were recorded"
    assert why in coordinator.stderr.splitlines()[-1]
    assert "2 updates are needed and 1 is left" in coordinator.stderr.splitlines()[-1]
    for edge in edges.values():
        assert edge.wait() == 1
        assert "2 updates are needed and 1 is left: 1 changed" in edge.stderr  # no path of another site's
        assert path not in edge.stderr
    faulty.history().check(rounds=1)


def test_a_round_that_needs_an_object_that_was_changed_waits_for_its_site_to_hand_in_again(faulty):
    """Row 29: with README's defaults the site is told, starts again and trains the round again; the run ends well."""
    bench = faulty.bench
    coordinator = faulty.serve("--on-quorum-lost", "wait")
    bench.aggregator()
    edges = faulty.edges(only={"c2": ("--hold", "--at", 2)})
    bench.held("c2")
    bench.logged("update.accepted", client="c1", round=2)
    rewritten(bench.store / bench.runs.read_round(2).inspected("c1").object.path, flipped)
    bench.release("c2")
    bench.logged("round.returned", round=2)
    edges["c1"].until("its object was changed or removed in the store")
    edges["c1"].send(signal.SIGTERM)
    edges["c1"].wait()
    edges["c1"] = bench.edge("c1", bench.trainer())
    assert coordinator.wait() == 0, f"{coordinator.stderr} {edges['c1'].stderr}"
    for edge in edges.values():
        assert edge.wait() == 0, edge.stderr
    assert bench.runs.read_round(2).contributors == ("c1", "c2")
    faulty.history().check(rounds=faulty.rounds)


def test_a_store_in_trouble_is_waited_out_and_one_that_stays_so_fails_its_site_alone(faulty, s3, monkeypatch):
    """Row 28: answers of 500, lost and late ones for everybody in round 1; from round 2 on, c2 gets nothing but 500."""
    with proxied(s3) as shared, proxied(s3) as of_c2:
        store = f"s3://{s3.bucket()}/runs"
        env = {**s3.environment(shared.address), "FLAVOR_STORE": store}

        def machine(name: str, proxy=shared) -> dict[str, str]:
            """A cache of its own, and its way to the service."""
            cache = str(faulty.bench.folder / f"cache-{name}")
            return {**env, **s3.environment(proxy.address), "FLAVOR_STORE_CACHE": cache}

        shared.faults = [
            Fault("^PUT .*/clients/c1/0001-", "500", 2),
            Fault("^GET .*/clients/[^/]+/0001-", "late", 2),
            Fault("^PUT .*/global/0001-model", "lost"),
            Fault("^GET .*/global/0001-", "500", 2),
        ]
        bench = faulty.bench
        words = ["--run", bench.run, "--rounds", 3, "--min-clients", 2, "--quorum", 1, "--queue", bench.run, *KEEP]
        coordinator = bench.start("flavor", "serve", *words, env=machine("serve"))
        bench.start("flavor-agg", "--queue", bench.run, env=machine("agg"))
        edges = {
            "c1": bench.edge("c1", bench.trainer(), env=machine("c1")),
            "c2": bench.edge("c2", bench.trainer("--hold"), "--patience-s", 1, env=machine("c2", of_c2)),
        }
        bench.held("c2")
        of_c2.faults = [Fault("", "500", 10**6)]
        bench.release("c2")
        assert edges["c2"].wait() == 1
        last = edges["c2"].stderr.splitlines()[-1]
        assert f"Error: store {store}: " in last
        assert "answered 500" in last
        assert [coordinator.wait(60), edges["c1"].wait()] == [0, 0], coordinator.stderr
        assert all(fault.seen == fault.times for fault in shared.faults), "each was met"
        for name, value in env.items():
            monkeypatch.setenv(name, value)  # for the check
        faulty.history(store).check(rounds=3)
    assert [bench.runs.read_round(n).contributors for n in (1, 2, 3)] == [("c1", "c2"), ("c1",), ("c1",)]


# -- one round with all that a hostile site could think of; nothing of it may count, and nothing of it may run


def linked_file(forge: Forge, client: str) -> dict[str, str]:
    outside = forge.store.parent / "outside.safetensors"
    outside.write_bytes(model())
    fields = forge.sent(client)
    (forge.store / fields["path"]).unlink()
    (forge.store / fields["path"]).symlink_to(outside)
    return fields


def linked_folder(forge: Forge, client: str) -> dict[str, str]:
    outside = forge.store.parent / "outside"
    outside.mkdir()
    (outside / "0001-update-x.safetensors").write_bytes(model())
    folder = (forge.store / forge.prefix(client)).parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(outside)
    return forge.sent(client, path=f"{forge.prefix(client)}update-x.safetensors")


def fifo(forge: Forge, client: str) -> dict[str, str]:
    fields = forge.sent(client)
    (forge.store / fields["path"]).unlink()
    os.mkfifo(forge.store / fields["path"])
    return fields


def at(make: Callable[[Forge, str], str]) -> Callable[[Forge, str], dict[str, str]]:
    """A good update whose path is another."""
    return lambda forge, client: forge.sent(client, path=make(forge, client))


def field(**changed: str | None) -> Callable[[Forge, str], dict[str, str]]:
    return lambda forge, client: forge.sent(client, **changed)


def told(data: bytes, **changed: str | None) -> Callable[[Forge, str], dict[str, str]]:
    return lambda forge, client: forge.sent(client, told=data, **changed)


def wire(data: bytes) -> Callable[[Forge, str], dict[str, str]]:
    return lambda forge, client: forge.sent(client, data)


REFUSED_PATH, NOT_ITS_OWN, NOT_THERE = "is refused", "does not belong to this client and round", "is not in the store"
PATHS: dict[str, tuple[Callable[[Forge, str], dict[str, str]], str]] = {
    "up": (at(lambda forge, client: "../../../../etc/passwd"), REFUSED_PATH),
    "up-inside": (
        at(lambda forge, client: f"runs/{forge.run}/clients/{client}/../honest/0001-x"),
        REFUSED_PATH,
    ),
    "absolute": (at(lambda forge, client: "/etc/passwd"), REFUSED_PATH),
    "absolute-own": (at(lambda forge, client: str(forge.store / forge.put(client, model()))), REFUSED_PATH),
    "nothing": (at(lambda forge, client: ""), REFUSED_PATH),
    "no-path": (field(path=None), REFUSED_PATH),
    "hidden": (at(lambda forge, client: ".staging/x"), REFUSED_PATH),
    "nul": (at(lambda forge, client: f"{forge.prefix(client)}a\0b"), REFUSED_PATH),
    "newline": (at(lambda forge, client: f"{forge.prefix(client)}a\nb"), REFUSED_PATH),
    "endless": (
        at(lambda forge, client: f"{forge.prefix(client)}{'a' * 100_000}"),
        "its field 'path' is larger than 16384 bytes",
    ),
    "other-client": (at(lambda forge, client: forge.put("honest", model())), NOT_ITS_OWN),
    "other": (at(lambda forge, client: forge.put("other-client", model())), NOT_ITS_OWN),  # a name that begins alike
    "other-round": (at(lambda forge, client: forge.prefix(client).replace("0001-", "0002-") + "x"), NOT_ITS_OWN),
    "other-run": (at(lambda forge, client: forge.prefix(client).replace(forge.run, "other") + "x"), NOT_ITS_OWN),
    "global": (at(lambda forge, client: f"runs/{forge.run}/global/0001-model-x"), NOT_ITS_OWN),
    "deeper": (at(lambda forge, client: forge.put(client, model(), "deeper/update-x.safetensors")), NOT_ITS_OWN),
    "folder": (at(lambda forge, client: os.path.dirname(forge.put(client, model(), "deeper/x"))), NOT_ITS_OWN),
    "linked-file": (linked_file, NOT_THERE),
    "linked-folder": (linked_folder, "a link on the way leaves the store"),
    "fifo": (fifo, NOT_THERE),
    "no-size": (field(size=None), "none were handed in"),
    "other-size": (field(size="1"), "1 were handed in"),
    "no-digest": (field(digest=None), "is not what was submitted"),
    "other-digest": (field(digest="0" * 64), "is not what was submitted"),
    "format": (field(format="../../x"), "checkpoint format '../../x'"),
    "no-info": (field(info_path=None), REFUSED_PATH),
    "no-info-digest": (field(info_digest=None), "is named without a digest, and is not read"),
    "other-info": (field(info_path="runs/x/global/0001-info-x.json"), NOT_ITS_OWN),
    "endless-info": (told(b"[" * 60_000), "not complete JSON"),
    "large-info": (told(b" " * 65_537), "larger than"),
    "foreign-info": (told(b"[]"), "metadata is missing"),
    "long-name": (told(info(**{"x" * 201: 1})), "has 201 characters"),
    "unseen-name": (told(info(metrics={"loss\ud800": 1})), "has characters that cannot be seen"),
    "many-names": (told(info(metrics={f"m{number}": 1 for number in range(3000)})), "and 2048 at most are taken"),
    "other-examples": (field(num_examples="1000000"), "datasetSize is 10 in its info.json, and 1000000 was handed in"),
    "no-examples": (field(num_examples=None), "in its info.json, and no number that can be read was handed in"),
}


class Owned:
    """What a pickle can do to whoever loads it."""

    path = ""

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def payload() -> bytes:
    return pickle.dumps({"state_dict": {**STATE, "x": Owned()}})


def bomb() -> bytes:
    """80 MB of zeros in an .npz of 350 kB."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("w.npy", "w") as entry:
        np.lib.format.write_array(entry, np.zeros(10_000_000))
    return packed.getvalue()


def header(table: str | bytes, data: bytes = b"") -> bytes:
    text = table.encode() if isinstance(table, str) else table
    return struct.pack("<Q", len(text)) + text + data


def entries(number: int) -> bytes:
    tensor = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    return header("{" + ", ".join(f'"t{i}": {tensor}' for i in range(number)) + "}")


def lying(shape: list[int], end: int) -> bytes:
    return header(json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}), b"\0" * 24)


OBJECTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "payload": (payload, "cut short inside its header"),
    "bomb": (bomb, "cut short inside its header"),
    "entries": (lambda: entries(100_001), "100001 tensors; at most 100000"),
    "just-enough": (lambda: entries(100_000), "tensor 'w' is missing"),
    "no-header": (lambda: b"", "the file is empty"),
    "endless-header": (lambda: struct.pack("<Q", 2**63) + b"{}", "cut short inside its header"),
    "deep-header": (lambda: header('{"a":' * 100_000), "a damaged safetensors header"),
    "twice": (lambda: header('{"w": {}, "w": {}}'), "a name appears twice"),
    "absurd-shape": (lambda: lying([2**40, 2**40], 24), "tensor 'w' has an impossible shape"),
    "lying-offsets": (lambda: lying([3, 2], 2**50), "tensor 'w': its data_offsets do not fit"),
    "beyond-the-end": (lambda: lying([2**40], 2**42), "cut short"),
}


def poisoned(name: str, value: float) -> bytes:
    array = STATE[name].copy()
    array.ravel()[-1] = value
    return model(**{name: array})


VALUES: dict[str, tuple[Callable[[Forge, str], dict[str, str]], str]] = {
    "nan": (wire(poisoned("w", np.nan)), "tensor 'w' has NaN or infinite values"),
    "inf": (wire(poisoned("b", np.inf)), "tensor 'b' has NaN or infinite values"),
    "minus-inf": (wire(poisoned("b", -np.inf)), "tensor 'b' has NaN or infinite values"),
    "shape": (wire(model(w=np.zeros((2, 3), np.float32))), "tensor 'w' has shape (2, 3); the global model has (3, 2)"),
    "rank": (wire(model(b=np.zeros((4, 1), np.float32))), "tensor 'b' has shape (4, 1); the global model has (4,)"),
    "dtype": (wire(model(b=np.zeros(4, np.float64))), "tensor 'b' is float64; the global model has float32"),
    "integers": (wire(model(b=np.zeros(4, np.int32))), "tensor 'b' is int32; the global model has float32"),
    "missing": (wire(model(b=None)), "tensor 'b' is missing; the global model has it"),
    "extra": (wire(model(c=np.zeros(1, np.float32))), "tensor 'c' is not in the global model"),
    "renamed": (wire(model(w=None, W=STATE["w"])), "tensor 'w' is missing; the global model has it"),
    "size-over": (
        told(info(datasetSize=1001), num_examples="1001"),
        "datasetSize 1001 is more than the 1000 that this run allows",
    ),
    "size-absurd": (told(info(datasetSize=2**70)), "metadata.datasetSize is absurdly large"),
    "size-negative": (told(info(datasetSize=-1)), "metadata.datasetSize must not be negative"),
    "size-fraction": (told(info(datasetSize=1.5)), "metadata.datasetSize must be an int"),
    "size-nan": (told(info(importance=float("nan"))), "metadata['importance'] is nan"),
    "size-boolean": (told(info(datasetSize=True)), "metadata.datasetSize must be an int"),
}


@pytest.fixture(scope="module")
def attacked(bench_class, tmp_path_factory) -> Iterator[Faulty]:
    """A run of one round: an honest edge, a forged client that keeps the rules, and many that do not."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "redis").mkdir()
    (folder / "bench").mkdir()
    Owned.path = str(folder / "owned")
    with embedded_server(append_only=True, folder=folder / "redis") as url:
        bench = bench_class(url, folder / "bench")
        try:
            yield attack(Faulty(bench, rounds=1, clients=("c1",)))
        finally:
            bench.close()


def attack(faulty: Faulty) -> Faulty:
    bench, forge = faulty.bench, Forge(faulty.bench)
    initial = bench.folder / "initial.pkl"
    initial.write_bytes(pickle.dumps({"state_dict": STATE}))
    cases = {**PATHS, **{name: (wire(make()), words) for name, (make, words) in OBJECTS.items()}, **VALUES}
    forged = ["honest", *cases]
    faulty.clients = ("c1", *forged)
    options = ("--quorum", 2, "--init-model", initial, "--max-dataset-size", 1000, "--aggregation-lease-s", 30)
    coordinator = faulty.serve(*options)
    aggregator = bench.aggregator()
    coordinator.until("is open for clients")
    forge.join(*forged)
    edges = {"c1": bench.edge("c1", bench.trainer())}
    bench.logged("round.opened", round=1)
    assert set(bench.runs.read_round(1).expected) == {"c1", *forged}
    for client, (fields, _) in cases.items():
        forge.hand_in(client, fields(forge, client))
    forge.hand_in("honest", forge.sent("honest"))
    faulty.finish(coordinator, edges)
    assert aggregator.running
    return faulty


def verdict(attacked: Faulty, client: str) -> str:
    found = attacked.bench.runs.read_round(1).verdicts[client]
    assert not found.accepted
    assert len(found.reason) < 1000
    return found.reason


def test_those_who_keep_the_rules_are_what_is_aggregated(attacked):
    """Rows 31, 32 and 33: what the forged clients are compared with; History.check found the aggregate of these two."""
    assert attacked.bench.runs.read_round(1).contributors == ("c1", "honest")
    assert len(attacked.bench.runs.read_round(1).verdicts) == 2 + len(PATHS) + len(OBJECTS) + len(VALUES)


@pytest.mark.parametrize("client", PATHS)
def test_a_path_or_a_field_that_was_made_up_is_refused(attacked, client):
    """Row 31: `../`, absolute paths, other clients', links out of the store, and fields of any other kind."""
    assert PATHS[client][1] in verdict(attacked, client)


@pytest.mark.parametrize("client", OBJECTS)
def test_an_object_that_is_a_trap_is_refused_and_nothing_of_it_runs(attacked, client):
    """Row 32: on the wire, past its own edge: a pickle that runs a command, a zip bomb, headers that lie."""
    assert OBJECTS[client][1] in verdict(attacked, client)
    assert not os.path.exists(Owned.path)


@pytest.mark.parametrize("client", VALUES)
def test_an_update_with_bad_values_is_refused_with_the_name_of_the_tensor(attacked, client):
    """Row 33: NaN, infinities, wrong shapes and types, names too few or too many, sizes nobody has."""
    assert VALUES[client][1] in verdict(attacked, client)


def test_a_trainers_own_file_that_is_a_trap_is_refused_by_its_edge(faulty):
    """Row 32: the same files from a trainer: its own edge reads them, and runs nothing; the rounds go on without."""
    faulty.rounds, bench = 4, faulty.bench
    coordinator = faulty.serve("--quorum", 1, "--quarantine-after", 0)
    bench.aggregator()
    traps = {
        "hostile": "state_dict 'b' is a posix.system, which is not read",
        "bomb": "claims 80000128 bytes in",
        "entries": "at most 100000",
    }
    edges = faulty.edges(only={"c2": ("--fail", ",".join(traps), "--at", 2)})
    faulty.finish(coordinator, edges)
    for number, words in enumerate(traps.values(), start=2):
        assert bench.logged("update.refused", client="c2", round=number)["reason"] == '"its checkpoint cannot be used"'
        assert words in edges["c2"].stderr
        assert bench.runs.read_round(number).contributors == ("c1",)
    assert not (bench.folder / "c2" / "output" / "owned").exists()
