"""What an edge tells while its client trains, and how seldom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from flavor.edge.machine import Machine
from flavor.edge.membership import Membership
from flavor.edge.part import Part
from flavor.edge.pulse import PulseKeeper, doing_of
from flavor.errors import BusUnavailable, LeaseLost
from flavor.programs.report_file import report_path, write_report
from flavor.records.pulse import Doing, Load, Pulse
from flavor.records.reported import Reported
from flavor.records.update import Refused
from tests.recorded import accepted

SERVER_MS = 1_000_000
READY = Part().got_ready()
TRAINING = READY.heard_of(1).began(1, base=None)
FINISHED = TRAINING.finished(1)


class Site:
    """An edge's surroundings: a clock that stands still, a part, a machine, and a run that hears pulses."""

    def __init__(self, folder: Path, *, shares: bool = True, beat_s: float = 10.0) -> None:
        self.now, self.part, self.moving = 0.0, Part(), ""
        self.heard: list[tuple[float, Pulse]] = []
        self.error: Exception | None = None
        self.machines = 0
        self.local = folder / "model.ckpt"
        self.keeper = PulseKeeper(
            cast(Membership, self),
            self.local,
            part=lambda: self.part,
            moving=lambda: self.moving,
            shares=shares,
            beat_s=beat_s,
            clock=lambda: self.now,
            machine=self.machine,
        )

    def machine(self) -> Machine:
        self.machines += 1
        return cast(Machine, self)

    def load(self) -> Load:
        return Load(50.0, 1, 2)

    def report_pulse(self, pulse_at: Callable[[int], Pulse]) -> None:
        if self.error is not None:
            raise self.error
        self.heard.append((self.now, pulse_at(SERVER_MS)))

    def looks(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.keeper.look()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def part_with(judge: Callable[[Part], Part]) -> Part:
    return judge(FINISHED.handed_in(1, accepted().inspected))


@pytest.mark.parametrize(
    ("part", "moving", "doing"),
    [
        (Part(), "", (Doing.STARTING, 0)),
        (Part(), "down", (Doing.STARTING, 0)),
        (Part(), "up", (Doing.UPLOADING, 0)),
        (READY, "", (Doing.WAITING, 0)),
        (READY.heard_of(3), "down", (Doing.DOWNLOADING, 3)),
        (TRAINING, "", (Doing.TRAINING, 1)),
        (TRAINING.heard_of(2), "", (Doing.TRAINING, 1)),
        (FINISHED, "up", (Doing.UPLOADING, 1)),
        (part_with(lambda part: part), "", (Doing.UPLOADED, 1)),
        (part_with(lambda part: part.judged(accepted=True)), "", (Doing.INSPECTED, 1)),
        (part_with(lambda part: part.judged(accepted=False)), "", (Doing.WAITING, 1)),
        (part_with(lambda part: part.judged(accepted=True)).heard_of(2), "", (Doing.WAITING, 2)),
        (FINISHED.handed_in(1, Refused("no file")), "", (Doing.WAITING, 1)),
        (FINISHED.left(), "", (None, 1)),
    ],
)
def test_what_a_client_is_doing(part: Part, moving: str, doing: tuple[Doing | None, int]) -> None:
    assert doing_of(part, moving) == doing


@pytest.mark.parametrize("moving", ["", "up"])
def test_a_client_whose_evaluator_runs_judges(moving: str) -> None:
    assert doing_of(FINISHED, moving, 4) == (Doing.EVALUATING, 4)


def test_a_state_is_told_once_it_has_lasted_a_second_with_since_when(site: Site) -> None:
    site.part = TRAINING
    site.looks(1)
    assert site.heard == []
    site.looks(1)
    assert site.heard == [(2.0, Pulse(Doing.TRAINING, 1, SERVER_MS - 1000))]
    site.looks(7)
    assert len(site.heard) == 1, "nothing has changed"


def test_rounds_of_less_than_a_second_cost_nothing(site: Site) -> None:
    for round_ in range(1, 10):
        site.part = Part().got_ready().heard_of(round_).began(round_, base=None)
        site.now += 0.9
        site.keeper.look()
    assert site.heard == []


def test_a_report_is_told_with_the_round_that_the_edge_knows(site: Site) -> None:
    write_report(site.local, Reported(1, 4))
    site.looks(1)
    assert site.heard == [(1.0, Pulse(Doing.STARTING, 0, SERVER_MS, Reported(1, 4), reported_ms=SERVER_MS))], (
        "before the first round"
    )
    site.part = TRAINING
    write_report(site.local, Reported(2, 4, "m", {"loss": 0.5}, round=77))
    site.looks(1)
    assert site.heard[1:] == [
        (2.0, Pulse(Doing.TRAINING, 1, SERVER_MS, Reported(2, 4, "m", {"loss": 0.5}, 1), reported_ms=SERVER_MS))
    ]
    site.looks(5)
    assert len(site.heard) == 2
    site.looks(10)
    assert len(site.heard) > 2, "a heartbeat"
    assert {pulse.reported_ms for _, pulse in site.heard[1:]} == {SERVER_MS}, "the report is as old as it was"
    site.part = FINISHED
    write_report(site.local, Reported(4, 4))
    site.looks(1)
    assert site.heard[-1][1].reported == Reported(4, 4, round=1), "the last one, at TrainFinished"


def test_a_report_that_comes_as_the_round_changes_is_of_no_wrong_round(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = iter([TRAINING, FINISHED.heard_of(2).began(2, base=None)])
    write_report(site.local, Reported(9, 9))
    monkeypatch.setattr(site.keeper, "_part", lambda: next(parts))
    site.now += 1
    site.keeper.look()
    assert site.heard == []


def test_what_an_earlier_process_left_is_not_told(tmp_path: Path) -> None:
    write_report(tmp_path / "model.ckpt", Reported(9, 9))
    site = Site(tmp_path)
    site.looks(3)
    assert [pulse.reported for _, pulse in site.heard] == [None]


def test_a_script_that_starts_again_in_a_later_round_reports_before_its_first(site: Site) -> None:
    site.part = Part(newest=3, behind=3)
    write_report(site.local, Reported(1, 4))
    site.looks(1)
    assert site.heard == [(1.0, Pulse(Doing.STARTING, 0, SERVER_MS, Reported(1, 4), reported_ms=SERVER_MS))]


def test_a_report_that_is_none_is_not_told(site: Site) -> None:
    site.part = TRAINING
    site.looks(2)
    report_path(site.local).write_text("[" * 4000)
    site.looks(3)
    assert [pulse.reported for _, pulse in site.heard] == [None]


def test_each_heartbeat_tells_all_again_with_the_load(site: Site) -> None:
    site.part = TRAINING
    site.looks(8)
    assert site.machines == 0, "psutil is imported late"
    site.looks(13)
    assert [(at, pulse.load) for at, pulse in site.heard] == [(2.0, None), (10.0, site.load()), (20.0, site.load())]
    assert [SERVER_MS - pulse.since_ms for _, pulse in site.heard] == [1000, 9000, 19000]
    assert site.machines == 1


def test_a_site_that_keeps_its_reports_tells_neither_them_nor_its_load(tmp_path: Path) -> None:
    site = Site(tmp_path, shares=False)
    site.part = TRAINING
    write_report(site.local, Reported(1, 4))
    site.looks(30)
    assert site.machines == 0
    assert [(at, pulse.doing, pulse.reported, pulse.load) for at, pulse in site.heard] == [
        (float(at), Doing.TRAINING, None, None) for at in (2, 10, 20, 30)
    ]


def test_a_machine_that_cannot_be_measured_ends_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        site.machines += 1
        raise ImportError("No module named 'psutil'")

    monkeypatch.setattr(site.keeper, "_make_machine", none)
    site.looks(30)
    assert site.machines == 1
    assert [(at, pulse.load) for at, pulse in site.heard] == [(float(at), None) for at in (2, 10, 20, 30)]


def test_what_could_not_be_told_is_told_later(site: Site) -> None:
    site.part = TRAINING
    site.looks(2)
    write_report(site.local, Reported(1, 4))
    site.error = BusUnavailable("away")
    for _ in range(3):
        with pytest.raises(BusUnavailable):
            site.looks(1)
    site.error = None
    site.looks(2)
    assert [(at, pulse.reported) for at, pulse in site.heard] == [(2.0, None), (6.0, Reported(1, 4, round=1))]


@pytest.mark.parametrize(("error", "goes_on"), [(BusUnavailable("away"), True), (LeaseLost("gone"), False)])
def test_the_thread_ends_with_the_membership_and_by_no_other_error(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, goes_on: bool
) -> None:
    monkeypatch.setattr("flavor.edge.pulse.LOOK_S", 0.001)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            site.keeper._stop.set()
        raise error

    monkeypatch.setattr(site.keeper, "look", look)
    site.keeper.start()
    site.keeper._thread.join(60)
    assert looks == (3 if goes_on else 1)
    site.keeper.stop()


def test_this_machine() -> None:
    machine = Machine()
    load = machine.load()
    assert Load.from_json(load.to_json()) == load
    assert 0 <= load.cpu_percent <= 100
    assert 0 < load.used_bytes < load.total_bytes


def test_gpus_are_added_up_where_the_library_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(used=device + 1, total=10),
        nvmlDeviceGetUtilizationRates=lambda device: SimpleNamespace(gpu=100 * device),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)  # type: ignore[arg-type]
    machine = Machine()
    assert (gpus := machine.load().gpus) is not None
    assert (gpus.number, gpus.percent, gpus.used_bytes, gpus.total_bytes) == (2, 50.0, 3, 20)
    library.nvmlDeviceGetCount = lambda: 1 / 0  # the driver is gone
    assert machine.load().gpus is None
