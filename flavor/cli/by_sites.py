"""`flavor contributions --by-sites`: the sites of the run judge its models without one site after another."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from flavor.cli.judging_sites import judging_sites
from flavor.cli.opened_run import opened_run
from flavor.cli.output import print_line, teller
from flavor.counted import counted
from flavor.errors import MisuseError, RunError

if TYPE_CHECKING:
    from flavor.config import RunConfig
    from flavor.contributions.by_sites import BySites
    from flavor.contributions.kept import Kept
    from flavor.policy.selection import Select
    from flavor.store.protocol import ObjectStore


def trial_by_sites(
    run: str,
    redis_url: str | None,
    kept: Kept,
    store: ObjectStore,
    select: Select | None,
    timeout_s: float | None,
    folder: Path,
    stack: contextlib.ExitStack,
) -> BySites:
    """Return what leaves sites out and has the sites of the run judge, as long as `stack` is open.

    Raises `MisuseError` where no metric is named, and `RunError` where Redis has another run of this name.
    """
    from flavor.config import RunConfig
    from flavor.contributions.by_sites import BySites

    opened = stack.enter_context(opened_run(run, redis_url))
    runs = opened.runs
    view = runs.read_own()
    if view.run_id != kept.run_id:
        raise RunError(f"Redis has another run {kept.run!r} than the store: its id is {view.run_id}, not {kept.run_id}")
    config = RunConfig.of_run(kept.run, view.config)
    tell = teller("flavor: ")
    sites = stack.enter_context(judging_sites(opened, view, config, store, tell))
    trial = BySites(
        sites=sites,
        store=store,
        select=_of_sites(select, config),
        timeout_s=timeout_s or config.evaluation_timeout_s,
        folder=folder,
        tell=tell,
    )
    trial.total = sum(map(trial.models, kept.rounds))
    if trial.total:
        rounds = sum(1 for each in kept.rounds if trial.models(each))
        print_line(
            f"{counted(trial.total, 'evaluation')} of {counted(rounds, 'round')}: all sites judge that have an "
            "evaluator and allow it (--allow-cross)",
            err=True,
        )
    return trial


def _of_sites(select: Select | None, config: RunConfig) -> Select:
    """Return the metric, by the name that single sites use: that of the option, or of the run's --select."""
    from flavor.evaluation_settings import select_of
    from flavor.policy.selection import Select
    from flavor.records.counts import CENTRAL_PREFIX

    chosen = select or select_of(config)
    name = chosen.site_metric if chosen is not None and not chosen.base.startswith(CENTRAL_PREFIX) else None
    if select is not None and name != select.name:
        raise MisuseError(f"--metric {select}: --by-sites needs the name of a metric that each site measures by itself")
    if chosen is None or name is None:
        raise MisuseError(
            "the run has no --select of a metric that each site measures by itself: name one, and which of its values "
            "are better, e.g. --metric accuracy:max"
        )
    return Select(name, chosen.is_larger)
