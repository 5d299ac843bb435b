"""The folders of a relay's starts, and what is no question of a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from flavor.edge.relay import Relay
from flavor.edge.trainer import Trainer
from flavor.edge.workspace import Workspace
from flavor.errors import BusUnavailable, WaitTimeout
from flavor.programs.finished_mark import read_mark
from flavor.programs.relay_folder import Answer, Ask, Asker, Call, RelayFolder
from flavor.records.names import Event
from flavor.view.site_events import SiteEvent
from tests.polled import eventually


class Events:
    """Redis as a relay sees it: nothing happens; what is set is noted."""

    def __init__(self, taken: int = 0) -> None:
        self.done: list[tuple[Event, int]] = []
        self._taken, self.is_away, self.started = taken, False, 0
        self._heard = 0

    def listen(self, wait_s: float) -> bool:
        before, self._heard = self._heard, self.started
        return self.started != before

    def begin_wait(self, after: int) -> None:
        pass

    def started_after(self, after: int) -> int:
        return self.started if self.started > after else 0

    def taken(self) -> int:
        if self.is_away:
            raise BusUnavailable("Redis is away")
        return self._taken

    def take(self, round_: int) -> None:
        self._taken = round_

    def set(self, event: Event, round_: int) -> None:
        self.done.append((event, round_))

    def close(self) -> None:
        pass


class Place:
    def __init__(self, root: Path) -> None:
        self.root, self.events, self.told = root, Events(), list[str]()
        self.files = Workspace.prepare(root, environment={}, input_path=root.parent)
        self.relays: list[Relay] = []

    def relay(self, files: Workspace | None = None, run_id: str = "1") -> Relay:
        made: Any = Relay(
            files or self.files, "c", "r", run_id=run_id, events=lambda: self.events, tell=self.told.append
        )  # type: ignore[arg-type, return-value]
        self.relays.append(made)
        return made

    def begun(self) -> tuple[Relay, RelayFolder]:
        relay = self.relay()
        relay.begin()
        return relay, RelayFolder(Path(relay.environment({})["FLAVOR_RELAY"]))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "w")
    yield made
    for relay in made.relays:
        relay.close()


def answered(folder: RelayFolder, name: str) -> Answer:
    eventually("an answer", (folder.answers / name).exists)
    return Answer.read(folder.answers / name)


def test_each_start_has_a_folder_of_its_own_for_the_model(place: Place) -> None:
    place.files.local_model.write_text("of an edge without a relay")
    relay, first = place.begun()
    local = Path(relay.environment({})["LOCAL_MODEL_PATH"])
    assert local == first.local / place.files.local_model.name
    assert local.read_text() == "of an edge without a relay"
    relay.close()
    _, second = place.begun()
    assert list(first.local.iterdir()) == []
    (first.local / place.files.local_model.name).write_text("of a late job")
    assert not place.files.local_model.exists()
    (second.local / place.files.local_model.name).write_text("new")
    assert place.files.local_model.read_text() == "new"
    assert "the edge that has started this script is gone" in str(answered(first, "closed.json").error)


def test_an_edge_without_a_relay_gets_the_folder_back(place: Place) -> None:
    relay, start = place.begun()
    place.files.local_model.write_text("trained")
    relay.close()
    place.relay().leave_off()
    assert place.files.local_model.read_text() == "trained"
    assert not place.files.local_model.parent.is_symlink()
    assert not start.local.exists()


def test_a_link_whose_folder_was_removed_is_no_obstacle(place: Place) -> None:
    _, start = place.begun()
    start.path.rename(start.path.with_name("elsewhere"))
    Workspace.prepare(place.root, environment={}, input_path=place.root.parent)
    assert place.files.local_model.parent.is_dir()


def test_the_script_is_given_the_path_as_the_site_has_named_it(place: Place) -> None:
    """Another machine may have the same files behind another link."""
    link = place.root.with_name("shared")
    link.symlink_to(place.root)
    relay = place.relay(Workspace.prepare(link, environment={}, input_path=place.root.parent))
    relay.begin()
    found = relay.environment({})
    assert {found[name].startswith(f"{link}/relay/") for name in ("FLAVOR_RELAY", "LOCAL_MODEL_PATH")} == {True}
    relay.close()
    relay.leave_off()
    assert not (link / "local").is_symlink()


def test_folders_of_long_ago_are_removed_and_a_path_that_the_site_names_stays(place: Place) -> None:
    for _ in range(8):
        relay, _ = place.begun()
        relay.close()
    assert len(list((place.root / "relay").iterdir())) == 6
    named = Workspace.prepare(
        place.root, environment={"LOCAL_MODEL_PATH": str(place.root / "mine" / "m.pt")}, input_path=place.root.parent
    )
    relay = place.relay(named)
    relay.begin()
    assert "LOCAL_MODEL_PATH" not in relay.environment({})
    assert place.told == [
        "LOCAL_MODEL_PATH is set: a job that outlives this edge may write into its next job's checkpoint"
    ]
    assert not named.local_model.parent.is_symlink()


def test_no_credential_of_the_edge_reaches_the_script(place: Place) -> None:
    relay, _ = place.begun()
    secrets = [f"FLAVOR_{name}" for name in ("REDIS_URL", "TLS_KEY", "JOIN", "NOTIFY", "EDGE", "PROXY", "STORE", "KEY")]
    secrets += ["AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"]
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://u:secret@proxy:1")
    kept = {"CUDA_VISIBLE_DEVICES": "1", "HTTP_PROXY": "http://proxy:1", "NO_PROXY": "a@b", "FLAVOR": "true"}
    kept |= dict.fromkeys(("FLAVOR_RUN", "FLAVOR_CLIENT", "TOTAL_ROUNDS"), "x")
    found = relay.environment({**kept, **proxies, **dict.fromkeys(secrets, "secret")})
    assert sorted(found) == sorted([*kept, "FLAVOR_RELAY", "LOCAL_MODEL_PATH"])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"call": "set"}', '{"call": "eval", "event": null, "round": 1, "asker": {}}', "[" * 9999]
)
def test_what_is_no_question_is_refused_and_the_next_one_answered(place: Place, text: str) -> None:
    _, folder = place.begun()
    (folder.asks / "a.json").write_text(text)
    Ask(Call.TAKEN).write(folder.asks / "b.json")
    (folder.asks / "c.json").symlink_to("/etc/passwd")
    (folder.asks / "0.json").mkdir()
    (folder.answers / "d.json" / "x").mkdir(parents=True)
    Ask(Call.TAKEN).write(folder.asks / "d.json")
    assert "nothing that a script asks" in str(answered(folder, "a.json").error)
    assert answered(folder, "b.json").value == 0
    assert "is a link" in str(answered(folder, "c.json").error)
    eventually("an answer in the place of a folder", (folder.answers / "d.json").is_file)
    assert answered(folder, "d.json").value == 0


def test_a_redis_that_is_away_for_too_long_is_told_and_a_scripts_machines_are_named(place: Place) -> None:
    _, folder = place.begun()
    place.events.is_away = True
    Ask(Call.TAKEN, asker=Asker("gpu-7", "12")).write(folder.asks / "a.json")
    assert isinstance(answered(folder, "a.json").error, BusUnavailable)
    place.events.is_away = False
    Ask(Call.TAKEN, asker=Asker("gpu-8\x1b[2J", "12", "1")).write(folder.asks / "b.json")
    assert answered(folder, "b.json").value == 0
    assert place.told[0] == "the script runs on gpu-7, in Slurm's job 12"
    assert place.told[1].endswith("in Slurm's job 12, which Slurm has started again (restart 1)")
    assert place.told[1].isprintable()
    for name, call in (("c", Call.TAKE), ("d", Call.SET)):
        event = Event.TRAIN_FINISHED if call is Call.SET else None
        Ask(call, event, 2, asker=Asker("gpu-7", "12", nodes=2)).write(folder.asks / f"{name}.json")
        answered(folder, f"{name}.json")
    assert "the script runs on 2 machines, of which 1 waited for round 2" in place.told[2]


def test_every_process_that_waits_is_given_the_round_and_a_wait_ends_in_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flavor.edge.relay._REREAD_S", 1000.0)
    _, folder = place.begun()
    for name in ("rank-0", "rank-1", "gone"):
        Ask(Call.WAIT_STARTED, None, 2).write(folder.asks / f"{name}.json")
    Ask(Call.WAIT_STARTED, None, 2, 0.05).write(folder.asks / "impatient.json")
    error = answered(folder, "impatient.json").error
    assert isinstance(error, WaitTimeout)
    assert str(error).startswith("client 'c': TrainStarted did not come within 0.05 s; `flavor status r`")
    (folder.asks / "gone.json").unlink()
    place.events.started = 3
    assert [answered(folder, f"rank-{number}.json").value for number in (0, 1)] == [3, 3]
    Ask(Call.WAIT_STARTED, None, 3).write(folder.asks / "next.json")
    Ask(Call.TAKEN).write(folder.asks / "taken.json")
    assert answered(folder, "taken.json").value == 0
    assert folder.asked() == ["next.json"]
    assert not (folder.answers / "gone.json").exists()


def test_a_share_that_takes_no_files_is_told_once_and_what_was_asked_is_answered_later(place: Place) -> None:
    _, folder = place.begun()
    hidden = folder.path.with_name("hidden")
    folder.answers.rename(hidden)
    Ask(Call.TAKEN).write(folder.asks / "a.json")
    eventually("it is told", lambda: any("the events of the script wait for the folder" in line for line in place.told))
    hidden.rename(folder.answers)
    assert answered(folder, "a.json").value == 0
    assert len([line for line in place.told if "wait for the folder" in line]) == 1


def test_a_job_that_is_not_there_yet_is_told_with_its_command(place: Place) -> None:
    heard: list[SiteEvent] = []
    site: Any = SimpleNamespace(
        observer=SimpleNamespace(hear=heard.append), config=SimpleNamespace(command=("srun", "a b"))
    )
    relay, folder = place.begun()
    Trainer(site, SimpleQueue(), relay).tell_unready()
    Ask(Call.TAKEN).write(folder.asks / "a.json")
    answered(folder, "a.json")
    Trainer(site, SimpleQueue(), relay).tell_unready()
    assert heard[0].line == (
        "waiting for the trainer to call SetEvent('TrainInitDone'), for 30 s now: no round begins before it has; its "
        "script has not asked for anything yet: srun 'a b'; `squeue` shows whether its job still waits for a node"
    )
    assert heard[1].line.endswith("no round begins before it has")


def test_files_are_marked_here_and_what_an_earlier_edge_left_unanswered_is_set(place: Place) -> None:
    relay, folder = place.begun()
    Ask(Call.SET, Event.TRAIN_FINISHED, 2).write(folder.asks / "a.json")
    answered(folder, "a.json")
    assert place.events.done == [(Event.TRAIN_FINISHED, 2)]
    assert read_mark(place.files.local_model, 2) is not None
    relay.close()
    for number, ask in enumerate(
        (
            Ask(Call.SET, Event.TRAIN_FINISHED, 3),
            Ask(Call.SET, Event.TRAIN_FINISHED, 2),
            Ask(Call.WAIT_STARTED, None, 3),
        )
    ):
        ask.write(folder.asks / f"{number}.json")
    for taken, expected in ((2, []), (3, [(Event.TRAIN_FINISHED, 3)])):
        events = Events(taken)
        place.relay().take_over(3, events)  # type: ignore[arg-type]
        assert events.done == expected
    assert read_mark(place.files.local_model, 3) is not None
    assert folder.asked() == ["1.json", "2.json"]


@pytest.mark.parametrize("environment", [{}, {"LOCAL_MODEL_PATH": "mine/m.pt"}])
@pytest.mark.parametrize(
    ("run_id", "has_other_between", "is_set"), [("1", False, True), ("1", True, False), ("2", False, False)]
)
def test_only_a_file_that_is_the_workspace_s_counts_as_finished_by_an_earlier_edge(
    place: Place, environment: dict[str, str], run_id: str, has_other_between: bool, is_set: bool
) -> None:
    """Not one that an edge without a relay may have begun to write since, and none of another run."""
    given = {name: str(place.root / path) for name, path in environment.items()}
    files = Workspace.prepare(place.root, environment=given, input_path=place.root.parent)
    killed = place.relay(files)
    killed.begin()
    folder = killed._folder
    assert folder is not None
    killed._closing.set()
    for thread in killed._threads:
        thread.join()
    Ask(Call.SET, Event.TRAIN_FINISHED, 1).write(folder.asks / "a.json")
    if has_other_between:
        place.relay(files).leave_off()
    events = Events(taken=1)
    place.relay(files, run_id).take_over(1, events)  # type: ignore[arg-type]
    assert events.done == ([(Event.TRAIN_FINISHED, 1)] if is_set else [])
