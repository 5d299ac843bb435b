"""`flavor serve`: a run's coordinator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.options import needed, patience_option, redis_option, run_option, store_option, store_settings
from flavor.cli.output import teller
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm
from flavor.errors import CheckpointError, InvalidSetting
from flavor.records.run import RunView
from flavor.records.states import RunState

if TYPE_CHECKING:
    from flavor.checkpoints.kind import CheckpointKind
    from flavor.config import RunConfig


def _patient_where_sites_are_far(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The default of `--on-quorum-lost`: on one machine nobody starts a site again."""
    if value is not None or context.info_name == "resume":
        return value
    return "wait" if context.info_name == "serve" else "fail"


def round_options(function: Any) -> Any:
    """The options that describe a run's rounds, shared with `flavor run`."""
    for option in reversed(
        [
            click.option(
                "--checkpoint",
                type=click.Choice(["tensors", "opaque"]),
                default="tensors",
                show_default=True,
                help="What clients send: a state_dict of tensors, or any file (for an aggregator of your own).",
            ),
            click.option(
                "--aggregator",
                metavar="NAME[:OPTION=VALUE,...]",
                help="How updates become one model; `flavor aggregators` lists what there is, `command` is the one of "
                "`flavor-agg -m`.  [default: that one where there is one, else fedavg]",
            ),
            click.option(
                "--server-step",
                metavar="NAME[:OPTION=VALUE,...]",
                help="How the global model follows, e.g. nesterov:lr=0.7.  [default: the aggregator's own]",
            ),
            click.option(
                "--weights",
                type=click.Choice(["datasetSize", "importance", "product", "equal"]),
                default="datasetSize",
                show_default=True,
                help="How much a site counts in a rule that gives sites weights (mean, geometric_median): by its "
                "examples, the importance that it names, the product of both, or like any other.",
            ),
            click.option(
                "--keep",
                multiple=True,
                metavar="PATTERN",
                help="Tensors that no round changes, e.g. '*._extra_state': those of the global model stay, in a first "
                "round without one those of the first site by name; again for another.",
            ),
            click.option(
                "--equal",
                multiple=True,
                metavar="PATTERN",
                help="Tensors that must be the same at all sites, e.g. '*.labels': an update with another is refused; "
                "again for another.",
            ),
            click.option(
                "--statistics",
                multiple=True,
                metavar="PATTERN",
                help="Tensors that are no parameters, as a variance is none: the server step leaves them alone. "
                "'*running_mean', '*running_var' and their like are known; again for another; `none` leaves out the "
                "known ones.",
            ),
            click.option(
                "--compress",
                type=click.Choice(["none", "bf16", "int8"]),
                default="none",
                show_default=True,
                help="What edges send from the second round on: float32 parameters, or their change in 16 or 8 bits. "
                "int8 never sends a change below 1/254 of the largest in its block of 4,096 numbers.",
            ),
            click.option(
                "--fraction",
                type=float,
                default=1.0,
                show_default=True,
                help="Share of the ready clients that each round samples.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of that sampling."),
            click.option(
                "--quorum",
                metavar="NUMBER|SHARE",
                help="Accepted updates with which a round may close: 3, or 0.6 or 60% of its clients.  "
                "[default: --fraction of --min-clients]",
            ),
            click.option(
                "--on-quorum-lost",
                type=click.Choice(["wait", "retry", "fail"]),
                callback=_patient_where_sites_are_far,
                help="Decide what happens when the quorum cannot be reached, or is not by the deadline: wait for the "
                "round's sites to come back, open the round again for those that are ready, or fail the run.  "
                "[default: wait, and in `flavor run` fail]",
            ),
            click.option(
                "--round-attempts",
                type=int,
                default=3,
                show_default=True,
                help="How often a round is opened in all, with --on-quorum-lost retry.",
            ),
            click.option(
                "--round-timeout-s",
                type=float,
                default=86_400.0,
                show_default=True,
                help="Deadline of a round.",
            ),
            click.option(
                "--heartbeat-timeout-s",
                type=float,
                default=15.0,
                show_default=True,
                help="Silence after which an edge counts as gone.",
            ),
            click.option(
                "--aggregation-timeout-s",
                type=float,
                default=3600.0,
                show_default=True,
                help="Longest that one aggregation may run.",
            ),
            click.option(
                "--aggregation-lease-s",
                type=float,
                default=15.0,
                show_default=True,
                help="Silence of an aggregator after which its work is given to another.",
            ),
            click.option(
                "--aggregation-attempts",
                type=int,
                default=3,
                show_default=True,
                help="Attempts to aggregate a round before the run fails.",
            ),
            click.option(
                "--quarantine-after",
                type=int,
                default=3,
                show_default=True,
                help="Refused updates in a row after which a client is given no more tasks; 0 for never.",
            ),
            click.option(
                "--max-dataset-size",
                type=int,
                help="Largest datasetSize that an update may claim.  [default: no limit]",
            ),
            click.option(
                "--max-update-bytes",
                type=int,
                help="Largest update in bytes; set it where sites are not trusted.  [default: no limit]",
            ),
            click.option(
                "--max-update-norm",
                type=float,
                help="Largest L2 norm of an update's change of the global model. Without --init-model it bounds "
                "nothing in round 1.  [default: no limit]",
            ),
            click.option(
                "--keep-rounds",
                type=int,
                default=2,
                show_default=True,
                help="Rounds whose local updates stay in the store; 0 keeps all.",
            ),
            click.option(
                "--keep-globals",
                type=int,
                default=0,
                show_default=True,
                help="Rounds whose global model stays in the store, beside the initial one; 2 at least, 0 keeps all.",
            ),
            click.option(
                "--share-names",
                is_flag=True,
                help="Let sites read each other's names, numbers of examples and confusion matrices, not sums alone.",
            ),
            click.option(
                "--require-signatures",
                is_flag=True,
                help="Refuse unsigned updates; of a client whose key is known they are refused anyway.",
            ),
            click.option(
                "--set",
                "set_",
                multiple=True,
                metavar="NAME=VALUE",
                help="An environment variable for every trainer, e.g. LEARNING_RATE=0.01; again for another.",
            ),
            click.option(
                "--init-model",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="Pre-trained weights to start from, in any checkpoint format.",
            ),
        ]
    ):
        function = option(function)
    return function


out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="FLAVOR_OUT",
    show_envvar=True,
    help="Write metrics (merged and of each site), plot, information and models into this folder as rounds close.  "
    "[default: none]",
)


def check_rule(config: RunConfig) -> None:
    """Raise unless the run's rule exists and can be used with as few updates as a round may close with.

    `InvalidSetting`, with the numbers, names the option.
    """
    from aggregators.protocols import weighs
    from aggregators.registry import parse, parse_server_step
    from flavor.config import COMMAND, DEFAULT_AGGREGATOR
    from flavor.errors import AggregationError

    aggregator, server_step, clients = config.aggregator or DEFAULT_AGGREGATOR, config.server_step, config.needed
    if aggregator == COMMAND:
        return

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
            parse_server_step(server_step)
        except InvalidSetting as error:
            raise InvalidSetting(f"--server-step: {error}") from None
    try:
        reducer.check(clients)
    except AggregationError as error:
        raise InvalidSetting(
            f"--aggregator {aggregator}: {error}; a round may close with {clients}: raise --min-clients or --quorum"
        ) from None


def check_initial(path: Path, kind: CheckpointKind) -> None:
    """Raise `InvalidSetting` unless `path` is a checkpoint that a run can start from."""
    try:
        kind.describe(path)
    except CheckpointError as error:
        raise InvalidSetting(f"--init-model {error}") from None


def ended(view: RunView, closed: int) -> None:
    """Return for a run that closed all its rounds; else raise how it ended, and how it goes on."""
    from flavor.errors import RunError, RunFinishedEarly, RunStopped
    from flavor.resume import goes_on_by

    how = f"run {view.run!r} is {view.state}: {view.reason}"
    if view.state is RunState.STOPPED:
        raise RunStopped(f"{how}; {goes_on_by(view)}")
    if view.state is not RunState.FINISHED:
        raise RunError(f"{how}: {goes_on_by(view)}")
    if closed < view.rounds:
        raise RunFinishedEarly(how)


@contextlib.contextmanager
def saying_how_to_go_on(run: str, tell: Callable[[str], None]) -> Iterator[None]:
    """A coordinator that is stopped by a signal says what becomes of its run, which goes on."""
    try:
        yield
    except (Terminated, KeyboardInterrupt):
        tell(f"stopped: `flavor serve` with the same options goes on with run {run!r}, `flavor stop {run}` ends it")
        raise


@click.command(cls=GroupedCommand)
@run_option
@click.option("--rounds", type=int, required=True, envvar="FLAVOR_ROUNDS", show_envvar=True, help="Rounds to run.")
@click.option(
    "--min-clients",
    type=int,
    default=1,
    show_default=True,
    envvar="FLAVOR_MIN_CLIENTS",
    show_envvar=True,
    help="Clients that must be ready before the first round.",
)
@round_options
@click.option(
    "--queue",
    envvar="FLAVOR_QUEUE",
    show_envvar=True,
    default="flavor",
    show_default=True,
    help="The aggregators' RQ queue.",
)
@out_option
@redis_option
@store_option
@patience_option
@one_line_errors
def serve(
    run: str,
    redis_url: str | None,
    store: str | None,
    init_model: Path | None,
    out: Path | None,
    patience_s: float,
    set_: tuple[str, ...],
    **settings: Any,
) -> None:
    """Coordinate a run: wait for clients, open rounds, decide when each is complete.

    Keeps its state in Redis alone: killed and started again with the same options, it carries on. A run that has failed
    or was stopped goes on with `flavor resume`. Exit code 0 only for a finished run.
    """
    from flavor.config import RunConfig
    from flavor.coordinator.bounds import bound_warnings
    from flavor.coordinator.initial_model import store_initial
    from flavor.coordinator.loop import Coordinator
    from flavor.patterns import with_known
    from flavor.results.writer import written
    from flavor.script_settings import parse_settings
    from flavor.stamp import with_times
    from flavor.store.opening import once_usable, opened_once_usable

    url, store = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL"), needed(store, "--store", "FLAVOR_STORE")
    settings["statistics"] = with_known(settings["statistics"])
    config = RunConfig.parse({**settings, "settings": parse_settings(set_), "store": store})
    check_rule(config)
    with_times()
    tell = teller("[coordinator] ")
    raise_on_sigterm()
    objects = opened_once_usable(store, create=True, settings=store_settings(), tell=tell)
    config = config.model_copy(update={"store": objects.url})
    initial = None
    if init_model is not None:
        place = partial(store_initial, objects, run, init_model, config.kind)
        initial = once_usable(objects.url, place, tell=tell)
    coordinator = Coordinator(
        run,
        config,
        redis_url=url,
        store=objects,
        tell=tell,
        initial=initial,
        patience_s=patience_s,
        warnings=partial(bound_warnings, has_model=initial is not None),
    )
    with saying_how_to_go_on(run, tell), written(run, out, redis_url=url, store=objects, tell=tell):
        view = coordinator.run()
    ended(view, coordinator.closed)
