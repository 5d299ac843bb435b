"""`flavor serve`: coordinate a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from flavor import alive
from flavor.bus.variables import PATIENCE_S
from flavor.checkpoints.kind import CheckpointKind
from flavor.cli.from_run import Beginning, beginning_of, from_run_options
from flavor.cli.help import GroupedCommand
from flavor.cli.notify import notify_options
from flavor.cli.options import needed, patience_option, redis_option, run_option, store_option, store_settings
from flavor.cli.output import teller
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm
from flavor.cli.run_options import config_of, run_options
from flavor.config import RunConfig
from flavor.errors import CheckpointError, InvalidSetting
from flavor.notices import AFTER_S
from flavor.parts import Parts
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.view.observer import Everyone, Lines, Observer, Silent

init_model_option = click.option(
    "--init-model",
    type=click.Path(exists=True, path_type=Path),
    help="Checkpoint with pre-trained weights that round 1 starts from: a file in any checkpoint format, or a folder "
    "with safetensors shards and their index.",
)
out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="FLAVOR_OUT",
    show_envvar=True,
    help="Folder into which metrics (merged and of each site), a plot, client information and models are written when "
    "a round closes.  [default: none]",
)


def check_rule(config: RunConfig) -> None:
    """Raise unless the run's rule exists and can be used with as few updates as a round may close with.

    `InvalidSetting`, with the numbers, names the option.
    """
    from aggregators.protocols import weighs
    from aggregators.registry import parse
    from flavor.config import DEFAULT_AGGREGATOR
    from flavor.errors import AggregationError
    from flavor.resume import FEDTRAIN
    from flavor.rule_settings import COMMAND

    aggregator, server_step, clients = config.aggregator or DEFAULT_AGGREGATOR, config.server_step, config.needed
    if aggregator == COMMAND:
        return
    if aggregator == FEDTRAIN:
        raise InvalidSetting(
            f"--aggregator {FEDTRAIN}: only aumai_fedtrain coordinates such a run: start `aumai-fedtrain run`"
        )
    try:
        reducer = parse(aggregator).reducer
    except InvalidSetting as error:
        raise InvalidSetting(f"--aggregator: {error}") from None
    if config.weights in ("importance", "product") and not weighs(reducer):
        raise InvalidSetting(
            f"--weights {config.weights}: {aggregator} does not weigh, every site counts alike in it: leave it out, or "
            "choose a rule that does (mean, geometric_median)"
        )
    if server_step is not None:
        try:
            parse(aggregator, server_step)
        except InvalidSetting as error:
            raise InvalidSetting(f"--server-step: {error}") from None
    try:
        reducer.check(clients)
    except AggregationError as error:
        way = "--min-clients or --quorum" if config.buffered is None else "the buffer of --mode"
        raise InvalidSetting(
            f"--aggregator {aggregator}: {error}; a round may close with {clients}: raise {way}"
        ) from None


def check_initial(path: Path, kind: CheckpointKind, parts: Parts) -> None:
    """Raise `InvalidSetting` unless `path` is a checkpoint that a run can start from, and that `parts` divide."""
    from flavor.checkpoints import describe

    try:
        kind.describe(path)
        problem = parts.problem(describe(path)) if parts else ""
    except CheckpointError as error:
        raise InvalidSetting(f"--init-model {error}") from None
    if problem:
        raise InvalidSetting(f"--init-model {path}: {problem}")


def ended(view: RunView, closed: int) -> None:
    """Return for a run that closed all its rounds; else raise an error that says how it ended and how it goes on."""
    from flavor.errors import RunError, RunFinishedEarly, RunStopped
    from flavor.resume import goes_on_by

    how = f"run {view.run!r} is {view.state}: {view.reason}"
    if view.state is RunState.STOPPED:
        raise RunStopped(f"{how}; {goes_on_by(view)}")
    if view.state is not RunState.FINISHED:
        raise RunError(f"{how}: {goes_on_by(view)}")
    if closed < view.rounds and not view.is_met:
        raise RunFinishedEarly(how)


@contextlib.contextmanager
def saying_how_to_go_on(run: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Say how the run goes on if a signal stops the coordinator in the body."""
    try:
        yield
    except (Terminated, KeyboardInterrupt):
        tell(f"stopped: `flavor serve` with the same options goes on with run {run!r}, `flavor stop {run}` ends it")
        raise


@click.command(
    cls=GroupedCommand,
    example="flavor serve --run mammo --rounds 10 --min-clients 3 \\\n  --redis-url redis://localhost --store store",
)
@run_option
@run_options(defaults={"on_quorum_lost": "wait"}, variables=True)
@init_model_option
@from_run_options
@out_option
@notify_options
@redis_option
@store_option
@patience_option
@one_line_errors
def serve(
    run: str,
    redis_url: str | None,
    store: str | None,
    init_model: Path | None,
    from_run: str | None,
    from_round: int | None,
    out: Path | None,
    notify: tuple[str, ...],
    notify_after_s: float,
    patience_s: float,
    **settings: Any,
) -> None:
    """Coordinate a run: wait for clients, open rounds and close them.

    The coordinator keeps its state in Redis. After a crash, start the coordinator again with the same options: it goes
    on with the run. Use `flavor resume` for a run that has failed or was stopped. The exit code is 0 only for a
    finished run.
    """
    url, store = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL"), needed(store, "--store", "FLAVOR_STORE")
    config = config_of(settings, store=store)
    check_rule(config)
    if from_run is not None and init_model is None and _is_there(run, url, patience_s):
        from_run = None  # a run that goes on needs the other one no more
    with beginning_of(init_model, from_run, from_round, url) as beginning:
        coordinate(
            run,
            config,
            url,
            beginning=beginning,
            out=out,
            patience_s=patience_s,
            notify=notify,
            notify_after_s=notify_after_s,
        )


def _is_there(run: str, url: str, patience_s: float) -> bool:
    from flavor.bus.runs import RunStore
    from flavor.cli.opened_run import connected

    return RunStore(connected(url, patience_s=patience_s)[0], run, url).find() is not None


def coordinate(
    run: str,
    config: RunConfig,
    url: str,
    *,
    beginning: Beginning | None = None,
    out: Path | None = None,
    patience_s: float = PATIENCE_S,
    notify: Sequence[str] = (),
    notify_after_s: float = AFTER_S,
) -> None:
    """Coordinate a run to its end as a program. Returns for a run that closed all its rounds, else raises.

    `notify` are the URLs of `--notify`, or `@FILE`.
    """
    from flavor.bus.runs import RunStore
    from flavor.cli.opened_run import connected
    from flavor.coordinator.bounds import bound_warnings
    from flavor.coordinator.initial_model import store_initial
    from flavor.coordinator.loop import Coordinator
    from flavor.results.writer import check_out, written
    from flavor.stamp import with_times
    from flavor.store.opening import once_usable, opened_once_usable
    from flavor.store.signer import opened_signer

    with_times()
    tell = teller("[coordinator] ")
    raise_on_sigterm()
    alive.begin(os.environ)
    with _noticed(run, notify, notify_after_s, tell) as notices:
        objects = opened_once_usable(config.store, create=True, settings=store_settings(), tell=tell)
        config = config.model_copy(update={"store": objects.url})
        signer = None
        if config.signed_urls:
            signing = partial(opened_signer, objects.url, store_settings().endurance)
            signer = once_usable(objects.url, signing, tell=tell)
        check_out(lambda: RunStore(connected(url, patience_s=patience_s)[0], run, url), run, out, objects)
        initial = None
        if beginning is not None:
            place = partial(store_initial, objects, run, beginning.path, config.kind, parts=config.parts, tell=tell)
            initial = once_usable(objects.url, place, tell=tell)
        elif config.parts:
            tell(
                f"a part of the model is shared ({config.parts.options}), and there is no --init-model: a site that "
                "first trains after round 1 needs a checkpoint that its script saves before TrainInitDone"
            )
        coordinator = Coordinator(
            run,
            config,
            redis_url=url,
            store=objects,
            observer=Everyone(Lines(tell), notices),
            initial=initial,
            begun_from=beginning.begun_from if beginning is not None else None,
            patience_s=patience_s,
            warnings=partial(bound_warnings, has_model=initial is not None),
            signer=signer,
        )
        with saying_how_to_go_on(run, tell), written(run, out, redis_url=url, store=objects, tell=tell):
            view = coordinator.run()
    ended(view, coordinator.closed)


def _noticed(
    run: str, notify: Sequence[str], after_s: float, tell: Callable[[str], None]
) -> contextlib.AbstractContextManager[Observer]:
    """What sends messages about the run; it is imported only where there are places to send them to."""
    if not notify:
        return contextlib.nullcontext(Silent())
    from flavor.notices.notices import noticed

    return noticed(run, notify, after_s=after_s, tell=tell)
