"""The file by which a probe sees that a program is alive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flavor import alive
from flavor.errors import InvalidSetting, StoreUnavailable
from flavor.store.aside import in_lanes
from flavor.store.requests import Requests
from flavor.store.settings import Endurance


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def aged(path: Path) -> None:
    os.utime(path, (1, 1))


def is_young(path: Path) -> bool:
    return path.stat().st_mtime > 1


def test_a_program_is_starting_and_then_ready(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    life = alive.Life(file)
    assert file.read_text() == "starting\n"
    aged(file)
    assert life.look()
    assert is_young(file)
    life.ready()
    assert file.read_text() == "ready\n"


def test_a_loop_that_stands_still_lets_the_file_age(tmp_path: Path) -> None:
    file, clock = tmp_path / "alive", Clock()
    life = alive.Life(file, clock=clock)
    clock.now += 10 * alive.STUCK_S  # before the loop: models are uploaded, say
    life.turned()
    assert life.look()
    life.loops(True)
    clock.now += alive.STUCK_S - 1
    assert life.look()
    clock.now += 2
    aged(file)
    assert not life.look()
    assert not is_young(file)
    life.turned()
    assert life.look()
    clock.now += alive.STUCK_S - 1
    life.loops(False)
    clock.now += alive.STUCK_S
    assert life.look()


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InvalidSetting, match=r"FLAVOR_ALIVE_FILE: .*/run/alive cannot be written: No such file"):
        alive.Life(folder / "alive")
    folder.mkdir()
    life = alive.Life(folder / "alive")
    (folder / "alive").unlink()
    folder.rmdir()
    assert not life.look()
    assert not life.look()
    assert capsys.readouterr().err.count("cannot be written any more: No such file") == 1


def test_only_where_the_variable_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "_life", None)
    alive.begin({})
    alive.ready()
    with alive.looping():
        alive.turned()
    alive.begin({alive.VARIABLE: str(tmp_path / "alive")})
    with alive.looping():
        assert (tmp_path / "alive").read_text() == "ready\n"


def test_a_store_that_is_away_and_an_object_of_many_parts_are_no_stuck_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    life = alive.Life(tmp_path / "alive", clock=clock)
    monkeypatch.setattr(alive, "_life", life)

    def away() -> None:
        assert life.look()
        clock.now += alive.STUCK_S - 1
        raise StoreUnavailable("no answer", passing=True)

    with alive.looping():
        with pytest.raises(StoreUnavailable):
            Requests("s3://b", Endurance(patience_s=0.0)).persist("key", away, attempts=3)
        for part in in_lanes(range(3), lambda part: part, lanes=lambda: 1):
            clock.now += alive.STUCK_S - 1
            assert life.look(), part
