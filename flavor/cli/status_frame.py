"""What `flavor status --watch` draws: a run, or all runs, as lines that fit a terminal of any size."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from flavor.cli.status_lines import Column, Found, Line, columns_of, has_ended, summary_of
from flavor.durations import shown_duration
from flavor.printable import printable
from flavor.records.states import RunState
from flavor.view.client_snapshot import URGENCY, Phase
from flavor.view.progress import timed
from flavor.view.styles import BAD, COLOUR_OF_EVENT, COLOUR_OF_PHASE, GOOD, NEWS, WAITS

FEWEST_COLUMNS, FEWEST_LINES = 20, 6
_GAP = 2
_MOST_EVENTS, _FEWEST_EVENTS = 20, 3
_FEWEST_ROWS = 4
_COUNTED_PHASES = 5
_LEAST_LEFT_S = 1.0
_WIDE = 20
_WIDEST = {"SITE": 30, "STATE": 64, "RUN": 30, "REPORTS": 48, "METRIC": 30, "WHY": 500}
_GROW_FIRST = ("SITE", "STATE", "RUN")
_NARROWEST = {"SITE": 12, "STATE": 18, "RUN": 12, "REPORTS": 14, "WHY": 24}
_DROPPED_FIRST = ("UPLOADED", "EXAMPLES", "CURVE", "BEGUN", "REPORTS", "SITES", "LAST SEEN")
"""Columns that a narrow terminal does without, the first ones first; the metric goes after them."""
_BARS = "▁▂▃▄▅▆▇█"
_SUMMARY_STYLES = {"head": "bold", "absent": BAD, "waits": WAITS}
_STATE_STYLES = {
    RunState.FINISHED: GOOD,
    RunState.RUNNING: NEWS,
    RunState.WAITING: WAITS,
    RunState.STOPPED: WAITS,
    RunState.FAILED: BAD,
    "damaged": BAD,
    "lost": BAD,
}


@dataclass(frozen=True)
class Screen:
    """The size of the terminal, and the lines that stand beside a run or all runs."""

    width: int
    """Columns of the terminal."""
    height: int
    """Lines of the terminal."""
    now_ms: int
    """The time of the Redis server, or of which everything is while it cannot be read."""
    problem: str = ""
    """Why Redis cannot be read, and since when."""

    def footer(self) -> Text:
        """The last line."""
        at_s = time.time() if self.problem else self.now_ms / 1000  # what stands above it stands still, not the program
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))
        return self.cut(f"{at}, Ctrl-C ends this", "dim")

    def cut(self, line: str, style: str = "") -> Text:
        """Return a line without what does not fit."""
        text = Text(printable(line), style=style, no_wrap=True)
        text.truncate(self.width, overflow="ellipsis")
        return text

    def wrapped(self, line: str, style: str = "") -> list[Text]:
        """Return a sentence on as many lines as it needs, but no more than a quarter of the terminal."""
        rest, lines = printable(line), list[Text]()
        most = max(2, self.height // 4)
        while rest and len(lines) < most - 1 and cell_len(rest) > self.width:
            head = set_cell_size(rest, self.width)
            at = head.rfind(" ")
            head = head if at < self.width // 2 else head[:at]
            head = head.rstrip() or head
            lines.append(Text(head, style=style))
            rest = rest[len(head) :].lstrip()
        return [*lines, self.cut(rest, style)] if rest else lines

    def troubles(self) -> list[Text]:
        """The lines about Redis."""
        if not self.problem:
            return []
        return self.wrapped(f"{self.problem}; what follows is of that time", f"bold {BAD}")


def found_of(document: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Return the document of a board with durations, as `flavor.view.described.described` has them."""

    def since_s(ms: int | None) -> float | None:
        return None if ms is None else max(0.0, (now_ms - ms) / 1000)

    found = dict(document)
    created_ms, ended_ms, deadline_ms = document["created_ms"], document["ended_ms"], document["deadline_ms"]
    found["age_s"] = None if created_ms is None else ((ended_ms or now_ms) - created_ms) / 1000
    until_ms = document.get("closed_ms") or ended_ms or now_ms
    from_ms, found["waits_s"] = document["worked_from_ms"], since_s(document["since_ms"])
    found["open_s"] = None if from_ms is None else max(0.0, (until_ms - from_ms) / 1000)
    found["deadline_s"] = None if deadline_ms is None else (deadline_ms - now_ms) / 1000
    found["clients"] = {}
    for name, client in document["clients"].items():
        doing_s = since_s(client["doing_ms"])
        times = {"seen_s": since_s(client["seen_ms"]), "doing_s": doing_s, "reported_s": since_s(client["reported_ms"])}
        progress = timed(client["progress"], doing_s, times["reported_s"])
        found["clients"][name] = {**client, **times, "progress": progress}
    return found


# -- one run


def run_frame(found: Found, events: Sequence[Mapping[str, Any]], screen: Screen) -> list[Text]:
    """Draw one run: its summary, its sites, and the newest of its events, oldest first."""
    top = _top(found, screen)
    room = max(0, screen.height - len(top) - 1)
    table = list[Text]()
    if found["clients"]:
        few_events = min(len(events), _FEWEST_EVENTS)
        table = _sites(found, screen, max(_FEWEST_ROWS, room - few_events - bool(few_events)))
    left = room - len(table) - 1
    told = [_event(each, screen) for each in events[-min(_MOST_EVENTS, left) :]] if left > 0 else []
    lines = [*top, *table, *([Text(), *told] if told else [])]
    return [*lines[: screen.height - 1], screen.footer()]


def _top(found: Found, screen: Screen) -> list[Text]:
    """Draw the summary; on a small terminal without the lines that matter least."""
    summary = summary_of(found)
    if (left_s := found.get("left_s")) is not None and left_s >= _LEAST_LEFT_S and not has_ended(found):
        summary.append(Line(f"about {shown_duration(left_s)} left, at the pace of the last rounds"))
    while True:
        top = screen.troubles()
        for line in summary:
            top += screen.wrapped(line.text, _summary_style(line, found))
        if len(top) <= screen.height // 2 or summary[-1].kind:
            return top
        summary.pop()


def _summary_style(line: Line, found: Found) -> str:
    if line.kind == "waits" and found["held"]:
        return BAD
    return _STATE_STYLES.get(found["state"], "") if line.kind == "ended" else _SUMMARY_STYLES.get(line.kind, "")


def _event(event: Mapping[str, Any], screen: Screen) -> Text:
    at = time.strftime("%H:%M:%S", time.localtime(event["time_ms"] / 1000))
    line = screen.cut(f"{at}  {event['line']}", COLOUR_OF_EVENT.get(event["event"], ""))
    line.stylize("dim", 0, len(at))
    return line


def _sites(found: Found, screen: Screen, room: int) -> list[Text]:
    """Draw the table of sites on at most `room` lines; where not all fit, first those that need attention."""
    clients = found["clients"]
    names = list(clients)
    lines, drawn = _rows(found, names[:room], screen, room)
    if drawn < len(names):
        names = sorted(names, key=lambda name: _urgency(clients[name]))
        lines, drawn = _rows(found, names[:room], screen, room - 1)
        lines.append(screen.cut(_others([clients[name]["phase"] for name in names[drawn:]]), "dim"))
    return lines


def _rows(found: Found, names: Sequence[str], screen: Screen, room: int) -> tuple[list[Text], int]:
    """Draw the head of the table and as many of these sites as fit; return the lines, and the number of sites."""
    clients = {name: found["clients"][name] for name in names}
    fitting, reasons = _fitting(columns_of({**found, "clients": clients}), names, screen.width)
    lines = [_row([(column.head, "bold") for column, _ in fitting], fitting, screen)]
    for number, (name, client) in enumerate(clients.items()):
        colour = COLOUR_OF_PHASE.get(client["phase"], "")
        cells = [(column.cells[name], colour if column.head in ("STATE", "WHY") else "") for column, _ in fitting]
        row = [_row(cells, fitting, screen)]
        if why := reasons.get(name):
            row.append(screen.cut(f"  {why}", colour))
        if len(lines) + len(row) > room:
            return lines, number
        lines += row
    return lines, len(names)


def _urgency(client: Mapping[str, Any]) -> tuple[int, float]:
    """Sort by what needs attention; of equals, first what has lasted longest."""
    phases = [phase.value for phase in URGENCY]
    phase = client["phase"]
    return phases.index(phase) if phase in phases else len(phases), -(client["doing_s"] or 0.0)


def _others(phases: Sequence[str]) -> str:
    """Count sites that are not shown: 'and 1,960 more: 1,900 done, 60 training'."""
    counts = Counter(phases).most_common()
    told = ", ".join(f"{number:,} {phase}" for phase, number in counts[:_COUNTED_PHASES] if phase != Phase.OVER)
    return f"and {len(phases):,} more{f': {told}' if told else ''}"


# -- all runs


def runs_frame(rows: Sequence[Mapping[str, Any]], where: str, screen: Screen) -> list[Text]:
    """Draw all runs, the newest first; where not all fit, first those that cannot go on by themselves."""
    top = screen.troubles()
    if not rows:
        return [*top, *screen.wrapped(f"There are no runs on {where}."), screen.footer()]
    room = max(2, screen.height - len(top) - 1)
    everyone = len(rows)
    if everyone >= room:
        rows = sorted(rows, key=_urgency_of_run)[:room]
    named = {row["run"]: row for row in rows}
    columns = [
        Column("RUN", {run: run for run in named}),
        Column("STATE", {run: row["state"] for run, row in named.items()}),
        Column("ROUND", {run: _round(row) for run, row in named.items()}),
        Column("BEGUN", {run: _begun(row, screen.now_ms) for run, row in named.items()}),
        Column("SITES", {run: _alive(row) for run, row in named.items()}),
        Column("METRIC", {run: _metric(row) for run, row in named.items()}),
        Column("CURVE", {run: spark_line(row["spark"], 12) for run, row in named.items()}),
        Column("WHY", {run: _sentence(row) for run, row in named.items()}),
    ]
    columns = [column for column in columns if any(cell not in ("", "-") for cell in column.cells.values())]
    fitting, sentences = _fitting(columns, list(named), screen.width)
    lines = [_row([(column.head, "bold") for column, _ in fitting], fitting, screen)]
    for number, (run, row) in enumerate(named.items()):
        colour = BAD if row["held"] or row["absent"] else _STATE_STYLES.get(row["state"], "")
        cells = [(column.cells[run], colour if column.head in ("STATE", "WHY") else "") for column, _ in fitting]
        drawn = [_row(cells, fitting, screen)]
        if sentences and (row["held"] or row["absent"]):
            drawn.append(screen.cut(f"  {sentences[run]}", colour))
        if len(lines) + len(drawn) + (number < everyone - 1) > room:
            lines.append(screen.cut(f"and {everyone - number:,} more", "dim"))
            break
        lines += drawn
    return [*[*top, *lines][: screen.height - 1], screen.footer()]


def _urgency_of_run(row: Mapping[str, Any]) -> tuple[bool, bool, int]:
    goes_on = row["ended_ms"] is None
    return not (goes_on and (row["held"] or row["absent"])), not goes_on, -(row["created_ms"] or 0)


def _round(row: Mapping[str, Any]) -> str:
    return "-" if row["round"] is None else f"{row['round']} of {row['rounds']}"


def _alive(row: Mapping[str, Any]) -> str:
    return f"{'?' if row['alive'] is None else row['alive']} of {row['clients']}"


def _begun(row: Mapping[str, Any], now_ms: int) -> str:
    return f"{shown_duration((now_ms - row['created_ms']) / 1000)} ago" if row["created_ms"] else "-"


def _metric(row: Mapping[str, Any]) -> str:
    return "" if row["value"] is None else f"{row['metric']} {row['value']:.4g}"


def _sentence(row: Mapping[str, Any]) -> str:
    waits_s = row["waits_s"]
    lasts = f", for {shown_duration(waits_s)}" if waits_s is not None else ""
    return "; ".join([*row["absent"], f"{row['sentence']}{lasts}"])


def spark_line(values: Sequence[float], width: int) -> str:
    """Draw the newest values as small bars between the lowest and the highest of them."""
    values = values[-width:]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in values)


# -- tables


_Fitting = list[tuple[Column, int]]


def _fitting(columns: Sequence[Column], names: Sequence[str], width: int) -> tuple[_Fitting, dict[str, str]]:
    """Choose the columns that fit, with their widths; and the reasons that need a line of their own, by row."""
    natural = {
        column.head: max(cell_len(printable(text)) for text in (column.head, *(column.cells[n] for n in names)))
        for column in columns
    }
    wanted = {head: min(size, _WIDEST.get(head, _WIDE)) for head, size in natural.items()}
    least = {head: min(size, _NARROWEST.get(head, size)) for head, size in wanted.items()}
    kept = list(columns)
    metrics = [column.head for column in columns if column.head not in (*_DROPPED_FIRST, *_WIDEST, "WHY", "ROUND")]
    reasons: dict[str, str] = {}
    for head in (*_DROPPED_FIRST, "WHY", *metrics, "ROUND"):
        if _total(least, kept) <= width:
            break
        if (dropped := next((column for column in kept if column.head == head), None)) is not None:
            kept.remove(dropped)
            if head == "WHY":
                reasons = dict(dropped.cells)
    sizes = {column.head: least[column.head] for column in kept}
    spare = width - _total(sizes, kept)
    for _ in range(max(0, spare)):
        growing = [column.head for column in kept if sizes[column.head] < wanted[column.head]]
        first = [head for head in growing if head in _GROW_FIRST] or growing
        if not first:
            break
        sizes[min(first, key=lambda head: sizes[head] / wanted[head])] += 1
    return [(column, sizes[column.head]) for column in kept], reasons


def _total(sizes: Mapping[str, int], columns: Sequence[Column]) -> int:
    return sum(sizes[column.head] for column in columns) + _GAP * (len(columns) - 1)


def _row(cells: Sequence[tuple[str, str]], fitting: _Fitting, screen: Screen) -> Text:
    row = Text(no_wrap=True)
    for number, ((text, style), (_, size)) in enumerate(zip(cells, fitting, strict=True)):
        cell = Text(printable(text), style=style)
        cell.truncate(size, overflow="ellipsis", pad=number < len(fitting) - 1)
        row.append_text(cell)
        if number < len(fitting) - 1:
            row.append(" " * _GAP)
    row.truncate(screen.width, overflow="ellipsis")
    row.rstrip()
    return row
