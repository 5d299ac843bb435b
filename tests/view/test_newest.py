"""The numbers that are shown of a run: the same wherever they are read, and however long the run is."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.cli.status_lines import summary_of
from flavor.store.local import LocalStore
from flavor.view.described import described
from flavor.view.followed import Followed
from flavor.view.history import History
from tests.driven import Driven


@pytest.fixture
def driven(url: str, tmp_path: Path) -> Driven:
    return Driven(url, LocalStore(tmp_path / "store", create=True))


def followed(driven: Driven) -> Followed:
    """The run as a board follows it, with all that it reads aside."""
    made = Followed(driven.runs.redis, driven.runs.run, driven.url, store=None)
    made.read()
    made.look_aside()
    return made


def test_the_best_round_is_the_best_of_all_rounds(url: str) -> None:
    driven = Driven(url)
    for number in range(1, 131):
        driven.open(["a"])
        driven.accept("a", 10, {"auc": 0.9 if number == 3 else 0.5 + number / 1000})
        driven.close()
    best = {"metric": "auc", "round": 3, "value": 0.9, "rounds": 130}
    found = described(driven.runs, url)
    assert found["best"] == best
    assert followed(driven).read().document["best"] == best
    assert History(driven.runs, None).curves("auc", ()).best == (3, 0.9)
    assert any("(best: 0.9, reported in round 3" in line.text for line in summary_of(found))
    driven.runs.redis.lpop(driven.runs.keys.closed, 20)
    driven.runs.redis.delete(*(driven.runs.keys.round(number) for number in range(1, 21)))
    found = described(driven.runs, url)
    assert (found["best"]["round"], found["best"]["rounds"]) == (130, 110), "no store has the first rounds"
    assert any("(best of the 110 rounds that can be read: 0.63" in line.text for line in summary_of(found))
