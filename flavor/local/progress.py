"""The live view of a local run: rounds, sites, metrics and transfers. Prints plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import errno
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flavor.counted import counted
from flavor.local.judging import JudgedModel, named_log
from flavor.local.mending import without_advice
from flavor.local.record import recorded_url
from flavor.policy.advice import listed
from flavor.printable import printable, shown_name
from flavor.records.states import RoundState, RunState
from flavor.results.best import MergedValue
from flavor.results.evaluated import OWN_DATA, mean_of
from flavor.results.evaluated_table import diverged_words, judged_words
from flavor.results.folder import Results
from flavor.results.goal import Goal
from flavor.results.rounds import RoundResult, best_round, for_people
from flavor.results.selected import Selected
from flavor.sizes import shown_bytes
from flavor.view.progress import words_of
from flavor.view.snapshot import Phase, Snapshot

_MOST_METRICS = 6
_MOST_CLIENTS = 24
_MOST_REPORTS = 8
_LONG_S = 5.0
"""Judging for less time is not worth a word."""
_STYLES = {
    Phase.DONE: "green",
    Phase.UPLOADED: "cyan",
    Phase.LEFT: "dim",
    **dict.fromkeys((Phase.REFUSED, Phase.QUARANTINED, Phase.REVOKED, Phase.FAILED, Phase.GONE), "red"),
}


def shown_metrics(result: RoundResult) -> str:
    """The weighted means of a round's metrics in one line, and of how many sites those are that some do not report."""
    shown = list(for_people(result.metrics).items())
    more = f"  and {len(shown) - _MOST_METRICS} more" if len(shown) > _MOST_METRICS else ""
    parts = [(shown_name(name), f"{value:.4g}", result.of_sites(name, value).words) for name, value in shown]
    return "  ".join(" ".join(part).rstrip() for part in parts[:_MOST_METRICS]) + more


@contextlib.contextmanager
def _terminal_may_be_gone() -> Iterator[None]:
    """Print without an error where the terminal was closed: the run ends by its SIGHUP, and not by what it prints."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class Progress:
    """Shows a run on stderr while it goes on."""

    def __init__(self, run: str, rounds: int, *, quiet: bool = False, redis_url: str | None = None) -> None:
        """Show this run, which is on a Redis of the user's at `redis_url`, or on one of its own."""
        self.console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
        self._run, self.rounds = run, rounds
        self._option = " --redis-url URL" if redis_url and not recorded_url(redis_url) else ""
        self.other_way = ""
        """How a failed run goes on without the sites that failed; '' where that is not possible."""
        self.what_helps = ""
        """What helps a failed run that cannot go on as it is; '' where it may."""
        self.warnings: list[str] = []
        self.lacks_plot = ""
        """Why the results have no plot; '' where they have one."""
        self._newest: RoundResult | None = None
        self._judged_by: dict[bool, JudgedModel] = {}  # the newest, on the operator's own data or by the sites
        self._unshown: list[JudgedModel] = []  # their rounds are not shown
        self._is_told = False  # that judging takes long
        self._uploaded = self._downloaded = 0
        self._live: Live | None = None
        if self.console.is_terminal and not quiet:
            self._live = Live(console=self.console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            with _terminal_may_be_gone():
                self._live.stop()

    @property
    def is_live(self) -> bool:
        """Whether there is a live view, to be drawn between rounds as well."""
        return self._live is not None

    def tell(self, line: str) -> None:
        """Print a line above the view, without breaking it, so that a path in it can be copied."""
        self._print(printable(line))

    def _row(self, head: str, what: str) -> None:
        self._print(f"{head:<14} {printable(what)}")

    def _print(self, line: str) -> None:
        with _terminal_may_be_gone():
            self.console.print(Text(line), soft_wrap=True)

    def begin(self, inputs: Sequence[Path]) -> None:
        """Say what begins; `inputs` has the input folder of each site."""
        self.tell(f"run {self._run}: {counted(len(inputs), 'site')}, {counted(self.rounds, 'round')}")
        if len(inputs) > 1 and len(set(inputs)) == 1:
            self.tell(
                f"all {len(inputs)} sites read the same folder ($INPUT_PATH): {inputs[0]}; "
                "for a folder for each site: --input-glob 'data/site*/'"
            )

    def closed(self, result: RoundResult, downloaded: int) -> None:
        """Show a round that has closed."""
        self._newest = result
        self._uploaded += result.bytes
        self._downloaded += downloaded
        if self._live is None:
            self.tell(
                f"round {result.round}/{self.rounds}  {result.seconds:.2f} s  "
                f"{counted(len(result.clients), 'site')}  "
                f"{shown_metrics(result)}"
            )
        unshown, self._unshown = self._unshown, []
        for model in unshown:
            self.judged(model)

    def judged(self, model: JudgedModel) -> None:
        """Show a model that was judged, below its round, and say once where the rounds wait for that for long."""
        if self._newest is None or self._newest.round < model.round:
            self._unshown.append(model)  # until its round is shown
            return
        self._judged_by[model.by == OWN_DATA] = model
        if self._live is None:
            self.tell(f"model of round {model.round}  judged in {model.seconds:.2f} s: {model.words}")
        training_s = self._newest.seconds
        if model.holds_up and not self._is_told and model.seconds > max(_LONG_S, training_s):
            self._is_told = True
            self.tell(
                f"judging a model took {model.seconds:.2f} s, and the round {training_s:.2f} s: "
                "--evaluate 5 judges one model in five rounds"
            )

    def look(self, snapshot: Snapshot, waits: Sequence[str] = ()) -> None:
        """Draw the run as it is now, and what it waits for."""
        if self._live is not None:
            with _terminal_may_be_gone():
                self._live.update(self._drawn(snapshot, waits))

    def _drawn(self, snapshot: Snapshot, waits: Sequence[str]) -> RenderableType:
        closed = self._newest.round if self._newest else _closed(snapshot)  # of a run that goes on, some are
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self._run, style="bold"),
            ProgressBar(total=self.rounds, completed=closed, width=30),
            f"{closed}/{counted(self.rounds, 'round')}",
            f"{self._newest.seconds:.2f} s/round" if self._newest else Text(printable(snapshot.run.reason)),
        )
        marks = Text("sites     ")
        for name, client in list(snapshot.clients.items())[:_MOST_CLIENTS]:
            word = client.phase.value
            if (share := client.progress.share) is not None:
                word = f"{word} {math.floor(100 * share)} %"
            marks.append(f"{printable(name)} {word}  ", style=_STYLES.get(client.phase, "yellow"))
        if len(snapshot.clients) > _MOST_CLIENTS:
            marks.append(f"and {len(snapshot.clients) - _MOST_CLIENTS} more")
        lines: list[RenderableType] = [head, marks, *_reports(snapshot)]
        if self._newest:
            lines.append(Text(f"metrics   {shown_metrics(self._newest)}"))
            lines += [
                Text(f"judged    {each.words}, the model of round {each.round}, in {each.seconds:.2f} s")
                for _, each in sorted(self._judged_by.items())
            ]
            lines.append(Text(f"transfer  {shown_bytes(self._uploaded)} up, {shown_bytes(self._downloaded)} down"))
        is_held = bool(snapshot.refusal) or (snapshot.waits_for is not None and snapshot.waits_for.is_held)
        lines += [Text(f"now       {printable(line)}", style="red" if is_held else "") for line in waits]
        return Group(*lines)

    def summary(self, results: Results) -> None:
        """Show how the run ended, where everything lies, and, after a live view, a table of the rounds."""
        if results.rounds and self._live is not None:
            self.console.print(rounds_table(results))
        self.tell(f"{results.state}: {without_advice(results.reason, self.what_helps, self._run, results.out)}")
        self._where(results)

    def left(self, results: Results, waits: Sequence[str] = ()) -> None:
        """Show the results of a run that was interrupted, and what it waited for."""
        self.tell(f"interrupted after round {len(results.rounds)} of {self.rounds}")
        for line in waits:
            self.tell(f"at that time:  {line}")
        self._where(results)

    @contextlib.contextmanager
    def saying_how_to_go_on(self, out: Path) -> Iterator[None]:
        """Say how to go on with a run whose end is interrupted before all its results are written."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal
                self.tell(f"go on with it: flavor run --resume {shlex.quote(str(out))}{self._option}")
            raise

    def _where(self, results: Results) -> None:
        out = shlex.quote(results.out) + self._option
        if results.global_model:
            self._row("global model:", results.global_model)
            if results.shares:
                of_sites = f"the sites that have one: {results.out}/clients/SITE/global"
                self._row("", f"its shared tensors ({results.shares}); whole models are at {of_sites}")
            self._judged(results, out)
            self._row("other rounds:", f"flavor get {out} --round NUMBER")
            if any(for_people(result.metrics) for result in results.rounds):
                of = "of the model of round N-1, unless sites evaluate what they have trained"
                reported = f"what scripts report in round N is {of}; it is a weighted mean"
                self._row("metrics:", f"those of round N are {of}" if results.evaluation is None else reported)
            if len(results.rounds) > 1 and (best := best_round(results.rounds)) is not None:
                name, found = best
                mean = "" if results.evaluation is None else mean_of(name, found.sites, "weighted")
                value = " ".join((f"{found.value:.4g}{mean}", found.of)).rstrip()
                head = "best round:" if results.evaluation is None else "best reported:"
                self._row(head, f"{name} {value} in round {found.round}, {_began(found.round, out)}")
                if found.without:
                    self._row("", found.without)
        if self.lacks_plot:
            self._row("", self.lacks_plot)
        for line in self.warnings:
            self._row("warning:", line)
        self._row("everything:", results.out)
        if results.state == RunState.FAILED:
            if self.what_helps:
                self._row("what helps:", self.what_helps)
            self._row("go on with it:", f"flavor run --resume {out}")
            another = "" if results.rounds else '; -m "COMMAND" names another script'
            script = "the script, if it is at fault, is mended"
            self._row("", f"once {script if self.what_helps else 'the cause is mended'}{another}")
            if self.other_way:
                self._row("", self.other_way)
        elif results.state != RunState.FINISHED:
            self._row("go on with it:", f"flavor run --resume {out}")
        elif (len(results.rounds) < self.rounds and not results.is_met) or not results.rounds:
            self._row("go on with it:", f"flavor run --resume {out} --rounds NUMBER")

    def _judged(self, results: Results, out: str) -> None:
        """Say what the newest model and the best one are worth, and why that is not known."""
        head, logs = "judged:", Path(results.out) / "logs"
        if (judged := results.evaluation) is not None:
            self._row(head, f"{judged_words(judged)}: flavor results {out}")
            head = ""
            if diverged := diverged_words(judged):
                self._row(head, diverged)
            if missing := judged["missing"]:
                self._row(head, f"without {listed(missing)}{named_log(logs, missing)}")
        for each in results.not_judged:
            nothing = "nothing: " if head else ""
            self._row(head, f"{nothing}{each['reason']}{named_log(logs, each['sites'])}")
            head = ""
        if results.best is not None:
            selected = Selected(**results.best)
            where = f"flavor get {out} --round best"
            self._row("best judged:", f"the model of round {selected.round}, {selected.words}, by --select: {where}")
            if results.shares:
                self._row("", "its shared tensors: the sites keep their own ones of the last round alone")
        if results.goal is not None and results.goal["round"] != results.best_round:
            goal = Goal(**results.goal)
            where = goal.lost or f"flavor get {out} --round {goal.round}"
            self._row("goal met by:", f"the model of round {goal.round}, {goal.words}: {where}")
        for note in results.without_value:
            is_best = note.startswith("--select") and results.best is None
            self._row("best judged:" if is_best else "no value:", f"none: {note}" if is_best else note)


def _began(round_: int, out: str) -> str:
    """Say from which model a round began, to which its metrics belong unless sites evaluate what they have trained."""
    if round_ == 1:
        return "the first"
    return f"which began from the model of round {round_ - 1}: flavor get {out} --round {round_ - 1}"


def _reports(snapshot: Snapshot) -> list[RenderableType]:
    """A line for each of the first sites whose script reports something."""
    reporting = [(name, client) for name, client in snapshot.clients.items() if client.progress.reported is not None]
    return [
        Text(
            ", ".join(
                part
                for part in (
                    f"          {printable(name)}: {client.progress.described(client.phase.value, snapshot.now_ms)}",
                    words_of(client.progress.reported),
                )
                if part
            ),
            style="dim",
            no_wrap=True,
            overflow="ellipsis",
        )
        for name, client in reporting[:_MOST_REPORTS]
    ]


def rounds_table(results: Results) -> Table:
    """The closed rounds, about 20 of them where there are more."""
    table = Table(box=None, header_style="bold", title=f"run {results.run}: {results.state}", title_justify="left")
    rounds = _thinned(results.rounds)
    names = list(dict.fromkeys(name for each in results.rounds for name in for_people(each.metrics)))[:_MOST_METRICS]
    for column in ("round", "seconds", "sites", "examples", "up"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in names:
        table.add_column(shown_name(name), justify="right", no_wrap=True)
    for result in rounds:
        shown = for_people(result.metrics)
        table.add_row(
            f"{result.round}",
            f"{result.seconds:.2f}",
            f"{len(result.clients)}",
            f"{result.examples}",
            shown_bytes(result.bytes),
            *(_cell(result.of_sites(name, shown[name])) if name in shown else "-" for name in names),
        )
    if len(rounds) < len(results.rounds):
        table.caption = f"{len(rounds)} of {counted(len(results.rounds), 'round')}; metrics.csv has all of them"
        table.caption_justify = "left"
    return table


def _cell(value: MergedValue) -> str:
    return f"{value.value:.4g}" if value.sites >= value.contributors else f"{value.value:.4g} ({value.sites} sites)"


def _thinned(rounds: list[RoundResult], most: int = 20) -> list[RoundResult]:
    """About `most` rounds at most, evenly spaced, with the last one."""
    step = -(-len(rounds) // most)
    kept = rounds[::step]
    return kept if kept[-1] is rounds[-1] else [*kept, rounds[-1]]


def _closed(snapshot: Snapshot) -> int:
    """Return the number of closed rounds."""
    round_ = snapshot.round
    return 0 if round_ is None else round_.round if round_.state is RoundState.CLOSED else round_.round - 1
