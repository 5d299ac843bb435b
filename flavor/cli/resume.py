"""`flavor resume`: go on with a run that has failed or was stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flavor.cli.help import GroupedCommand
from flavor.cli.lacking import read_run
from flavor.cli.opened_run import connected, store_of_run
from flavor.cli.options import needed, patience_option, redis_option, store_settings
from flavor.cli.output import teller
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.run_options import changing_options
from flavor.cli.serve import check_rule, ended, out_option, saying_how_to_go_on
from flavor.errors import RunError
from flavor.records.run import RunView
from flavor.resume import coordinated_by, is_of_fedtrain, not_by_serve


@click.command(cls=GroupedCommand, example="flavor resume mammo --rounds 20 --redis-url redis://localhost")
@click.argument("run")
@changing_options
@click.option(
    "--detach",
    is_flag=True,
    help="Let the run go on, and exit at once. Start its coordinator afterwards: `flavor serve`, or for a run that "
    "aumai_fedtrain began, `aumai-fedtrain run`.",
)
@out_option
@redis_option
@click.option(
    "--store",
    envvar="FLAVOR_STORE",
    show_envvar=True,
    metavar="URL",
    help="URL of the object store as this machine reaches it.  [default: the URL with which the run began]",
)
@patience_option
@one_line_errors
def resume(
    run: str,
    redis_url: str | None,
    store: str | None,
    detach: bool,
    out: Path | None,
    patience_s: float,
    **settings: Any,
) -> None:
    """Go on with a run that has failed or was stopped.

    Coordinates RUN as `flavor serve` does. The round that was open when the run ended is opened again: its accepted
    updates count, and sites whose update was refused may send another update. Start `flavor-fl` at the sites again with
    the same command. Options change when a round closes, which updates are refused and how long programs wait. A
    setting stays as it is if its option is not given. Settings that the model depends on cannot change: docs/resume.md
    has a table of all settings.
    """
    given = {name: value for name, value in settings.items() if _is_given(name)}
    go_on_with(run, given, redis_url=redis_url, store=store, out=out, patience_s=patience_s, detach=detach)


def go_on_with(
    run: str,
    given: Mapping[str, Any],
    *,
    redis_url: str | None,
    store: str | None,
    out: Path | None,
    patience_s: float,
    detach: bool = False,
    check: Callable[[RunView, int], None] = lambda view, closed: None,
) -> None:
    """Let an ended run go on with the settings in `given`, and coordinate it unless that is done elsewhere.

    `check` gets the run and the number of its closed rounds, and may raise before anything changes.
    """
    from flavor.bus.runs import RunStore
    from flavor.coordinator.bounds import bound_warnings
    from flavor.coordinator.loop import Coordinator
    from flavor.coordinator.resume import resume as go_on
    from flavor.results.writer import check_out, make_folder, written
    from flavor.stamp import with_times
    from flavor.store.opening import opened_once_usable
    from flavor.view.observer import Lines

    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    if not detach:
        with_times()
    tell = teller("[coordinator] ")
    redis, _ = connected(url, patience_s=patience_s, client_name=f"flavor-resume:{run}")
    runs = RunStore(redis, run, url)
    raise_on_sigterm()
    objects = None
    view = read_run(runs)
    check(view, runs.closed(view)[0])
    is_ours = not is_of_fedtrain(view)
    if not detach and not is_ours:
        raise RunError(not_by_serve(view))
    if not detach:
        store = store or store_of_run(run, view.config)
        objects = opened_once_usable(store, settings=store_settings(), tell=tell)
        check_out(lambda: runs, run, out, objects)
        make_folder(out)  # a folder that cannot be made is refused before the run has changed
    done = go_on(runs, given=given, check=check_rule if is_ours else lambda _: None, tell=tell)
    for line in done.changed:
        tell(f"changed: {line}")
    if done.is_open:
        tell(f"round {done.round} is open again; updates accepted in it so far, which count: {done.kept}")
    else:
        tell(f"run {run!r} goes on after round {done.round}")
    if done.cut_off:
        tell(done.cut_off)
    tell("sites that ended with the run start `flavor-fl` again")
    if objects is None:
        command = f"`flavor serve --run {run}` again, with the options that it had" if is_ours else coordinated_by(view)
        tell(f"start {command}")
        return
    coordinator = Coordinator(
        run,
        done.config,
        redis_url=url,
        store=objects,
        observer=Lines(tell),
        patience_s=patience_s,
        warnings=bound_warnings,
    )
    with saying_how_to_go_on(run, tell), written(run, out, redis_url=url, store=objects, tell=tell):
        view = coordinator.run()
    ended(view, coordinator.closed)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
