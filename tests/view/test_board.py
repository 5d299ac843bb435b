"""What a page, metrics and a terminal see of a run: one reader, documents and patches that rebuild them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flavor.errors import RunNotFound
from flavor.view.board import Board
from flavor.view.patch import patched
from tests.served import Served


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def lasting(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what changes only because time passes."""
    clients = {name: {**row, "seen_ms": None} for name, row in document["clients"].items()}
    return without_nulls({**document, "clients": clients, "now_ms": None, "left_s": None})


def until(board: Board, what: str, holds: Any) -> Any:
    version = 0
    for _ in range(600):
        version = board.wait(version, 0.1)
        if found := holds():
            return found
    raise AssertionError(f"{what}: not in time; {board.runs()}")


@pytest.fixture
def served(url: str, tmp_path: Path) -> Iterator[Served]:
    served = Served(url, tmp_path, round_timeout_s=600.0, rounds=3)
    with served.opened():
        yield served


def test_a_run_as_it_goes(served: Served) -> None:
    with Board(served.url) as board:
        board.runs()
        version, document = board.version(), board.document("r")
        assert (document["state"], document["round"], document["round_state"]) == ("running", 1, "open")
        assert document["waits_for"] == "0 of 2 updates accepted, waiting for a, b"
        assert document["clients"]["a"]["phase"] == "training"
        assert document["clients"]["a"]["alive"]
        served.hands_in("a")
        served.accept("a")
        until(board, "a is done", lambda: board.document("r")["clients"]["a"]["phase"] == "done")
        patches = board.patches("r", version)
        assert patches
        rebuilt = document
        for _, patch in patches:
            rebuilt = patched(rebuilt, patch)
        assert lasting(rebuilt) == lasting(board.document("r"))
        [row] = board.runs()
        assert (row["run"], row["clients"], row["round"]) == ("r", 2, 1)
        assert board.events("r")[0]["event"] == "run.created"
        assert board.events("r")[0]["line"].startswith("run 'r' is open for clients")
        newest = board.events("r")[-1]["id"]
        assert board.events("r", newest) == []
        assert board.entries("r", before=newest, most=2) == board.events("r")[-3:-1]
        assert {each["client"] for each in board.events("r", kinds=["update"])} == {"a"}
        assert board.settings("r")["settings"][0]["name"] == "rounds"
        (evaluate,) = [each for each in board.settings("r")["settings"] if each["name"] == "evaluate"]
        assert (evaluate["value"], evaluate["default"]) == ("final", "final")
        assert board.queue()["queues"][0]["queue"] == "flavor"
        assert board.provenance("r")["chain"] == []
        assert board.client("r", "a")["row"]["phase"] == "done"
        with pytest.raises(RunNotFound, match="no client 'x'"):
            board.client("r", "x")
        with pytest.raises(RunNotFound, match="there is no run 'other'"):
            board.document("other")
