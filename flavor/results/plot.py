"""`metrics.png`: a panel for each metric, with a line for each site, those of their means, and the best round.

Each mean has one colour and one stroke, which are those of the page: the mean weighted by examples is blue, and the
plain mean brown and dashed. The thick line is the one by which the best round is known: the weighted mean of what
training scripts report, and the plain mean of evaluations. The star of the metric of `--select` is at the best model by
that rule, which may go by another number than the thick line.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flavor.atomic import write_whole
from flavor.counted import counted
from flavor.policy.selection import Select
from flavor.printable import printable, shown_name
from flavor.records.counts import CENTRAL_PREFIX, POOLED, beside_last
from flavor.records.counts import PREFIX as COUNT
from flavor.records.info import CONFUSION
from flavor.records.merging import WEIGHTED
from flavor.results.best import MergedValue, best_of
from flavor.results.direction import direction_of
from flavor.results.metric_of_sites import better_of
from flavor.results.rounds import RoundResult
from flavor.results.selected import Selected

_MOST_PANELS = 24
_MOST_MARKED = 40
"""Maximum number of rounds of which each is marked on the lines."""
_MOST_TITLE, _MOST_TITLE_BESIDE = 40, 26
"""Maximum number of characters of a line of a panel's title, alone and beside the best value."""
_LONGEST_TITLE = 110
"""Of a longer title the middle is left out: names of a run mostly differ at their ends."""
_MOST_LABELS = 10
"""Maximum number of sites that the legend names."""
_COLOURS = (
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#7F7F7F",
    "#332288",
    "#882255",
    "#999933",
    "#44AA99",
)
"""Of sites. Told apart by colour-blind people: Okabe and Ito's palette and Tol's, without the colours of means."""
_WEIGHTED_MEAN = "mean, weighted by examples", {"color": "#1761C0", "linestyle": "-"}
_PLAIN_MEAN = "plain mean", {"color": "#9A5B00", "linestyle": "--"}
_NO_MEAN = {
    POOLED: ("of the examples of all sites", {"color": "0.1", "linestyle": "-"}),
    COUNT: ("sum", {"color": "0.1", "linestyle": ":"}),
    CENTRAL_PREFIX: ("on the operator's own data", {"color": "0.1", "linestyle": "-."}),
}
"""What a metric is that is no mean of the sites' values, by the beginning of its name."""
_BEST = "#F0E442"
_Line = tuple[str, dict[str, str], list[float]]
"""A line of a merged metric: its label, its look and its values, by round."""
_JUDGED = " (judged)"
"""The end of the title of a metric of evaluations."""


@dataclass(frozen=True)
class Plotted:
    """What a plot shows of a run."""

    run: str
    rounds: Sequence[RoundResult]
    judged: Sequence[RoundResult] = ()
    """The evaluations of global models, in the form of rounds."""
    select: Select | None = None
    """The rule of the run, which says which values of its metric are better."""
    selected: Selected | None = None
    """The best model by that rule."""
    headline: str | None = None
    """The metric by which the newest evaluation is shown."""

    @property
    def first_judged(self) -> list[str]:
        """The metrics of evaluations that have the first panels: that of the rule, and each kind of the headline."""
        chosen = [self.select.base.removesuffix(WEIGHTED)] if self.select is not None else []
        kinds = ("", POOLED, CENTRAL_PREFIX, f"{CENTRAL_PREFIX}{POOLED}")
        return chosen + [f"{kind}{self.headline}" for kind in kinds if self.headline is not None]

    def is_selected_by(self, panel: str) -> bool:
        """Whether the rule goes by a line of this panel of evaluations, or by its lowest or highest values."""
        return self.select is not None and self.select.base.removesuffix(WEIGHTED) == panel


def plot_metrics(plotted: Plotted, path: Path) -> bool:
    """Draw the metrics over the rounds; return False when matplotlib is not installed.

    A letter that the font lacks is drawn as a box, without matplotlib's warning.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        return False
    figure = draw(plotted)
    warnings.filterwarnings("ignore", message="Glyph .* missing from")  # for good: a thread may not take it back
    FigureCanvasAgg(figure).print_png(content := io.BytesIO())  # type: ignore[no-untyped-call]
    write_whole(path, content.getvalue())
    return True


def draw(plotted: Plotted) -> Any:
    """Return matplotlib's figure of the metrics over the rounds.

    Metrics of evaluations have panels of their own, whose titles say so: they are of the global models of the rounds,
    and what training scripts report is not. In the panel of the metric of `--select` the star is at the best model.
    """
    from matplotlib.figure import Figure

    rounds, judged = plotted.rounds, plotted.judged
    trained = [(name, rounds) for name in panels(rounds)]
    of_models = [(name, judged) for name in panels(judged, plotted.first_judged)]
    room = max(_MOST_PANELS - len(trained), min(len(of_models), _MOST_PANELS // 2))
    of_models = of_models[:room]
    shown = [*of_models, *trained[: _MOST_PANELS - len(of_models)]] or [("seconds", rounds)]
    wide = min(3, len(shown))
    high = -(-len(shown) // wide)
    figure = Figure(figsize=(max(6.4, 4.2 * wide), 3.0 * high + 1.0), dpi=120, layout="constrained")
    figure.suptitle(printable(f"{plotted.run}: {counted(len(rounds), 'round')}"), parse_math=False)
    drawn: dict[str, Any] = {}
    for index, (name, of) in enumerate(shown):
        axes = figure.add_subplot(high, wide, index + 1)
        is_judged = index < len(of_models)
        lines = _panel(axes, name, of, drawn, of_metrics=bool(of_models or trained), is_judged=is_judged)
        if is_judged and plotted.is_selected_by(name):
            best = _mark_selected(axes, plotted.selected, drawn)
        else:
            better = better_of(name, plotted.select) if is_judged else direction_of(name)
            best = _mark_best(axes, _thick(name, of, lines), better, drawn)
        axes.set_title(best, loc="right", fontsize=8, color="0.3")
        title = _title(shown_name(name) + (_JUDGED if is_judged else ""), is_beside=bool(best))
        axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    if drawn:
        figure.legend(
            drawn.values(),
            drawn.keys(),
            loc="outside lower center",
            ncols=min(4, len(drawn)),
            fontsize=8,
            handlelength=4,
        )
    return figure


def panels(rounds: Sequence[RoundResult], first: Sequence[str] = ()) -> list[str]:
    """Return the metrics that get a panel: those that most sites report most often, and the pooled ones by their sites.

    The `first` ones that are there come first. Counts and bounds of errors come last.
    """
    names = Counter(dict.fromkeys((name.removesuffix(WEIGHTED) for each in rounds for name in each.metrics), 0))
    of_sites = (name for each in rounds for site in each.sites for name in site.metrics)
    names.update(name for name in of_sites if name not in CONFUSION and not name.endswith(WEIGHTED))
    for each in rounds:
        names.update({name: len(each.sites) for name in each.metrics if name.startswith(POOLED)})
    ranked = beside_last([name for name, _ in names.most_common()])
    return list(dict.fromkeys([*(name for name in first if name in names), *ranked]))[:_MOST_PANELS]


def _panel(
    axes: Any,
    name: str,
    rounds: Sequence[RoundResult],
    drawn: dict[str, Any],
    *,
    of_metrics: bool,
    is_judged: bool,
) -> list[_Line]:
    """Draw the lines of a panel, and return those of the merged metric, the thick one first."""
    from matplotlib.ticker import MaxNLocator

    x = [each.round for each in rounds]
    marker = "o" if len(x) <= _MOST_MARKED else ""
    if not of_metrics:
        axes.plot(x, [each.seconds for each in rounds], marker=marker, markersize=3)
    sites = sorted({site.site for each in rounds for site in each.sites})
    is_named = len(sites) <= _MOST_LABELS
    for number, site in enumerate(sites):
        y = [_of_site(each, site, name) for each in rounds]
        if _is_some(y):
            label = printable(site) if is_named else f"each of {len(sites)} sites"
            look = {"color": _COLOURS[number % len(_COLOURS)] if is_named else "0.75", "marker": marker}
            (line,) = axes.plot(x, y, linewidth=1.0, markersize=2, zorder=2, **look)
            drawn.setdefault(label, line)
    lines = _merged(name, rounds, is_judged=is_judged)
    for number, (label, look, y) in enumerate(lines):
        wide = {"linewidth": 1.5, "markersize": 3} if number else {"linewidth": 3.5, "markersize": 4}
        (line,) = axes.plot(x, y, marker=marker, zorder=2 if is_named else 4, solid_capstyle="round", **wide, **look)
        drawn.setdefault(label, line)
    if few := {number: each.value for number, each in _thick(name, rounds, lines).items() if each.words}:
        (line,) = axes.plot(few.keys(), few.values(), "o", markersize=5, markerfacecolor="w", color="0.1", zorder=5)
        drawn.setdefault("not of all sites", line)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(x) == 1:
        axes.set_xlim(x[0] - 1, x[0] + 1)
    axes.grid(alpha=0.3)
    return lines


def _thick(name: str, rounds: Sequence[RoundResult], lines: Sequence[_Line]) -> dict[int, MergedValue]:
    """Return the values of a panel's thick line, by round."""
    values = lines[0][2] if lines else [math.nan] * len(rounds)
    return {
        each.round: each.of_sites(name, value)
        for each, value in zip(rounds, values, strict=True)
        if not math.isnan(value)
    }


def _merged(name: str, rounds: Sequence[RoundResult], *, is_judged: bool) -> list[_Line]:
    """Return the lines of a merged metric, each with its label, look and values, the one first that stands for it."""
    values = [each.metrics.get(name, math.nan) for each in rounds]
    if only := next((look for prefix, look in _NO_MEAN.items() if name.startswith(prefix)), None):
        return [(*only, values)] if _is_some(values) else []
    weighted = [each.metrics.get(name + WEIGHTED, math.nan) for each in rounds]
    both = [(*_WEIGHTED_MEAN, weighted), (*_PLAIN_MEAN, values)]
    first, second = both[::-1] if is_judged else both
    if not _is_some(first[2]):
        first, second = second, first
    agree = all(
        math.isnan(other) or math.isclose(one, other, rel_tol=1e-3)
        for one, other in zip(first[2], second[2], strict=True)
    )
    return [each for each in ((first,) if agree else (first, second)) if _is_some(each[2])]


def _title(words: str, *, is_beside: bool) -> str:
    """Return a panel's title in lines. The last one has room for the best value, if that `is_beside` it."""
    if len(words) > _LONGEST_TITLE:
        half = (_LONGEST_TITLE - 1) // 2
        words = f"{words[:half]}…{words[-half:]}"
    lines = [""]
    for part in re.findall(rf"[^/_ .-]{{1,{_MOST_TITLE - 1}}}[/_ .-]?|[/_ .-]", words):
        if len(lines[-1]) + len(part) > _MOST_TITLE:
            lines.append("")
        lines[-1] += part
    return "\n".join([*lines, ""] if is_beside and len(lines[-1]) > _MOST_TITLE_BESIDE else lines)


def _mark_best(axes: Any, merged: dict[int, MergedValue], better: int, drawn: dict[str, Any]) -> str:
    """Mark the best round of the merged metric, and describe it; '' where none is known, or no other is compared."""
    best = best_of(merged, better)
    if best is None or best.is_alone:
        return ""
    return _starred(axes, best.round, best.value, "best round, by the thick line", drawn)


def _mark_selected(axes: Any, selected: Selected | None, drawn: dict[str, Any]) -> str:
    """Mark the best model by `--select`, and describe it; '' where no model is the best yet."""
    if selected is None:
        return ""
    return _starred(axes, selected.round, selected.value, f"best model, by --select {selected.select}", drawn)


def _starred(axes: Any, round_: int, value: float, label: str, drawn: dict[str, Any]) -> str:
    (star,) = axes.plot([round_], [value], "*", color=_BEST, markeredgecolor="0.1", markersize=12, zorder=5)
    drawn[label] = drawn.pop(label, star)  # the last of the legend
    return f"best: {value:.4g} in round {round_}"


def _is_some(values: Sequence[float]) -> bool:
    return any(not math.isnan(value) for value in values)


def _of_site(result: RoundResult, site: str, name: str) -> float:
    return next((each.metrics.get(name, math.nan) for each in result.sites if each.site == site), math.nan)
