"""How fast a transfer moves, by what was seen of it."""

from __future__ import annotations

import pytest

from flavor.edge.speed import WINDOW_S, Speed
from flavor.watch import Progress

MB = 10**6


@pytest.mark.parametrize(
    ("seen", "bytes_s"),
    [
        ([(0, 0)], None),
        ([(0, 0), (0.5, MB)], None),
        ([(0, 0), (2, 4 * MB)], 2 * MB),
        # an earlier process has moved 60 of them
        ([(0, 60 * MB), (2, 64 * MB)], 2 * MB),
        # the mean of the window, and not of the whole time
        ([(at, min(at, 20) * MB) for at in range(20 + int(WINDOW_S) + 1)], 0),
        ([(at, 9 * at * MB if at < 5 else 45 * MB + (at - 5) * MB) for at in range(30)], MB),
        # a part that has to be sent again
        ([(0, 5 * MB), (5, 0)], 0),
    ],
)
def test_speed_is_that_of_the_last_seconds(seen: list[tuple[float, int]], bytes_s: int | None) -> None:
    speed = Speed()
    assert [speed.of(Progress("uploading", done, 100 * MB, 1), at) for at, done in seen][-1] == bytes_s


def test_each_transfer_is_measured_by_itself() -> None:
    speed = Speed()
    for at in range(5):
        speed.of(Progress("copying", at * MB, 5 * MB, 1), at)
    assert speed.of(Progress("uploading", 0, 5 * MB, 4000), 4.5) is None
    assert speed.of(Progress("uploading", 3 * MB, 5 * MB, 4000), 6) == 2 * MB
