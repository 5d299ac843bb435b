"""The times of a site's phases, which are the server's although this machine's clock may say anything."""

from __future__ import annotations

from flavor.edge.meter import Meter
from flavor.records.measured import MOST_PHASES, Measured
from flavor.records.moved import Moved
from flavor.records.pulse import Doing


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def test_a_round_is_measured_by_the_server_s_clock() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert meter.measured(1, 1_000_000) == Measured()
    meter.received(100)
    meter.begin(1, Doing.DOWNLOADING)
    meter.received(4096)
    clock.now += 1.5
    meter.begin(1, Doing.TRAINING)
    clock.now += 60.0
    meter.begin(1, Doing.UPLOADING)
    meter.sent(50)
    clock.now += 0.25
    meter.begin(1, Doing.UPLOADED)
    told = meter.measured(1, 1_000_000)
    assert [tuple(start) for start in told.phases] == [
        ("downloading", 938_250),
        ("training", 939_750),
        ("uploading", 999_750),
        ("uploaded", 1_000_000),
    ]
    assert told.moved == Moved(50, 4096)
    assert meter.moved == Moved(50, 4196)
    clock.now += 3.0
    assert meter.measured(1, 1_003_999) == told, "an update that is handed in again is the same"
    assert meter.measured(2, 1_003_999) == Measured()
    meter.begin(2, Doing.TRAINING)
    assert meter.measured(2, 1_004_000) == Measured(meter.measured(2, 1_004_000).phases, Moved())
    assert [start.start_ms for start in meter.measured(2, 0).phases] == [1_004_000]


def test_a_round_that_is_tried_again_and_again_has_its_last_phases() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(MOST_PHASES):
        clock.now += 1.0
        meter.begin(1, Doing.UPLOADING)
        meter.begin(1, Doing.UPLOADED)
    assert len(meter.measured(1, 10**6).phases) == MOST_PHASES


def test_an_edge_that_is_started_again_counts_on() -> None:
    meter = Meter(Clock(), moved=Moved.from_hash(Moved(67, 51, 9).to_hash()))
    meter.begin(4, Doing.DOWNLOADING)
    meter.received(10)
    assert (meter.moved, meter.measured(4, 10**6).moved) == (Moved(67, 61, 9), Moved(0, 10))
    meter.sent(1)
    assert meter.moved == Moved(68, 61, 9)
    assert Moved.from_hash({"sent": "many"}) == Moved()
