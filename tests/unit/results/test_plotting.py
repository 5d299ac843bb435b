"""`metrics.png` while a run goes on: who draws it waits for nobody, and nobody for the drawing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flavor.results import plotting
from flavor.results.plot import Plotted
from flavor.results.plotting import Plotting
from flavor.results.rounds import RoundResult


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What each drawing waits for. One is due at once."""
    gate = threading.Event()

    def drawn(plotted: Plotted, path: Path) -> bool:
        assert gate.wait(30)
        with path.open("a") as file:
            file.write(f"{plotted.run} {len(plotted.rounds)}\n")
        return True

    monkeypatch.setattr(plotting, "plot_metrics", drawn)
    monkeypatch.setattr(plotting, "_FIRST_S", 0.0)
    monkeypatch.setattr(plotting, "_SHARE", 0)
    return gate


def test_rounds_are_written_on_while_the_plot_is_drawn_and_the_last_plot_has_all(
    tmp_path: Path, gate: threading.Event
) -> None:
    plot, rounds = Plotting(tmp_path / "metrics.png", print), [RoundResult(1, 1.0, [], 0, 0, {})]
    plot.draw_when_due(Plotted("r", rounds))
    more = Plotted("r", 2 * rounds)  # a round that closes while that is drawn
    plot.draw_when_due(more)
    assert not (tmp_path / "metrics.png").exists(), "nobody waited"
    threading.Timer(0.05, gate.set).start()
    plot.draw(more)
    assert (tmp_path / "metrics.png").read_text() == "r 1\nr 2\n"
