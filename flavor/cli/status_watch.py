"""`flavor status --watch`: show all runs, or one run, again whenever something changes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from flavor.cli.program import raise_on_sigterm
from flavor.cli.status_frame import FEWEST_COLUMNS, FEWEST_LINES, Screen, found_of, run_frame, runs_frame
from flavor.cli.status_lines import Found, has_ended
from flavor.errors import FlavorError, MisuseError
from flavor.local.record import is_served
from flavor.local.waits import Waits
from flavor.policy.standing import Standing
from flavor.records.states import RoundState
from flavor.view.board import Board
from flavor.view.newest import best_in
from flavor.view.strip import Source

if TYPE_CHECKING:
    from flavor.cli.opened_run import OpenedRun

_LEAST_S = 0.25
"""Least time between two drawings."""
_TICK_S = 1.0
"""How long a drawing stands at most: the durations on it go on."""
_MOST_EVENTS = 50
_LAST_S = 5.0
"""How long the last drawing waits for the metrics of the last round: a store may be slow, or away."""

_Frame = Callable[[Screen], tuple[list[Text], bool]]
"""Draws runs; the second value says that nothing comes after this drawing."""


def terminal() -> Console:
    """Return the terminal on stdout. Raises `MisuseError` where stdout is none."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        raise MisuseError(
            "--watch draws on a terminal, and the output is none: `flavor log RUN --follow` writes each event into a "
            "file or a pipe, and `flavor status --json` the present state"
        )
    return console


def watch_runs(url: str, where: str, console: Console) -> None:
    """Show all runs until Ctrl-C."""
    with Board(url) as board:
        _follow(board, console, lambda screen: (runs_frame(board.runs(), where, screen), False))


class _ServerEnded(Exception):
    """The own server of a local run has ended with its `flavor run`."""


def watch_run(found: OpenedRun, console: Console, *, metric: str | None, model_folder: str, logs: Path | None) -> bool:
    """Show one run until it has ended, or until Ctrl-C. `logs` is the folder of a local run's logs.

    Returns False where the run's own server has ended, so that its last state is still to be shown.
    """
    own = logs.parent if logs is not None and (logs.parent / "redis").is_dir() else None
    waits = Waits({note.stem: note for note in sorted(logs.glob("*.blocked"))}) if logs is not None else None
    with Board(found.url, store=found.store, runs=[found.run]) as board:
        chosen = _ChosenMetric(board, found.run, metric)
        ended_at: float | None = None

        def frame(screen: Screen) -> tuple[list[Text], bool]:
            nonlocal ended_at
            if screen.problem and own is not None and not is_served(own):
                raise _ServerEnded
            now = found_of(chosen.of(board.document(found.run)), screen.now_ms)
            ended = has_ended(now)
            if not ended:
                ended_at = None  # perhaps again: it was resumed
            elif ended_at is None:
                ended_at = time.monotonic()
            is_over = ended_at is not None and (_tells_last_round(now) or time.monotonic() - ended_at > _LAST_S)
            if waits is not None and not ended:
                now["absent"] = [*now["absent"], *waits.blocked()]
            if logs is not None:
                now["folder"] = str(logs.parent)
            if now["global_model"] and model_folder:
                now["global_model"] = str(Path(model_folder) / now["global_model"])
            return run_frame(now, board.events(found.run, most=_MOST_EVENTS), screen), is_over

        try:
            _follow(board, console, frame)
        except _ServerEnded:
            return False
    return True


def _tells_last_round(now: Found) -> bool:
    """Whether the metrics are those of the last rounds: a board reads them a moment after the run's state.

    They are the merged ones of the last closed round, and those of each site whose update was accepted after it.
    """
    closed = now["round"] if now["round_state"] == RoundState.CLOSED else now["round"] - 1
    if closed >= 1 and (now["last_round"] is None or now["last_round"]["round"] < closed):
        return False
    accepted = [client for client in now["clients"].values() if client["this_round"] == Standing.ACCEPTED]
    return all(client["metrics_round"] == now["round"] for client in accepted)


def _follow(board: Board, console: Console, frame: _Frame) -> None:
    """Draw on a screen of its own, and leave the last drawing on the terminal."""
    raise_on_sigterm()
    lines: list[Text] = []
    try:
        with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as on:
            version, is_over = board.version(), False
            while not is_over:
                width, height = max(FEWEST_COLUMNS, console.width), max(FEWEST_LINES, console.height)
                lines, is_over = frame(Screen(width, height, board.now_ms(), board.problem()))
                on.update(Group(*lines), refresh=True)
                time.sleep(_LEAST_S)
                version = board.wait(version, _TICK_S - _LEAST_S)
    except KeyboardInterrupt:
        pass
    if lines:
        console.print(*lines[:-1], sep="\n")  # without the line that says how to end this


class _ChosenMetric:
    """Shows the metric that the user has named in place of the run's first one."""

    def __init__(self, board: Board, run: str, metric: str | None) -> None:
        self._board, self._run, self._metric = board, run, metric
        self._best: dict[str, Any] | None = None
        self._best_of: object = None

    def of(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document with this metric, and its best round."""
        metric = self._metric
        if metric is None or metric == document["metric"]:
            return document
        last = document["last_round"]
        of = document["run_id"], last and last["round"]
        if last is not None and self._best_of != of:
            with contextlib.suppress(FlavorError):  # Redis is away: the best round so far stays
                rows = [row for row in self._board.history(self._run).strip() if row.round <= last["round"]]
                values = {row.round: value for row in rows if (value := row.merged(metric)) is not None}
                self._best = best_in(rows, metric, values)
                is_whole = all(row.source is not Source.NONE for row in rows)
                self._best_of = of if is_whole else None  # a later look may know more
        return {**document, "metric": metric, "best": self._best if last is not None else None}
