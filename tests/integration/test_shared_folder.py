"""A folder store whose sites, coordinator and aggregators are users of their own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flavor.edge.consent import check_rights
from flavor.errors import UnusableStore
from flavor.records.objects import ObjectRef
from flavor.store.digests import sha256_file
from flavor.store.local import LocalStore
from flavor.store.shared import make_folders

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
GROUP, ALICE, BOB = 20000, 20001, 20002


def put(root: Path, client: str) -> str:
    """As a site does when it joins, and hands in."""
    store = LocalStore(root)
    try:
        check_rights(store, "r", client)
    except UnusableStore as error:
        return f"refused: {error}"
    with store.stage() as staged:
        staged.write_bytes(client.encode())
        store.put(ObjectRef(f"runs/r/clients/{client}/0001-update.npz", sha256_file(staged)[0]), staged)
    return "put"


def take(root: Path, *clients: str) -> str:
    """As an aggregator does."""
    store, found = LocalStore(root), ""
    for client in clients:
        handed_in = f"runs/r/clients/{client}/0001-update.npz"
        found += store.read_unverified(store.take(handed_in, f"runs/r/accepted/0001-{client}.npz"), most=99).decode()
        store.delete([handed_in])
    return found


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="flavor-shared-"))
    yield folder
    shutil.rmtree(folder)


def done(user: int, umask: int, what: Callable[..., str], *words: object) -> str:
    """What another user's process says."""
    mine, its = multiprocessing.Pipe()

    def run() -> None:
        os.setgroups([GROUP])
        os.setgid(user)
        os.setuid(user)
        os.umask(umask)
        try:
            its.send(what(*words))
        except BaseException as error:
            its.send(repr(error))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    assert mine.poll(60.0)
    said = mine.recv()
    process.join()
    return str(said)


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_users_of_one_group_share_a_folder_with_the_setgid_bit(root: Path, umask: int) -> None:
    """Whatever the umask of who comes first; the aggregator, another user, takes and reads what both have put."""
    os.chown(root, 0, GROUP)
    root.chmod(0o2770)
    (
        root / "another-runs.json"
    ).touch()  # into an empty folder, which an unmounted share leaves, no store puts anything
    for user, client in ((ALICE, "a"), (BOB, "b")):
        assert done(user, umask, put, root, client) == "put"
    assert done(BOB, umask, take, root, "a", "b") == "ab"
    assert done(ALICE, umask, Path.read_text, root / "runs/r/accepted/0001-a.npz") == "a"


def test_a_site_that_lacks_a_right_learns_it_when_it_joins(root: Path) -> None:
    """In one line that says which, on which folder; a site of the right user is not held up."""
    root.chmod(0o1777)
    before = os.umask(0o077)
    try:
        make_folders(root / "runs" / "r")
    finally:
        os.umask(before)
    refused = done(ALICE, 0o022, put, root, "a")
    line = f"user {ALICE} may not write to the folder {root}/runs, which is of user 0 and group 0 with mode 0700"
    assert refused.startswith(f"refused: store {root}: {line}: give those who use it a group")
    assert len(refused.splitlines()) == 1
    check_rights(LocalStore(root), "r", "a")
