"""What a local run is told to do that fails again as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flavor.config import RunConfig
from flavor.edge.notice import Failure
from flavor.local import mending
from flavor.policy.advice import PUT_BACK, from_earlier, way_on
from flavor.records.states import RunState
from flavor.view.snapshot import Phase

LINE = (
    "begin a new run with other patterns: the model of b does not go together with --local 'bn', which this run keeps"
)


def snapshot(monkeypatch: pytest.MonkeyPatch, failure: Failure, **settings: Any) -> None:
    clients = {
        "a": SimpleNamespace(phase=Phase.WAITING, failure=None),
        "b": SimpleNamespace(phase=Phase.REFUSED, failure=failure),
    }
    found = SimpleNamespace(clients=clients, config=RunConfig(store="s", rounds=2, min_clients=2, **settings))
    monkeypatch.setattr(mending, "take_snapshot", lambda _: found)


def test_a_failed_run_names_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: Any = None
    for failure, parts in ((Failure.NOT_DIVIDED, {}), (Failure.INFO, {"local": ("bn",)}), (Failure.ENDED, {})):
        snapshot(monkeypatch, failure, **parts)
        assert mending.other_patterns(runs, ["a", "b"]) == ""
        assert mending.without_failed(runs, ["a", "b"]).startswith("or at once with --min-clients 1, without b")
    snapshot(monkeypatch, Failure.NOT_DIVIDED, local=("bn",))
    assert mending.other_patterns(runs, ["a", "b"]) == LINE
    assert mending.other_patterns(runs, ["a", "c"]) == ""


def test_nothing_is_said_of_going_on_without_most_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: Any = None
    snapshot(monkeypatch, Failure.ENDED)
    assert mending.without_failed(runs, ["a", "b", "c"]) == "", "b and c, of whom nothing is known, have failed"


def test_a_model_that_no_site_can_train_is_no_reason_to_leave_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(monkeypatch, Failure.INFO)
    round_ = SimpleNamespace(round=4, untrained={"b"}, unreadable=set())
    for closed, is_told in ((3, True), (4, False)):
        runs: Any = SimpleNamespace(read_own=lambda: None, closed=lambda _, closed=closed: (closed, round_))
        said = mending.what_helps(runs, ["a", "b"], "/a b")
        assert ("`flavor get '/a b' --round N`, with N below 3" in said) is is_told
    round_.unreadable, runs.closed = {"b"}, lambda _: (3, round_)
    assert mending.what_helps(runs, ["a", "b"], "/a b") == PUT_BACK, "another model is not needed"


@pytest.mark.parametrize(("mended", "is_told"), [({}, True), ({"main": "python other.py"}, False)])
def test_a_run_that_goes_on_unchanged_does_not_wait_in_silence(
    mended: dict[str, str], is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(monkeypatch, Failure.NOT_DIVIDED, local=("bn",))
    view = SimpleNamespace(state=RunState.FAILED)
    runs: Any = SimpleNamespace(
        run="mammo", read_own=lambda: view, closed=lambda _: (0, None), members=lambda: ["a", "b"]
    )
    done = SimpleNamespace(changed=(), cut_off="", config=RunConfig(store="s", rounds=2, min_clients=2))
    monkeypatch.setattr(mending, "resume", lambda *_, **__: done)
    told: list[str] = []
    mending.let_go_on(runs, {}, mended, lambda *_: None, out="/a b", tell=told.append)
    assert told == [*[f"mend the script, or {LINE}"] * is_told, "run mammo goes on after round 0 of 2"]


def test_a_failed_run_gives_its_advice_once_and_for_its_folder() -> None:
    config, short = RunConfig(store="s", rounds=5, min_clients=1, on_quorum_lost="fail"), "1 is needed; b: NaN"
    for kind, round_, helps in (
        ("untrained", 4, from_earlier("'/a b'", 4)),
        ("untrained", 2, from_earlier("'/a b'", 2)),
        ("doubted", 4, from_earlier("'/a b'", 4)),
        ("unread", 4, PUT_BACK),
    ):
        advice = way_on("r", round_, config, remain=0, ended=True, **{kind: ["b"]})
        reason = "; ".join(["1 is needed", *advice, "b: NaN"])
        assert mending.without_advice(reason, helps, "r", "/a b") == short
        assert mending.without_advice(reason, "", "r", "/a b") == reason
        assert mending.without_advice(short, helps, "r", "/a b") == short
