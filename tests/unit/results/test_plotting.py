"""`metrics.png` while a run goes on: who draws it waits for nobody, and nobody for the drawing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from flavor.results import plotting
from flavor.results.plotting import Plotting
from flavor.results.rounds import RoundResult


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What each drawing waits for. One is due at once."""
    gate = threading.Event()

    def drawn(run: str, rounds: Sequence[RoundResult], path: Path, *judged: object) -> bool:
        assert gate.wait(30)
        with path.open("a") as file:
            file.write(f"{run} {len(rounds)}\n")
        return True

    monkeypatch.setattr(plotting, "plot_metrics", drawn)
    monkeypatch.setattr(plotting, "_FIRST_S", 0.0)
    monkeypatch.setattr(plotting, "_SHARE", 0)
    return gate


def test_rounds_are_written_on_while_the_plot_is_drawn_and_the_last_plot_has_all(
    tmp_path: Path, gate: threading.Event
) -> None:
    plot, rounds = Plotting(tmp_path / "metrics.png", print), [*range(3)]
    plot.draw_when_due("r", rounds)  # type: ignore[arg-type]
    rounds.append(3)  # a round that closes while that is drawn
    plot.draw_when_due("r", rounds)  # type: ignore[arg-type]
    assert not (tmp_path / "metrics.png").exists(), "nobody waited"
    threading.Timer(0.05, gate.set).start()
    plot.draw("r", rounds)  # type: ignore[arg-type]
    assert (tmp_path / "metrics.png").read_text() == "r 3\nr 4\n"
