"""A script that asks its edge by files, where the edge, or the file system between the two, does not do its part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flavor.cook.relayed import RelayedEvents
from flavor.cook.utils import LoadGlobalInfoJson
from flavor.errors import BusUnavailable, InvalidSetting, LeaseLost, RunOver, WaitTimeout
from flavor.programs.relay_folder import Answer, Ask, Asker, Call, RelayFolder
from flavor.records.names import Event


class Edge:
    """A folder of a start, and a clock that runs while the script sleeps; `does` is called with each of its pauses."""

    def __init__(self, path: Path) -> None:
        self.folder, self.now = RelayFolder(path / "start"), 0.0
        self.does: Callable[[], None] = lambda: None
        for each in (self.folder.asks, self.folder.answers, self.folder.local):
            each.mkdir(parents=True)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.does()

    def script(self) -> RelayedEvents:
        return RelayedEvents(self.folder.path, "c", clock=lambda: self.now, sleep=self.sleep)

    def answers(self, answer: Answer) -> None:
        """Answer whatever is asked."""

        def do() -> None:
            for name in self.folder.asked():
                self.folder.answer(name, answer)

        self.does = do


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


@pytest.mark.parametrize(
    "error",
    [LeaseLost("gone"), BusUnavailable("away"), WaitTimeout("late"), RunOver("r", "stopped", "by hand")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_edge_is_the_scripts(edge: Edge, error: BaseException) -> None:
    edge.answers(Answer(error=error))
    with pytest.raises(type(error)) as raised:
        edge.script().wait_started(0)
    assert str(raised.value) == str(error)
    assert edge.folder.asked() == []
    assert os.listdir(edge.folder.answers) == []


def test_a_folder_that_another_machine_does_not_see_is_named(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    script = edge.script
    shutil.rmtree(edge.folder.path)
    with pytest.raises(InvalidSetting, match="does not see the folder") as raised:
        script()
    assert 10 < edge.now < 60
    assert "/start, through which" in str(raised.value)
    assert "--workspace on a file system that its machine and the compute nodes share" in str(raised.value)


def test_a_folder_that_is_seen_late_is_used(edge: Edge) -> None:
    hidden = edge.folder.path.with_name("hidden")
    edge.folder.path.rename(hidden)
    edge.does = lambda: hidden.rename(edge.folder.path) if edge.now > 5 else None
    edge.script()
    assert 5 < edge.now < 10


def test_an_edge_without_a_sign_of_life_is_gone_and_what_was_asked_is_withdrawn(edge: Edge) -> None:
    edge.folder.beat(1)
    with pytest.raises(LeaseLost, match=r"its edge gives no sign of life for 30\d s"):
        edge.script().set(Event.TRAIN_FINISHED, 1)
    assert edge.folder.asked() == []


def test_an_edge_that_lives_is_waited_for(edge: Edge) -> None:
    def do() -> None:
        edge.folder.beat(int(edge.now) + 1)
        if edge.now > 2000:
            edge.answers(Answer(7))

    edge.does = do
    assert edge.script().newest_started() == 7


def test_a_file_system_that_stood_still_is_no_dead_edge(edge: Edge) -> None:
    """It shows the last sign of life from before, and the next one some looks later."""
    edge.folder.beat(1)

    def do() -> None:
        edge.now += 400 if edge.now < 400 else 0
        if edge.now > 410:
            edge.folder.beat(2)
            edge.answers(Answer(True))

    edge.does = do
    assert edge.script().is_set(Event.TRAIN_FINISHED, 1)


def test_a_folder_that_is_closed_says_why(edge: Edge) -> None:
    script = edge.script()
    edge.folder.close(Answer(error=LeaseLost("client 'c': another edge has taken its place")))
    edge.folder.close(Answer(error=LeaseLost("later")))
    for call in (lambda: script.set(Event.TRAIN_FINISHED, 1), lambda: script.wait_started(1)):
        with pytest.raises(LeaseLost, match="another edge"):
            call()
    assert edge.folder.asked() == []
    shutil.rmtree(edge.folder.path)
    with pytest.raises(LeaseLost, match="the folder of its edge was removed"):
        script.taken()


def test_half_an_answer_is_read_again(edge: Edge) -> None:
    def do() -> None:
        for name in edge.folder.asked():
            if (edge.folder.answers / name).exists():
                edge.folder.answer(name, Answer(3))
            else:
                (edge.folder.answers / name).write_text('{"val')

    edge.does = do
    assert edge.script().taken() == 3


def test_a_machine_looks_at_the_models_folder_anew_for_each_process_that_waits_or_reads_the_merged_information(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for NFS: a machine sees of a folder what was there when it listed the folder last."""
    folder, seen = tmp_path / "global", dict[str, list[str]]()
    folder.mkdir()
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: seen.setdefault(os.fspath(path), []) + listed(path))
    monkeypatch.setenv("GLOBAL_MODEL_PATH", str(folder / "model.ckpt"))
    monkeypatch.setenv("FLAVOR_RELAY", str(edge.folder.path))
    edge.answers(Answer(2))
    edge.script().taken()
    assert str(folder) not in seen, "other calls say nothing of a round"
    edge.script().wait_started(1)
    assert seen.pop(str(folder)) is not None
    assert LoadGlobalInfoJson() is None
    assert str(folder) in seen


@pytest.mark.parametrize(
    ("environment", "nodes"),
    [({}, 1), ({"SLURM_STEP_NUM_NODES": "2", "GROUP_WORLD_SIZE": "1"}, 2), ({"GROUP_WORLD_SIZE": "x"}, 1)],
)
def test_a_script_says_on_how_many_machines_it_runs(environment: dict[str, str], nodes: int, tmp_path: Path) -> None:
    Ask(Call.TAKEN, asker=Asker.of("h", environment)).write(tmp_path / "a.json")
    assert Ask.read(tmp_path / "a.json").asker.nodes == nodes


def test_what_is_asked_is_read_as_it_was_written(tmp_path: Path) -> None:
    for ask in (Ask(Call.SET, Event.TRAIN_FINISHED, 3), Ask(Call.WAIT_STARTED, None, 2, 0.5), Ask(Call.TAKEN)):
        ask.write(tmp_path / "a.json")
        assert Ask.read(tmp_path / "a.json") == ask
