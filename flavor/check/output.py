"""The output of a check for people: the script's lines, what is waited for, and the results."""

from __future__ import annotations

import io
import threading
from types import TracebackType

from rich.console import Console
from rich.status import Status as Spinner
from rich.text import Text

from flavor.check.report import Report, Status

_SILENT_S = 2.0
_REPEAT_S = 30.0
_WIDTH_WITHOUT_TERMINAL = 160
_LOOK = {
    Status.PASSED: ("passed", "green"),
    Status.FAILED: ("FAILED", "bold red"),
    Status.WARNED: ("warning", "bold yellow"),
    Status.UNCLEAR: ("unclear", "bold yellow"),
    Status.SKIPPED: ("skipped", "dim"),
}
_COUNTED = {
    Status.FAILED: "failed",
    Status.PASSED: "passed",
    Status.WARNED: "with a warning",
    Status.UNCLEAR: "unclear",
    Status.SKIPPED: "skipped",
}
_WORD, _DETAIL = 9, 39
"""Columns at which a check's name and its detail begin."""


class Screen:
    """Progress on stderr; nothing when `quiet`."""

    def __init__(self, *, quiet: bool = False, name: str = "check-fl") -> None:
        self._name = name
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._spinner: Spinner | None = None
        self._told_s = 0.0
        self.echo = None if quiet else _Echo(self._console)

    def tell(self, line: str) -> None:
        """Print a line."""
        self._console.print(Text(f"{self._name}: {line}"))

    def waiting(self, what: str, waited_s: float, limit_s: float) -> None:
        """Show that `what` is waited for, once the wait has taken more than two seconds."""
        if waited_s < _SILENT_S:
            return
        line = f"waiting for {what} ({waited_s:.0f} s, at most {limit_s:g} s)"
        if not self._console.is_terminal:
            if not self._told_s or waited_s - self._told_s >= _REPEAT_S:
                self.tell(line)
                self._told_s = waited_s
        elif self._spinner is None:
            self._spinner = self._console.status(Text(line))
            self._spinner.start()
        else:
            self._spinner.update(Text(line))

    def waited(self) -> None:
        """End the display of a wait."""
        self._told_s = 0.0
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.waited()


class _Echo(io.TextIOBase):
    """A text stream whose lines appear above the spinner."""

    def __init__(self, console: Console) -> None:
        self._console, self._lock = console, threading.Lock()

    def write(self, text: str, /) -> int:
        with self._lock:
            self._console.print(Text.from_ansi(text.rstrip("\n")))
        return len(text)


def show(
    report: Report,
    console: Console | None = None,
    *,
    title: str = "",
    ready: str = "the script is ready for flavor-fl",
    wrong: str = "the script is not ready",
) -> None:
    """Print the results on stdout: a line for each check, below it the rest of a long detail, and a hint."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    console.print()
    if title:
        console.print(Text(title, "bold"))
    for result in report.results:
        word, style = _LOOK[result.status]
        line = Text.assemble((f"{word:<{_WORD}}", style), (result.check.name, "" if word == "passed" else style))
        detail = Text(result.detail)
        at = max(_DETAIL, line.cell_len + 2)
        if detail and "\n" not in result.detail and at + detail.cell_len <= console.width:
            line.pad_right(at - line.cell_len)
            line.append_text(detail)
            detail = Text()
        console.print(line)
        for below in (detail, Text(f"-> {result.hint}" if result.hint else "", "yellow")):
            for row in below.wrap(console, max(_WORD, console.width - _WORD)) if below else ():
                row.rstrip()
                console.print(Text.assemble(" " * _WORD, row))
    console.print()
    verdict = report.undecided or (ready if report.ok else wrong)
    style = "yellow" if report.undecided else "green" if report.ok else "red"
    console.print(Text(summary(report, verdict), f"bold {style}"))


def summary(report: Report, verdict: str) -> str:
    """Return how many checks had which result, what follows from it, and what to look at in any case."""
    counts = [f"{len(names)} {word}" for status, word in _COUNTED.items() if (names := report.named(status))]
    line = f"{', '.join(counts)}: {verdict}"
    if warned := report.named(Status.WARNED):
        line += f"\nlook at the warning: {', '.join(warned)}"
    if unclear := report.named(Status.UNCLEAR):
        line += f"\nthis check could not tell: {', '.join(unclear)}"
    return line
