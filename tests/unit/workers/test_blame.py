"""Who is to blame where updates are fine alone, and the next round could not train from what they make together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flavor.errors import NoModelPossible, UpdatesRefused
from tests.unit.contributions.madeup import MadeRun
from workers.blame import refusal

HONEST = {"a": 0.1, "b": 0.2, "c": 0.3}


def model(value: float) -> dict[str, Any]:
    return {"w": np.full(6, value, np.float32), "v": np.full(2, 1e-3, np.float32)}


def begun(folder: Path, **config: Any) -> MadeRun:
    return MadeRun(folder, initial=model(0), config=config)


def given(e: float, examples: int = 10) -> dict[str, Any]:
    return {**{client: (model(value), 10) for client, value in HONEST.items()}, "e": (model(e), examples)}


@pytest.mark.parametrize(
    ("rule", "step", "far", "examples"),
    [
        ("fednova", None, 7e17, 10),
        ("diloco", None, 7e18, 10**9),
        ("mean", "momentum:lr=5", 6e18, 10**9),
        ("norm_clip:c=1e20/fednova", None, -7e17, 10),
    ],
)
def test_a_model_that_no_site_could_hand_in_is_not_committed(
    tmp_path: Path, rule: str, step: str | None, far: float, examples: int
) -> None:
    """It is finite, and its squares have no room: the next inspection would have refused every honest site."""
    run = begun(tmp_path, aggregator=rule, server_step=step)
    run.steps = {"a": 10, "b": 10, "c": 10, "e": 1e-30}
    with pytest.raises(UpdatesRefused) as raised:
        run.round(given(far, examples))
    assert list(raised.value.refused) == ["e"]
    assert "has values in 'w' whose squares have no room" in raised.value.refused["e"]
    run.round(given(0.1))
    assert np.abs(run.tensors()["w"]).max() < 100


def test_the_client_with_the_largest_change_is_not_refused_in_the_place_of_another(tmp_path: Path) -> None:
    """The rule enlarges e's change 100 times and makes a's smaller; without a, the median of the steps would be e's."""
    run = begun(tmp_path, aggregator="fednova")
    run.steps = {"a": 100, "b": 10, "e": 1e-30}
    updates = {"a": (model(5e18), 10), "b": (model(0.1), 10), "e": (model(7e17), 10)}
    with pytest.raises(UpdatesRefused) as raised:
        run.round(updates)
    assert list(raised.value.refused) == ["e"]


def test_momentum_that_carries_the_model_too_far_by_itself_is_no_site_s_fault(tmp_path: Path) -> None:
    run = begun(tmp_path, aggregator="mean", server_step="momentum:lr=1,beta=0.9")
    run.round(given(5e18, 10**12))
    with pytest.raises(NoModelPossible, match="also if no site changes anything, so no site is to blame") as raised:
        run.round({client: (run.tensors(), 10) for client in "abce"})
    assert "an update of an earlier round may be to blame" in str(raised.value)
    assert "--max-update-norm, which bounds each update" in str(raised.value)


def test_who_adds_to_momentum_is_to_blame_as_long_as_the_model_could_stand_still(tmp_path: Path) -> None:
    run = begun(tmp_path, aggregator="mean", server_step="momentum:lr=1,beta=0.1")
    run.round(given(5e18, 10**12))
    still = run.tensors()
    far = {**still, "w": still["w"] * np.float32(1.45)}
    with pytest.raises(UpdatesRefused) as raised:
        run.round({**dict.fromkeys("abc", (still, 10)), "e": (far, 10**12)})
    assert list(raised.value.refused) == ["e"]


@pytest.mark.parametrize(
    ("reach", "guilty", "refused"),
    [
        ({"a": 1, "b": 9, "c": 2}, [{"b"}], ["b"]),
        ({"a": 1, "b": 9, "c": 2}, [{"a"}], ["a"]),
        ({"a": 1, "b": 9, "c": 2}, [{"a", "c"}], ["c"]),
        ({"a": 1, "b": 9, "c": 2}, [{"a"}, {"c"}], ["a", "c"]),
        ({"a": 1}, [{"a"}], ["a"]),
    ],
)
def test_the_fewest_are_refused_from_the_farthest_on(
    reach: dict[str, float], guilty: list[set[str]], refused: list[str]
) -> None:
    """A result cannot be used if it has all of one of the sets of `guilty` clients."""

    def is_usable(clients: Sequence[str]) -> bool:
        return not any(each <= set(clients) for each in guilty)

    found = refusal(reach, "is not finite in 'w'", is_usable)
    assert isinstance(found, UpdatesRefused)
    assert sorted(found.refused) == refused


def test_where_each_result_is_broken_no_client_is_to_blame() -> None:
    found = refusal({"a": 1, "b": 2}, "is not finite in 'w'", lambda _: False)
    assert isinstance(found, NoModelPossible)
    assert "whichever clients are left out" in str(found)
