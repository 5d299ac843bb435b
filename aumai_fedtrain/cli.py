"""`aumai-fedtrain`: federated training by rounds, simulated or with live nodes on the bus."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from aumai_fedtrain import report
from aumai_fedtrain.core import DiLoCoCoordinator, HashVerifier, UpdateProvider
from aumai_fedtrain.files import NoSuchFile, load
from aumai_fedtrain.models import FederatedNode, LocalUpdate, TrainingConfig
from aumai_fedtrain.options import config_option, home_option, json_option, nodes_option
from aumai_fedtrain.recording import recorded
from aumai_fedtrain.session import Session, Status, open_sessions, read_sessions
from aumai_fedtrain.simulation import SimulatedProvider
from flavor import __version__
from flavor.cli.help import ExampleGroup, GroupedCommand
from flavor.cli.installed import complete_server_step
from flavor.cli.options import redis_option
from flavor.cli.output import teller
from flavor.cli.program import one_line_errors, raise_on_sigterm
from flavor.cli.secrets import keep_private
from flavor.config import RunConfig
from flavor.errors import FlavorError, InvalidSetting, MisuseError
from flavor.exit_codes import OF_RUNS, exit_codes_line
from flavor.patterns import with_known
from flavor.say import say

_LIVE_ONLY = ("run_name", "store", "init_model", "quorum", "round_timeout_s", "heartbeat_timeout_s", "set_")
DEFAULT_NODES = 4
"""How many nodes `init` and `run` simulate without --nodes."""
_SIMULATION_ONLY = ("param_names", "param_size", "seed")


class BadConfiguration(FlavorError):
    """The file of --config holds no valid configuration."""


@click.group(
    "aumai-fedtrain",
    cls=ExampleGroup,
    example="aumai-fedtrain run --config train.json --nodes 3",
    epilog=exit_codes_line(OF_RUNS),
)
@click.version_option(__version__, prog_name="aumai-fedtrain")
def main() -> None:
    """Train in rounds: nodes train locally, and a coordinator averages their weights or takes DiLoCo's outer step.

    A simulation needs no other program. Live nodes are `flavor-fl` edges, and need Redis.
    """


@main.command(cls=GroupedCommand, example="aumai-fedtrain init --config train.json --nodes 3")
@config_option(True, "JSON file with the configuration of the training.")
@nodes_option(f"Number of nodes.  [default: {DEFAULT_NODES}]")
@json_option
@redis_option
@home_option
@one_line_errors
def init(config: Path, nodes: int | None, as_json: bool, redis_url: str | None, home: Path) -> None:
    """Prepare a session.

    Checks the configuration and records it in a session, so that `aumai-fedtrain run` needs no --config.
    """
    written = _configured(config)
    session = Session(config=_with_nodes(written, nodes or DEFAULT_NODES)).at(Status.INITIALIZED)
    with open_sessions(redis_url, home) as sessions:
        sessions.save(session)
    _tell_nodes(written, session.config, nodes)
    if as_json:
        click.echo(json.dumps(report.status_json(session)))
        return
    click.echo(report.heading("Initialized", session.config))
    click.echo(report.plan(session.config, _participants(session.config)))
    click.echo("\nNext: aumai-fedtrain run")


@main.command(cls=GroupedCommand, example="aumai-fedtrain run --config train.json --nodes 3")
@config_option(
    False, "JSON file with the configuration of the training.  [default: the configuration of the newest session]"
)
@nodes_option(
    f"Number of nodes.  [default: {DEFAULT_NODES} for a simulation; as in the session without --config; "
    "the num_nodes of the file with --live]"
)
@click.option(
    "--outer-optimizer",
    shell_complete=complete_server_step,
    metavar="NAME[:OPTION=VALUE,...]",
    help="Outer optimizer of DiLoCo, e.g. nesterov:lr=0.7,momentum=0.9; `flavor aggregators` lists all installed "
    "server steps.  [default: none; the averages are the weights]",
)
@click.option(
    "--statistics",
    multiple=True,
    metavar="PATTERN",
    help="Exclude tensors that match this pattern from the outer step, because they are statistics, e.g. a running "
    "variance, and no parameters. '*running_mean', '*running_var' and similar patterns are included; `none` leaves "
    "these out. May be repeated.",
)
@click.option("--weighted", is_flag=True, help="Weigh each node by its number of samples.")
@click.option(
    "--param-names",
    default="weight,bias",
    show_default=True,
    help="Names of the simulated parameters, separated by commas.",
)
@click.option(
    "--param-size",
    type=click.IntRange(1, 10**8),
    default=8,
    show_default=True,
    help="Number of values of each simulated parameter.",
)
@click.option(
    "--seed", type=click.IntRange(0), help="Random seed of the simulation.  [default: a new seed in each simulation]"
)
@click.option(
    "--live", is_flag=True, help="Train with live nodes on the Redis of FLAVOR_REDIS_URL, as with --redis-url."
)
@click.option(
    "--run", "run_name", metavar="RUN", help="Name of the run of live nodes.  [default: the name of the model]"
)
@click.option(
    "--store",
    envvar="FLAVOR_STORE",
    show_envvar=True,
    metavar="FOLDER",
    help="Object store that the live nodes can reach.  [default: a folder in --home]",
)
@click.option(
    "--init-model",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Checkpoint with pre-trained weights that round 1 starts from.",
)
@click.option(
    "--quorum",
    type=click.IntRange(1),
    help="Number of updates of live nodes with which a round may close.  [default: the number of nodes]",
)
@click.option(
    "--round-timeout-s",
    type=float,
    default=RunConfig.default("round_timeout_s"),
    show_default=True,
    help="Deadline of a round of live nodes, in seconds after its opening.",
)
@click.option(
    "--heartbeat-timeout-s",
    type=float,
    default=RunConfig.default("heartbeat_timeout_s"),
    show_default=True,
    help="Seconds of silence after which a live node counts as gone.",
)
@click.option(
    "--set",
    "set_",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an environment variable for the scripts of live nodes. May be repeated.",
)
@json_option
@redis_option
@home_option
@one_line_errors
def run(
    config: Path | None,
    nodes: int | None,
    outer_optimizer: str | None,
    statistics: tuple[str, ...],
    weighted: bool,
    live: bool,
    as_json: bool,
    redis_url: str | None,
    home: Path,
    **options: Any,
) -> None:
    """Train a model in a simulation or with live nodes.

    Trains with live nodes if --redis-url or --live is given, else simulates the nodes. A live node joins with
    `flavor-fl --run RUN --client NAME --store STORE -m "python main.py"`. A training with live nodes that was
    interrupted goes on from its newest closed round when it is started again. Without --redis-url and --live,
    FLAVOR_REDIS_URL only says where the session is kept.
    """
    context = click.get_current_context()
    live = live or context.get_parameter_source("redis_url") is ParameterSource.COMMANDLINE
    if live and not redis_url:
        raise MisuseError("--live needs a Redis: pass --redis-url or set FLAVOR_REDIS_URL")
    _check_options(context, live)
    if live and options["set_"]:
        options["set_"] = _parsed_settings(options["set_"])
    written = _newest(redis_url, home) if config is None else _configured(config)
    chosen = _with_nodes(written, DEFAULT_NODES if nodes is None and config is not None and not live else nodes)
    coordinator = DiLoCoCoordinator(
        outer_optimizer=outer_optimizer, weighted=weighted, statistics=with_known(statistics)
    )
    provider: UpdateProvider
    if live:
        assert redis_url is not None
        name = options["run_name"] or chosen.model_name
        provider, participants = _live_nodes(name, redis_url, home, options), []
    else:
        name = None
        names = [part.strip() for part in options["param_names"].split(",")]
        provider = SimulatedProvider(param_names=names, param_size=options["param_size"], seed=options["seed"])
        participants = _participants(chosen)
    raise_on_sigterm()
    _tell_nodes(written, chosen, nodes)
    if not as_json:
        click.echo(report.heading("Starting", chosen) + "\n")
    with _warnings_told(), recorded(Session(config=chosen, run=name), redis_url, home) as record:
        done = coordinator.run_training(chosen, participants, provider, on_round=record)
    if as_json:
        click.echo(json.dumps(report.result_json(chosen, done, name)))
    else:
        click.echo(report.result(chosen, done))


@main.command(cls=GroupedCommand, example="aumai-fedtrain status --round-id 2")
@click.argument("model", required=False)
@config_option(False, "JSON file with a configuration: show the session of the configuration's model.")
@click.option(
    "--round-id", type=click.IntRange(1), metavar="N", help="Also show whether round N is completed or pending."
)
@json_option
@redis_option
@home_option
@one_line_errors
def status(
    model: str | None, config: Path | None, round_id: int | None, as_json: bool, redis_url: str | None, home: Path
) -> None:
    """Show the newest session.

    With MODEL, shows the session of the model of this name. The training may still be running.
    """
    planned = None if config is None else _configured(config)
    if planned is not None and model not in (None, planned.model_name):
        raise MisuseError(f"{config}: its model is {planned.model_name!r}, not {model!r}: pass one of the two")
    model = planned.model_name if planned is not None else model
    found = read_sessions(redis_url, home)
    shown = next((session for session in found if model in (None, session.config.model_name)), None)
    others = [session.config.model_name for session in found if session is not shown]
    if as_json:
        news: dict[str, Any] = {"session": report.status_json(shown) if shown else None, "others": others}
        if round_id is not None:
            news |= {"round_id": round_id, "completed": shown is not None and shown.round_id >= round_id}
        click.echo(json.dumps(news))
        return
    if round_id is not None:
        click.echo(report.round_status(round_id, shown, planned))
    elif shown is None:
        which = f"session of {model!r}" if model else "session"
        click.echo(f"There is no {which}: start one with `aumai-fedtrain init` or `aumai-fedtrain run`.")
    else:
        click.echo(report.status(shown))
    if others:
        click.echo(f"\nOther sessions: {', '.join(others)}")


@main.command(cls=GroupedCommand, example="aumai-fedtrain verify --update update.json --hash SHA256")
@click.option(
    "--update",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="JSON file with the update, a LocalUpdate.",
)
@click.option(
    "--hash", "expected", required=True, metavar="SHA256", help="SHA-256 that the gradients of the update should have."
)
@json_option
@one_line_errors
def verify(update: Path, expected: str, as_json: bool) -> None:
    """Check the hash of an update.

    Ends with exit code 1 if the SHA-256 of the update's gradients differs from --hash.
    """
    loaded = load(update, LocalUpdate)
    passed, found = HashVerifier.verify(loaded, expected), HashVerifier.compute_hash(loaded.gradients)
    if as_json:
        click.echo(json.dumps({"passed": passed, "hash": found, "expected": expected}))
    elif passed:
        click.echo(f"Verification PASSED.  Hash: {found}")
    else:
        click.echo(f"Verification FAILED.  Hash: {found}  expected: {expected}")
    sys.exit(0 if passed else 1)


@contextlib.contextmanager
def _warnings_told() -> Iterator[None]:
    """Print each warning of a coordinator as one line, also repeated ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        yield


def _configured(path: Path) -> TrainingConfig:
    """Load the configuration at `path`. Exit codes: 1 for one that is not valid, 2 for a missing file."""
    try:
        return load(path, TrainingConfig)
    except NoSuchFile:
        raise
    except MisuseError as error:
        raise BadConfiguration(str(error)) from None


def _with_nodes(config: TrainingConfig, nodes: int | None) -> TrainingConfig:
    return config if nodes is None else config.model_copy(update={"num_nodes": nodes})


def _tell_nodes(written: TrainingConfig, chosen: TrainingConfig, nodes: int | None) -> None:
    """Print a note if the number of simulated nodes is neither that of the file nor that of the user."""
    if nodes is None and written.num_nodes != chosen.num_nodes:
        click.echo(
            f"Note: {chosen.num_nodes} nodes, the default of --nodes; the file has num_nodes {written.num_nodes}: "
            f"pass --nodes {written.num_nodes} for as many.",
            err=True,
        )


def _participants(config: TrainingConfig) -> list[FederatedNode]:
    return [FederatedNode(node_id=f"node-{i:03d}", address="simulated") for i in range(config.num_nodes)]


def _newest(redis_url: str | None, home: Path) -> TrainingConfig:
    found = read_sessions(redis_url, home)
    if not found:
        raise MisuseError("there is no session to run: pass --config FILE, or `aumai-fedtrain init` one first")
    return found[0].config


def _check_options(context: click.Context, live: bool) -> None:
    """Raise `InvalidSetting` for an option that has no effect in this mode."""
    unfit = _SIMULATION_ONLY if live else _LIVE_ONLY
    for parameter in context.command.params:
        if parameter.name in unfit and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            why = "is for simulations" if live else "is for live nodes: name their Redis with --redis-url"
            raise InvalidSetting(f"{parameter.opts[0]} {why}")


def _parsed_settings(texts: tuple[str, ...]) -> dict[str, str]:
    from flavor.script_settings import parse_settings

    return parse_settings(texts)


def _live_nodes(name: str, redis_url: str, home: Path, options: dict[str, Any]) -> UpdateProvider:
    from aumai_fedtrain.bus import BusUpdateProvider
    from flavor.records.names import is_name

    if not is_name(name):
        raise InvalidSetting(f"{name!r} cannot be the name of a run: pass --run with letters, digits, '.', '_' and '-'")
    return BusUpdateProvider(
        name,
        redis_url=redis_url,
        store=options["store"] or os.fspath(home.absolute() / "store"),
        initial_model=options["init_model"],
        quorum=options["quorum"],
        round_timeout_s=options["round_timeout_s"],
        heartbeat_timeout_s=options["heartbeat_timeout_s"],
        settings=options["set_"] or None,
        tell=teller("[coordinator] "),
    )


def command_line() -> None:
    """Entry point."""
    keep_private({"--redis-url": "--live"} if sys.argv[1:2] == ["run"] else None)
    main(prog_name="aumai-fedtrain")


if __name__ == "__main__":
    command_line()
