"""Third parties' stores: real packages (a module and its dist-info) in a folder on the path."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.errors import InvalidSetting, StoreUnavailable
from flavor.records.objects import ObjectRef
from flavor.store.local import LocalStore
from flavor.store.open import FACTORIES, open_store

STORES = '''
import sys
from pathlib import Path

from flavor.errors import StoreUnavailable
from flavor.store.local import LocalStore


def tape(url, *, create, settings):
    """A robot with tapes, of which each has a folder."""
    print("the robot says hello")
    return LocalStore(Path(url.removeprefix("tape://")), create=create)


def away(url, *, create, settings):
    raise StoreUnavailable("the robot is away", passing=True)


def fails(url, *, create, settings):
    raise KeyError("no robot\\nanywhere")


def ends(url, *, create, settings):
    sys.exit("no robot")


def empty(url, *, create, settings):
    return Path("x")
'''
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Writes a package's module and dist-info, as an installer would, and puts the folder on the path."""

    def done(points: str | bytes, code: str = STORES) -> None:
        (tmp_path / "robot_stores.py").write_text(code)
        monkeypatch.delitem(sys.modules, "robot_stores", raising=False)
        info = tmp_path / "robot-2.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robot\nVersion: 2.1\n")
        (info / "entry_points.txt").write_bytes(points if isinstance(points, bytes) else points.encode())
        monkeypatch.syspath_prepend(tmp_path)

    return done


def group(*lines: str) -> str:
    return "[flavor.stores]\n" + "\n".join(lines) + "\n"


def test_a_store_of_a_third_party_is_opened_by_its_scheme(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(group("tape = robot_stores:tape", "away = robot_stores:away"))
    store = open_store(f"tape://{tmp_path}/tapes", create=True)
    with store.stage() as staged:
        staged.write_bytes(b"bytes")
        store.put(ObjectRef("runs/r/global/0001-model-x.bin", hashlib.sha256(b"bytes").hexdigest()), staged)
    assert open_store(f"tape://{tmp_path}/tapes").exists("runs/r/global/0001-model-x.bin")
    assert capsys.readouterr().out == ""  # what it prints is no part of our output
    with pytest.raises(StoreUnavailable, match=r"^the robot is away$"):
        open_store("away://x")


def test_nothing_is_imported_before_its_scheme_is_asked_for(install: Install, tmp_path: Path) -> None:
    install(group("tape = robot_stores:tape"), "raise RuntimeError('imported')")
    assert isinstance(open_store(str(tmp_path / "store"), create=True), LocalStore)
    with pytest.raises(InvalidSetting, match="'other://' cannot be used: no package here provides"):
        open_store("other://x")
    assert "robot_stores" not in sys.modules


@pytest.mark.parametrize("scheme", sorted(FACTORIES))
def test_no_package_takes_the_place_of_what_flavor_brings(install: Install, tmp_path: Path, scheme: str) -> None:
    install(group(f"{scheme} = robot_stores:tape"), "raise RuntimeError('imported')")
    with pytest.raises(InvalidSetting):
        open_store(f"{scheme}://?")
    assert "robot_stores" not in sys.modules


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("robot_stores:fails", "robot_stores:fails: KeyError: 'no robot\\nanywhere'"),
        ("robot_stores:ends", "robot_stores:ends: SystemExit: no robot"),
        ("robot_stores:absent", "robot_stores:absent: AttributeError: module 'robot_stores' has no attribute 'absent'"),
        ("no_such_module:tape", "no_such_module:tape: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_broken_package_is_one_clear_line(install: Install, value: str, why: str) -> None:
    install(group(f"tape = {value}"))
    with pytest.raises(InvalidSetting) as raised:
        open_store("tape://user:password@host")
    assert str(raised.value) == f"store 'tape://' cannot be used: its package robot 2.1 is broken ({why})"


def test_what_is_no_store_is_told_what_it_lacks(install: Install) -> None:
    install(group("tape = robot_stores:empty"))
    with pytest.raises(
        InvalidSetting, match=r"robot_stores:empty makes no store: delete, folders, list, local, place, "
    ):
        open_store("tape://x")


def test_entry_points_that_cannot_be_read_are_told_where_a_scheme_is_unknown(install: Install, tmp_path: Path) -> None:
    install(b"[flavor.stores]\nno equals sign \xff\n[flavor.stores\n")
    assert open_store(str(tmp_path / "store"), create=True)
    with pytest.raises(InvalidSetting, match="'tape://' cannot be used: no package here provides"):
        open_store("tape://x")
