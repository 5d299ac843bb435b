"""How far a client is, in words, and what of a client's own words is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flavor.records.client import Transfer
from flavor.records.pulse import Doing, Load, Pulse
from flavor.records.reported import Reported
from flavor.view.progress import Progress, progress_of, words_of

NOW_MS, BEGUN_MS = 2_000_000, 1_000_000
TRAINS = frozenset({Doing.DOWNLOADING, Doing.TRAINING, Doing.UPLOADING})
STARTS = frozenset({Doing.STARTING})


def of(pulse: Pulse, transfer: Transfer | None = None, fits: frozenset[Doing] = TRAINS) -> Progress:
    return progress_of(pulse, transfer, fits=fits, round_=3, begun_ms=BEGUN_MS)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(), "training"),
        (
            Progress(Doing.TRAINING, NOW_MS - 840000, None, Reported(310, 508)),
            "training 61 % (310 of 508), began 14 min ago",
        ),
        (Progress(Doing.TRAINING, NOW_MS - 4000, None, Reported(310, 508)), "training 61 % (310 of 508)"),
        (Progress(Doing.TRAINING, NOW_MS - 60000, None, Reported(2.5)), "training 2.5, began 1 min ago"),
        (Progress(Doing.TRAINING, NOW_MS - 60000, None, Reported(9, 3)), "training 100 % (9 of 3), began 1 min ago"),
        (Progress(Doing.UPLOADING, NOW_MS - 60000), "uploading, for 1 min"),
        (Progress(Doing.UPLOADING, NOW_MS - 60000, None, Reported(10, 10)), "uploading, for 1 min"),
        (
            Progress(Doing.DOWNLOADING, NOW_MS - 60000, Transfer("fetching", 10**6, 10**8), Reported(1, 2)),
            "fetching 1 of 100 MB (1 %), began 1 min ago",
        ),
        (
            Progress(Doing.UPLOADING, NOW_MS - 1000, Transfer("uploading", 61 * 10**6, 126 * 10**6, 5, 2_123_456)),
            "uploading 61 of 126 MB (48 %, 2.1 MB/s)",
        ),
        (Progress(transfer=Transfer("copying", 5, 0, 5, 0)), "copying 5 of 0 B (0 B/s)"),
        (
            Progress(Doing.TRAINING, NOW_MS - 276000, None, Reported(11, 30), reported_ms=NOW_MS - 270000),
            "training 36 % (11 of 30), reported 4 min 30 s ago, began 4 min 36 s ago",
        ),
        (
            Progress(Doing.TRAINING, NOW_MS - 8000, None, Reported(15, 30), reported_ms=NOW_MS - 1000),
            "training 50 % (15 of 30), began 8 s ago",
        ),
        (Progress(None, None, None, Reported(10**300, 10**300)), "training 100 % (1e+300 of 1e+300)"),
    ],
)
def test_in_words(progress: Progress, line: str) -> None:
    assert progress.described("training", NOW_MS) == line


def test_a_script_s_words_are_set_apart_and_cannot_steer_a_terminal() -> None:
    said = Reported(1, 2, "\x1b[2Jdone\n   a: " + "failed " * 90, {"lo\x07ss": 0.123456, **dict.fromkeys("abcde", 1.0)})
    words = words_of(said)
    assert words.isprintable()
    assert words.startswith('"lo\\x07ss" 0.1235, a 1, b 1, c 1, "\\x1b[2Jdone a: failed failed')
    assert words.endswith('"')
    assert len(words) < 200
    assert (words_of(None), words_of(Reported(1, 2))) == ("", "")


def test_a_client_is_believed_where_it_fits_what_the_run_knows() -> None:
    said = Pulse(Doing.TRAINING, 3, NOW_MS - 60_000, Reported(1, 2, round=3), Load(1, 2, 3))
    assert of(said) == Progress(Doing.TRAINING, NOW_MS - 60000, None, Reported(1, 2, round=3), Load(1, 2, 3))
    timed = replace(said, reported_ms=NOW_MS - 4000)
    assert of(timed).silent_s(NOW_MS) == 4.0
    assert of(replace(timed, reported_ms=1)).reported_ms == BEGUN_MS
    assert of(timed, fits=frozenset({Doing.UPLOADED})).reported_ms is None
    for fits in (STARTS, frozenset({Doing.WAITING}), frozenset({Doing.UPLOADED}), frozenset[Doing]()):
        assert of(said, fits=fits) == Progress(load=Load(1, 2, 3)), "it is elsewhere"
    for round_ in (0, 2, 4):
        old = Pulse(Doing.TRAINING, round_, NOW_MS - 60_000, Reported(1, 2, round=round_))
        assert of(old) == Progress(), "it is of another round"
    starting = Pulse(Doing.STARTING, 0, NOW_MS - 60_000, Reported(1, 2))
    assert of(starting, fits=STARTS) == Progress(Doing.STARTING, NOW_MS - 60000, None, Reported(1, 2))
    assert of(starting) == Progress()


@pytest.mark.parametrize(("since_ms", "lasts_s"), [(1, 1000.0), (NOW_MS + 10**12, 0.0), (0, None)])
def test_a_time_that_cannot_be_is_not_believed(since_ms: int, lasts_s: float | None) -> None:
    assert of(Pulse(Doing.TRAINING, 3, since_ms)).lasts_s(NOW_MS) == lasts_s
