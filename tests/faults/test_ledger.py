"""What lies in the store is another history than it should be, or a site has lost its key."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

from test_back_again import stopped

from flavor.ledger.keys import SigningKey
from flavor.records.states import RunState
from flavor.store.paths import manifest_path, run_prefix


def closed_run(faulty) -> dict:
    """Run it to its end; what `flavor verify` says of it."""
    coordinator = faulty.serve("--keep-rounds", "0")
    aggregator = faulty.bench.aggregator("--key", faulty.bench.folder / "aggregator.key")
    faulty.finish(coordinator, faulty.edges())
    aggregator.end()
    found = verify(faulty, "--json")
    assert found.wait() == 0, found.stderr
    return json.loads(found.stdout)


def verify(faulty, *options: object):
    return faulty.bench.done("flavor", "verify", faulty.bench.run, "--store", faulty.bench.store, *options)


def recover(faulty, *options: object):
    return faulty.bench.done("flavor", "recover", "--run", faulty.bench.run, "--store", faulty.bench.store, *options)


def says(process, *parts: str) -> None:
    assert process.wait() != 0, process.stdout
    assert "Traceback" not in process.stderr
    assert all(part in process.stderr for part in parts), process.stderr


def test_an_earlier_run_of_the_name_put_back_is_told_from_the_later_one(faulty) -> None:
    """Row 52: whole, with all the right keys; or in part; with Redis there, or gone."""
    bench, folder = faulty.bench, faulty.bench.store / "runs" / faulty.bench.run
    earlier = closed_run(faulty)
    kept = bench.folder / "kept"
    shutil.copytree(folder, kept)
    assert bench.done("flavor", "rm", bench.run, "--objects", "--store", bench.store).wait() == 0
    bench.handed_in.unlink()
    for client in faulty.clients:
        shutil.rmtree(bench.folder / client / "output")

    later = closed_run(faulty)
    assert later["run_id"] != earlier["run_id"]
    assert bench.done("flavor", "status", bench.run, "--json").stdout.count(later["run_id"]) == 1
    keys = ["--trust", bench.folder / "aggregator.key.pub"]
    for client in faulty.clients:
        keys += ["--trust", bench.folder / client / "client.key.pub"]
    true = bench.folder / "true"
    shutil.copytree(folder, true)

    _replace(folder, kept, newest=True)  # one manifest of it, correctly signed
    says(verify(faulty, *keys), "is of another run of this name")
    _replace(folder, kept)
    says(verify(faulty, *keys, "--run-id", later["run_id"]), "is of another run of this name", earlier["run_id"])
    says(verify(faulty, *keys, "--head", later["head"]), f"no record has the digest {later['head']}")
    says(faulty.serve("--keep-rounds", "0"), "Redis has another run of this name")
    assert bench.runs.read().state is RunState.FINISHED

    bench.runs.remove_keys()
    says(recover(faulty), "no trusted key is given", "--trust", "--untrusted")
    says(recover(faulty, *keys, "--head", later["head"]), "not " + later["head"][:16], "an earlier run, was put back")
    says(recover(faulty, *keys, "--run-id", later["run_id"]), "is of another run of this name")
    assert bench.runs.find() is None

    _replace(folder, true)
    done = recover(faulty, *keys, "--head", later["head"], "--run-id", later["run_id"])
    assert done.wait() == 0, done.stderr
    assert bench.runs.read().run_id == later["run_id"]


def test_a_site_that_lost_its_key_is_told_at_joining_and_the_run_goes_on(faulty) -> None:
    """Row 43: a new key in place of the lost one; the operator's word lets it in again."""
    bench = faulty.bench
    coordinator = faulty.serve("--min-clients", "2", "--on-quorum-lost", "wait")
    bench.aggregator("--key", bench.folder / "aggregator.key")
    edges = faulty.edges("--hold", "--at", "2")
    for client in faulty.clients:
        bench.held(client)
    edges["c2"].send(signal.SIGKILL)
    edges["c2"].wait()
    key = bench.folder / "c2" / "client.key"
    lost = SigningKey.load(key).public
    key.rename(bench.folder / "lost.key")

    again = bench.edge("c2", bench.trainer())
    says(again, "does not admit 'c2'", f"this run knows it by key {lost.fingerprint}", "--key", "--new-key", str(key))
    found = SigningKey.load(key).public
    assert again.stderr.count("does not admit") == 1
    assert bench.logged("client.other_key", client="c2")["reason"].startswith(f"its key is {found.fingerprint}")
    assert coordinator.running

    enrolled = bench.done("flavor", "enroll", bench.run, "c2", "--new-key", "--unsaved", "--public-url", "redis://h:1")
    assert enrolled.wait() == 0, enrolled.stderr
    assert "no key is pinned any more" in enrolled.stderr
    back = bench.edge("c2", bench.trainer())
    bench.eventually("its new key is pinned", lambda: bench.runs.public_keys().get("c2") == str(found))
    bench.release("c1")
    faulty.finish(coordinator, {"c1": edges["c1"], "c2": back})

    keys = ("--trust", bench.folder / "aggregator.key.pub")  # of the lost key nobody has the public half
    checked = verify(faulty, *keys)
    assert checked.wait() == 0, checked.stderr
    (told,) = [line for line in checked.stderr.splitlines() if "its key is" in line]
    assert told.startswith("notice: round 2: ")
    assert f"{found.fingerprint} from here on, and was {lost.fingerprint} since round 1: an operator enrolled" in told
    bench.runs.remove_keys()
    done = recover(faulty, *keys)
    assert done.wait() == 0, done.stderr
    assert told.removeprefix("notice: ") in done.stderr
    assert bench.runs.public_keys()["c2"] == str(found)


def test_a_site_with_a_wrong_store_is_told_at_joining_and_the_run_goes_on(faulty) -> None:
    """Row 43: a folder of its own, without the run or with another of the name; nothing is trained or written there."""
    bench = faulty.bench
    coordinator = faulty.serve("--on-quorum-lost", "wait")
    bench.aggregator()
    edges = faulty.edges("--hold", "--at", "2")
    for client in faulty.clients:
        bench.held(client)
    assert stopped(edges["c2"]) == 143
    wrong, other = bench.folder / "wrong", bench.folder / "other"
    (wrong / "notes").mkdir(parents=True)  # an empty folder may be where a share is mounted later
    record = other / "runs" / bench.run / "run.json"
    shutil.copytree(bench.store / "runs" / bench.run, record.parent)
    record.write_text(json.dumps({**json.loads(record.read_text()), "run_id": 32 * "0"}))

    for store, reason in ((wrong, f"this is not the store of run {bench.run!r}"), (other, "holds another run of")):
        there = sorted(store.rglob("*"))
        mistaken = bench.edge("c2", bench.trainer("--say", "I train"), "--store", store)
        says(mistaken, reason, "--store", str(store))
        assert mistaken.wait() == 2
        assert [line for line in mistaken.stderr.splitlines() if str(store) in line] == mistaken.stderr.splitlines()
        assert "I train" not in mistaken.stdout
        assert sorted(store.rglob("*")) == there
        assert coordinator.running

    edges["c2"] = bench.edge("c2", bench.trainer())
    bench.release("c1")
    faulty.finish(coordinator, edges)
    assert all(bench.runs.read_round(number).contributors == faulty.clients for number in (1, 2, 3))


def _replace(folder: Path, by: Path, newest: bool = False) -> None:
    """Put back what was kept: all of it, or the newest manifest alone."""
    if not newest:
        shutil.rmtree(folder)
        shutil.copytree(by, folder)
        return
    path = _newest_manifest(folder)
    os.replace(shutil.copy(by / path, folder / "copy"), folder / path)


def _newest_manifest(folder: Path) -> Path:
    """The path, below the run's folder, of the manifest of the last of three rounds."""
    return Path(manifest_path(folder.name, 3)).relative_to(run_prefix(folder.name))
