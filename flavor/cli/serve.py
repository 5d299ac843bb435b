"""`flavor serve`: a run's coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flavor.bus.state import RunState
from flavor.cli.common import (
    needed,
    one_line_errors,
    patience_option,
    raise_on_sigterm,
    redis_option,
    run_option,
    store_option,
    teller,
)
from flavor.errors import CheckpointError, InvalidSetting


def round_options(function: Any) -> Any:
    """The options that describe a run's rounds, shared with `flavor run`."""
    for option in reversed(
        [
            click.option(
                "--aggregator",
                default="fedavg",
                show_default=True,
                metavar="NAME[:OPTION=VALUE,...]",
                help="How updates become one model; `flavor aggregators` lists what there is.",
            ),
            click.option(
                "--server-step",
                metavar="NAME[:OPTION=VALUE,...]",
                help="How the global model follows, e.g. nesterov:lr=0.7.  [default: the aggregator's own]",
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
                type=int,
                help="Accepted updates with which a round may close.  [default: --fraction of --min-clients]",
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
                "--keep-rounds",
                type=int,
                default=2,
                show_default=True,
                help="Rounds whose local updates stay in the store; 0 keeps all.",
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


def check_rule(aggregator: str, server_step: str | None, clients: int) -> None:
    """Raise unless the rule exists and can be used with as few as `clients` updates.

    `InvalidSetting`, with the numbers, names the option.
    """
    from aggregators.registry import parse, parse_server_step
    from flavor.errors import AggregationError

    try:
        reducer = parse(aggregator).reducer
    except InvalidSetting as error:
        raise InvalidSetting(f"--aggregator {error}") from None
    if server_step is not None:
        try:
            parse_server_step(server_step)
        except InvalidSetting as error:
            raise InvalidSetting(f"--server-step {error}") from None
    try:
        reducer.check(clients)
    except AggregationError as error:
        raise InvalidSetting(
            f"--aggregator {aggregator}: {error}; a round may close with {clients}: raise --min-clients or --quorum"
        ) from None


def check_initial(path: Path) -> None:
    """Raise `InvalidSetting` unless `path` is a checkpoint that a run can start from."""
    from flavor.store.formats import describe

    try:
        describe(path)
    except CheckpointError as error:
        raise InvalidSetting(f"--init-model {error}") from None


@click.command()
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
@redis_option
@store_option
@patience_option
@one_line_errors
def serve(
    run: str,
    redis_url: str | None,
    store: str | None,
    init_model: Path | None,
    patience_s: float,
    set_: tuple[str, ...],
    **settings: Any,
) -> None:
    """Coordinate a run: wait for clients, open rounds, decide when each is complete.

    Keeps its state in Redis alone: killed and started again with the same options, it carries on. Exit code 0 only
    for a finished run.
    """
    from flavor.config import RunConfig
    from flavor.coordinator.initial import store_initial
    from flavor.coordinator.loop import Coordinator
    from flavor.errors import RunError
    from flavor.settings import parse_settings
    from flavor.store.objects import open_store

    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    objects = open_store(needed(store, "--store", "FLAVOR_STORE"), create=True)
    config = RunConfig.parse({**settings, "settings": parse_settings(set_), "store": objects.url})
    check_rule(config.aggregator, config.server_step, config.needed)
    initial = store_initial(objects, run, init_model) if init_model else None
    raise_on_sigterm()
    view = Coordinator(
        run,
        config,
        redis_url=url,
        store=objects,
        tell=teller("[coordinator] "),
        initial=initial,
        patience_s=patience_s,
    ).run()
    if view.state is not RunState.FINISHED:
        raise RunError(f"run {run!r} is {view.state}: {view.reason}")
