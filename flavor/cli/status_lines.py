"""What `flavor status` says of a run, with and without `--watch`: the same sentences, and the columns of its table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flavor.cli.evaluation_lines import lines_of_evaluations
from flavor.counted import counted
from flavor.durations import shown_duration
from flavor.parts import Parts
from flavor.policy.standing import Standing
from flavor.printable import printable, quoted, shown_name
from flavor.records.counts import POOLED
from flavor.records.reported import Reported
from flavor.records.states import RunState
from flavor.results.best import BestRound, MergedValue
from flavor.sizes import shown_bytes

_ENDED = tuple(state.value for state in RunState if state.ended)
_MOST_METRICS = 4
_LOST = ("failed", "gone", "stopped", "quarantined")
_MOST_LOST = 5

Found = Mapping[str, Any]
"""A run as `flavor.view.described.described` describes it."""


@dataclass(frozen=True)
class Line:
    """A line about a run. Its text may hold what others wrote."""

    text: str
    kind: str = ""
    """What it is about: "head", "absent" (something is missing), "waits", "ended", or ''."""


@dataclass(frozen=True)
class Column:
    """A column of the table of sites. Its cells may hold what others wrote."""

    head: str
    cells: Mapping[str, str]
    """By site."""


def has_ended(found: Found) -> bool:
    """Return whether the run has ended."""
    return found["state"] in _ENDED


def summary_of(found: Found) -> list[Line]:
    """Return the lines above the table of sites; one more where no site has joined."""
    head = "  ".join((found["run"], found["state"], f"round {found['round']} of {found['rounds']}", _clock(found)))
    lines = [Line(head.rstrip(), "head")]
    if found.get("begun_from"):
        lines.append(Line(f"begun from: {found['begun_from']}"))
    # first what is missing: nothing moves without it
    lines += [Line(each, "absent") for each in found["absent"] if each != found["waits_for"]]
    lines += [Line(each["sentence"], "absent") for each in found.get("not_judged") or ()]
    if has_ended(found):
        lines.append(Line(found["reason"], "ended"))
        lines += [Line(each) for each in _to_go_on(found)]
    else:
        kind = "absent" if found["waits_for"] in found["absent"] else "waits"
        lines.append(Line(f"waits: {found['waits_for']}{_lasting(found['waits_s'])}", kind))
        if lost := _lost(found):
            lines.append(Line(f"without: {lost}", "waits"))
    if found["last_round"]:
        lines.append(Line(_last_round(found)))
    lines += [Line(each) for each in lines_of_evaluations(found)]
    if shares := found.get("shares"):
        lines.append(Line(f"shares: {_shared(shares)}"))
    if found["global_model"]:
        lines.append(Line(f"global model: {found['global_model']}"))
    if not found["clients"]:
        lines.append(Line("no site has joined yet"))
    return lines


def _shared(shares: Found) -> str:
    """Say which part of the model the run shares."""
    options = Parts(shares["share"], shares["local"]).options
    if shares["tensors"] is None:
        return f"a part of the model ({options}); round 1 shows how much"
    return f"{counted(shares['tensors'], 'tensor')} of the model, {shown_bytes(shares['bytes'] or 0)} ({options})"


def _to_go_on(found: Found) -> list[str]:
    """Say how to go on with a local run that has failed or was stopped, and where the logs of lost sites are."""
    folder = found.get("folder")
    if not folder or found["state"] not in (RunState.FAILED, RunState.STOPPED):
        return []
    lost = [site for site, client in found["clients"].items() if client["phase"] in ("failed", "gone")]
    logs = [f"log of {site}: {Path(folder) / 'logs' / site}.log" for site in lost[:_MOST_LOST]]
    return [f"go on with it: flavor run --resume {shlex.quote(folder)}", *logs]


def columns_of(found: Found) -> list[Column]:
    """Return the columns of the table of sites: REPORTS and WHY only where they say something of a site."""
    from flavor.view.progress import words_of

    name, ended, clients = found["metric"], has_ended(found), found["clients"]

    def column(head: str, cell: Callable[[Found], str]) -> Column:
        return Column(head, {site: cell(client) for site, client in clients.items()})

    newest = max((client["metrics_round"] for client in clients.values() if name in client["metrics"]), default=0)

    def value(client: Found) -> str:
        number, round_ = client["metrics"].get(name), client["metrics_round"]
        of = f" (round {round_})" if round_ != newest else ""
        return "-" if number is None else f"{number:.4g}{of}"

    def count(client: Found) -> str:
        return "-" if client["samples"] is None else str(client["samples"])

    def uploaded(client: Found) -> str:
        return "-" if client["update_bytes"] is None else shown_bytes(client["update_bytes"])

    columns = [
        Column("SITE", {site: site for site in clients}),
        column("STATE", lambda client: str(client["progress"])),
        column("LAST SEEN", lambda client: "-" if ended else _seen(client, found)),
        column("EXAMPLES", count),
        column("UPLOADED", uploaded),
    ]
    if name and not name.startswith(POOLED):  # which no single site has
        columns.append(column(name.upper() if (shown := shown_name(name)) == name else shown, value))
    further = [
        column("REPORTS", lambda client: words_of(Reported(**said) if (said := client["reported"]) else None)),
        column("WHY", lambda client: _beside(client) if client["phase"] == "done" else _why(client)),
    ]
    return [*columns, *(each for each in further if any(each.cells.values()))]


def _beside(client: Found) -> str:
    """Say what is unusual about a site that goes on: how stale its task is, or what its edge has warned of."""
    return str(client["staleness"] or client["warning"])


def _why(client: Found) -> str:
    """Say why a site is in its state, with what the site shares (`--report-output`)."""
    reason, report = str(client["reason"] or _beside(client)), client["report"]
    if not report:
        return reason
    same, known = "its trainer ", "the trainer "  # the report begins with what the edge has told: not twice
    told = reason.strip('"').removeprefix(same)
    if told and report.startswith(f"{known}{told}"):
        return quoted(f"{same}{report.removeprefix(known)}")
    return f"{reason} ({quoted(report)})"


_MAY_COUNT = (Standing.ACCEPTED, Standing.SUBMITTED, Standing.PENDING)
"""Where sites stand whose updates are accepted, or may still be."""


def _clock(found: Found) -> str:
    """Say how long the round has been open and when it closes, or how long a run took that has ended."""
    if has_ended(found):
        return f"took {shown_duration(found['took_s'])}" if found["took_s"] is not None else ""
    if found["round_state"] == "open":
        needed, total = found["needed"], found["expected"]
        can = sum(client["this_round"] in _MAY_COUNT for client in found["clients"].values())
        if can < needed:  # it does not close with these, and the next line says why
            return f"open for {shown_duration(found['open_s'])}, {found['in']} in"
        few = f", with {needed} at the deadline" if needed < total else ", deadline"
        left = found["deadline_s"]
        if found["closes_early"] and needed < total:
            until = f"deadline in {shown_duration(left)}" if left > 0 else "the deadline has passed"
            first = f"closes with the first {needed} of {total}, {until}"
            return f"open for {shown_duration(found['open_s'])}, {found['in']} in, {first}"
        when = f"{few} in {shown_duration(left)}" if left > 0 else ", the deadline has passed"
        every = "it is" if total == 1 else f"all {total} are"
        return f"open for {shown_duration(found['open_s'])}, {found['in']} in, closes when {every}{when}"
    return ""


def _lasting(seconds: float | None) -> str:
    return "" if seconds is None else f", for {shown_duration(seconds)}"


def _lost(found: Found) -> str:
    """Name the sites that are lost to the run and that what it waits for does not name."""
    named = {word.rstrip(".-") for word in re.split(r"[^\w.-]+", found["waits_for"])}
    every = [site for site, client in found["clients"].items() if client["phase"] in _LOST]
    lost = [f"{site} ({found['clients'][site]['phase']})" for site in every if site not in named]
    if len(every) > _MOST_LOST and len(lost) < len(every):
        return ""  # it names some, and says how many they are
    more = f", and {len(lost) - _MOST_LOST} more" if len(lost) > _MOST_LOST else ""
    return ", ".join(lost[:_MOST_LOST]) + more


def _last_round(found: Found) -> str:
    """List the newest merged metrics, with the best value so far of the first."""
    last = found["last_round"]
    names = list(last["metrics"])
    if found["metric"] in names:
        names.remove(found["metric"])
        names.insert(0, found["metric"])
    few = last.get("sites", {})
    parts = [
        " ".join((shown_name(name), f"{value:.4g}", MergedValue(value, few.get(name, all_), all_).words)).rstrip()
        for name in names[:_MOST_METRICS]
        for value, all_ in [(last["metrics"][name], last["contributors"])]
    ]
    if parts and (best := found["best"]) and best["metric"] == names[0]:
        of = "" if best["rounds"] == last["round"] else f" of the {best['rounds']} rounds that can be read"
        top = BestRound.in_document(best)
        if top.fewer and not top.is_alone:  # this round's value may be the better one, and be of other sites
            of = f" of {counted(top.compared, 'compared round')}"
        number = " ".join((f"{top.value:.4g}", top.of)).rstrip()
        lacks = f"; {top.without}" if top.without else ""
        began = _began(best["round"], found)
        parts[0] += f" (best{of}: {number}, reported in round {best['round']}, {began}{lacks})"
    more = f", and {len(names) - _MOST_METRICS} more" if len(names) > _MOST_METRICS else ""
    left_out, lacks = last.get("left_out", 0), ""
    if left_out:
        lacks = f"; the store alone has {counted(left_out, 'further metric')}, as too many are reported"
    if found["metric"] and found["metric"] not in names:
        why = "of this round, or not kept" if left_out else "of this round"
        lacks += f"; no {printable(found['metric'])!r} is known {why}"
    means = ", weighted means" if found.get("evaluation") and last["contributors"] > 1 else ""
    return f"round {last['round']}{means}: {', '.join(parts) or 'no metrics'}{more}{lacks}"


def _began(round_: int, found: Found) -> str:
    """Say from which model a round began, to which its metrics belong unless a script evaluates its trained model."""
    if round_ == 1:
        return "the first"
    model, keep = round_ - 1, found.get("keep_globals", 0)
    began = f"which began from the model of round {model}"
    selected = (found.get("selected") or {}).get("round")
    if keep and model <= found["last_round"]["round"] - keep and model != selected:
        return f"{began}, which is no longer kept (--keep-globals {keep})"
    return f"{began}: `flavor get {shlex.quote(found.get('folder') or found['run'])} --round {model}`"


def _seen(client: Found, found: Found) -> str:
    if client["seen_s"] is not None:
        return shown_duration(client["seen_s"])
    if client["state"] in ("stopped", "failed", "left"):  # it said goodbye, and the log does not say when
        return "-"
    return f"over {shown_duration(found['heartbeat_timeout_s'])}"
