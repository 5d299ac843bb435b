"""`metrics.png`: a panel for each metric, each site a thin line, the mean over the sites a thick one."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flavor.counted import counted
from flavor.printable import printable
from flavor.records.info import CONFUSION, WEIGHTED
from flavor.results.rounds import RoundResult

_MOST_PANELS = 24
_MOST_LABELS = 10
"""Maximum number of sites that the legend names."""


def plot_metrics(run: str, rounds: Sequence[RoundResult], path: Path) -> bool:
    """Draw the metrics over the rounds; return False when matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    names = panels(rounds)
    shown = names or ["seconds"]
    wide = min(3, len(shown))
    high = -(-len(shown) // wide)
    figure = Figure(figsize=(max(6.0, 4.2 * wide), 3.0 * high + 1.0), layout="constrained")
    figure.suptitle(f"{run}: {counted(len(rounds), 'round')}")
    drawn: dict[str, Any] = {}
    for index, name in enumerate(shown):
        axes = figure.add_subplot(high, wide, index + 1)
        _panel(axes, name, rounds, drawn, of_metrics=bool(names))
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=min(4, len(drawn)), fontsize=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        FigureCanvasAgg(figure).print_png(str(path))  # type: ignore[no-untyped-call]
    return True


def panels(rounds: Sequence[RoundResult]) -> list[str]:
    """Return the metrics that get a panel: those that most sites report most often."""
    names = Counter(dict.fromkeys((name.removesuffix(WEIGHTED) for each in rounds for name in each.metrics), 0))
    names.update(name for each in rounds for site in each.sites for name in site.metrics if name not in CONFUSION)
    return [name for name, _ in names.most_common(_MOST_PANELS)]


def _panel(axes: Any, name: str, rounds: Sequence[RoundResult], drawn: dict[str, Any], *, of_metrics: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    x = [each.round for each in rounds]
    marker = "o" if len(x) <= 40 else ""
    if not of_metrics:
        axes.plot(x, [each.seconds for each in rounds], marker=marker, markersize=3)
    sites = sorted({site.site for each in rounds for site in each.sites})
    for number, site in enumerate(sites):
        y = [_of_site(each, site, name) for each in rounds]
        if any(not math.isnan(value) for value in y):
            label = site if len(sites) <= _MOST_LABELS else f"each of {len(sites)} sites"
            color = f"C{number % 10}" if len(sites) <= _MOST_LABELS else "0.75"
            (line,) = axes.plot(x, y, color=color, linewidth=1.0, zorder=3, marker=marker, markersize=2)
            drawn.setdefault(label, line)
    weighted = [each.metrics.get(name + WEIGHTED, math.nan) for each in rounds]
    plain = [each.metrics.get(name, math.nan) for each in rounds]
    if any(not math.isnan(value) for value in weighted):
        (line,) = axes.plot(x, weighted, color="0.3", linewidth=3.5, solid_capstyle="round", zorder=2)
        drawn.setdefault("mean, weighted by examples", line)
    if any(
        not math.isnan(one) and not (math.isclose(one, other, rel_tol=1e-3) if not math.isnan(other) else False)
        for one, other in zip(plain, weighted, strict=True)
    ):
        (line,) = axes.plot(x, plain, "--", color="0.3", linewidth=1.5, zorder=2)
        drawn.setdefault("plain mean", line)
    title = printable(name if len(name) <= 40 else f"{name[:37]}...")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _of_site(result: RoundResult, site: str, name: str) -> float:
    return next((each.metrics.get(name, math.nan) for each in result.sites if each.site == site), math.nan)
