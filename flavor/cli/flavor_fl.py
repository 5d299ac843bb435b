"""`flavor-fl`: run the edge of a site."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
from click.core import ParameterSource

from flavor.bus.variables import JOIN_VARIABLE
from flavor.checkpoints.format import FORMATS, Format
from flavor.cli.help import GroupedCommand
from flavor.cli.options import needed, patience_option, redis_option, store_option, store_settings, version_option
from flavor.cli.output import teller
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm, run_program
from flavor.cli.secrets import keep_private
from flavor.exit_codes import OF_RUNS, exit_codes_line
from flavor.records.names import MOST_LOG_LINES


@click.command(
    cls=GroupedCommand,
    example='flavor-fl --join @site-1.token -m "python main.py"',
    epilog=exit_codes_line(OF_RUNS),
)
@click.option(
    "-m",
    "--main",
    "main_command",
    required=True,
    metavar="CMD",
    help="Training command, e.g. 'python main.py'.",
)
@click.option(
    "-p",
    "--preprocess",
    "preprocess_command",
    metavar="CMD",
    help="Command to run once before the training command.",
)
@click.option(
    "-e",
    "--evaluate-main",
    "evaluate_command",
    metavar="CMD",
    help="Command that judges one global model with this site's data, e.g. 'python evaluate.py'. It is run once for "
    "each evaluation, between rounds: it loads $GLOBAL_MODEL_PATH, calls SaveInfoJson, and ends with exit code 0.",
)
@click.option(
    "--join",
    envvar=JOIN_VARIABLE,
    show_envvar=True,
    metavar="TOKEN",
    help="@FILE with the token that `flavor enroll` has printed, or the token itself, which other users of the machine "
    "can read in the process list while flavor-fl starts. The token names the run, the client and Redis.",
)
@click.option(
    "--run", envvar="FLAVOR_RUN", show_envvar=True, metavar="RUN", help="Name of the run.  [required without --join]"
)
@click.option(
    "--client",
    envvar="FLAVOR_CLIENT",
    show_envvar=True,
    metavar="NAME",
    help="Name of this site in the run.  [default: the name in the token, else the host name]",
)
@redis_option
@store_option
@click.option(
    "--workspace",
    envvar="FLAVOR_WORKSPACE",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which the folders of the training script are created, unless OUTPUT_PATH, LOG_PATH, … are set.  "
    "[default: flavor-work/RUN/CLIENT]",
)
@click.option(
    "--key",
    envvar="FLAVOR_KEY",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the private key that signs this site's updates (PEM, Ed25519). It is created if it does not exist.  "
    "[default: client.key in the folder of --workspace if that is given, else ~/.config/flavor/keys/CLIENT.key]",
)
@click.option(
    "--trust",
    envvar="FLAVOR_TRUST",
    show_envvar=True,
    multiple=True,
    metavar="KEY",
    help="Train only from global models whose manifest is signed with this public key of an aggregator (ed25519:HEX or "
    "its aggregator.key.pub), and from the initial weights with the digest sha256:HEX. May be repeated.",
)
@click.option(
    "--input",
    "input_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Input folder of the training script, which finds it in INPUT_PATH.  [default: $INPUT_PATH, else the current "
    "folder]",
)
@click.option(
    "--format",
    "format_",
    envvar="FLAVOR_FORMAT",
    show_envvar=True,
    type=click.Choice(FORMATS),
    help="Format of the training script's checkpoints.  [default: the format in which it saves]",
)
@click.option(
    "--opaque",
    is_flag=True,
    envvar="FLAVOR_OPAQUE",
    show_envvar=True,
    help="Take part in a run with opaque checkpoints, whose files reach the training script unchecked.",
)
@click.option(
    "--checkpoint",
    metavar="KIND",
    envvar="FLAVOR_CHECKPOINT",
    show_envvar=True,
    help="Take part in a run whose kind of checkpoint comes from an installed package, which is imported for it.",
)
@click.option(
    "--allow-set",
    multiple=True,
    metavar="PATTERN",
    envvar="FLAVOR_ALLOW_SET",
    show_envvar=True,
    help="Let the run set environment variables of this name or pattern for the training script, e.g. 'LR_*'. "
    "LEARNING_RATE and other common names are always allowed. May be repeated.",
)
@click.option(
    "--strip-prefix",
    is_flag=True,
    help="Remove the prefixes 'module.' (DataParallel) and '_orig_mod.' (torch.compile) from the names of tensors, and "
    "add them to the global model again.",
)
@click.option(
    "--report-output",
    is_flag=True,
    help="Share the last output of the training script with the operator when it fails.  [default: its exit code only]",
)
@click.option(
    "--no-report",
    is_flag=True,
    envvar="FLAVOR_NO_REPORT",
    show_envvar=True,
    help="Keep at this site what the training script reports of its progress (Report), how busy this machine is, and "
    "the versions of flavor and Python.  [default: the run's operator sees all of it]",
)
@click.option(
    "--share-log",
    type=click.IntRange(0, MOST_LOG_LINES),
    default=0,
    show_default=True,
    metavar="LINES",
    envvar="FLAVOR_SHARE_LOG",
    show_envvar=True,
    help="Share the last lines of the training script's output with the operator while it runs, up to 64 KiB.",
)
@patience_option
@click.option(
    "--join-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds to wait for a run that does not exist yet, has failed or was stopped.  [default: no limit]",
)
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds that the training script has to end after the end of the run.",
)
@version_option
@one_line_errors
def command(
    main_command: str,
    preprocess_command: str | None,
    evaluate_command: str | None,
    join: str | None,
    run: str | None,
    client: str | None,
    redis_url: str | None,
    store: str | None,
    workspace: Path | None,
    key: Path | None,
    trust: tuple[str, ...],
    input_path: Path | None,
    format_: str | None,
    opaque: bool,
    checkpoint: str | None,
    allow_set: tuple[str, ...],
    strip_prefix: bool,
    report_output: bool,
    no_report: bool,
    share_log: int,
    patience_s: float,
    join_timeout_s: float | None,
    grace_s: float,
) -> None:
    """Take part in a run with your own training script.

    Starts the training command of -m, which trains one round between the events TrainStarted and TrainFinished, and
    transfers the checkpoints of the command. The command is split into words as a shell does it, and runs without a
    shell. An exit code of the command other than 0 says that the training failed.
    """
    from flavor.edge.agent import Stopped, take_part
    from flavor.edge.config import EdgeConfig, default_key
    from flavor.programs.command import parse_command
    from flavor.records.names import checked_name
    from flavor.script_settings import checked_pattern
    from flavor.stamp import with_times
    from flavor.view.blocked import noting
    from flavor.view.observer import Lines

    if join:
        identity = _joined(join, workspace, store)
    else:
        identity = _Identity(
            checked_name(needed(run, "--run", "FLAVOR_RUN"), "run"),
            checked_name(client or socket.gethostname(), "client"),
            needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL"),
            store,
            (),
        )
    run, client = identity.run, identity.client
    uploads = (workspace or _workspace(run, client)).absolute() / "uploads"
    config = EdgeConfig(
        run=run,
        client=client,
        redis_url=identity.address,
        store=identity.store,
        store_settings=replace(store_settings(), uploads=uploads),
        command=tuple(parse_command(main_command, "-m")),
        preprocess=tuple(parse_command(preprocess_command, "-p")) if preprocess_command else None,
        evaluator=tuple(parse_command(evaluate_command, "-e")) if evaluate_command else None,
        workspace=workspace or _workspace(run, client),
        trust=(*trust, *identity.trust),
        key=key or default_key(client, workspace, _workspace(run, client), os.environ),
        input=input_path,
        format=Format(format_) if format_ else None,
        opaque=opaque,
        checkpoint=checkpoint,
        allow_set=tuple(checked_pattern(pattern) for pattern in allow_set),
        strip_prefix=strip_prefix,
        report_output=report_output,
        report=not no_report,
        share_log=share_log,
        patience_s=patience_s,
        join_timeout_s=join_timeout_s,
        grace_s=grace_s,
        journal=Path(journal) if (journal := os.environ.get("FLAVOR_JOURNAL")) else None,
    )
    raise_on_sigterm(Stopped)
    with_times()
    tell = teller(f"[{client}] flavor: ")
    try:
        take_part(config, observer=noting(os.environ, Lines(tell)))
    except (Stopped, KeyboardInterrupt) as stopped:
        tell("stopped; started again with the same command, it joins the round that is open then")
        raise (Terminated if isinstance(stopped, Stopped) else stopped) from None


@dataclass(frozen=True)
class _Identity:
    """The client and the run of this edge, and the addresses of Redis and the store."""

    run: str
    client: str
    address: str = field(repr=False)
    store: str | None
    trust: tuple[str, ...]


def _joined(text: str, workspace: Path | None, store: str | None) -> _Identity:
    """Read a join token, which has priority over the environment. Options that contradict the token are refused.

    The store and the CA are exceptions: for them, options and the environment have priority over the token.
    """
    from flavor.bus.address import bus_address
    from flavor.bus.token import JoinToken
    from flavor.errors import InvalidSetting
    from flavor.store.url import folder_of

    token = JoinToken.parse(text)
    os.environ.pop(JOIN_VARIABLE, None)  # its own processes are given what they need of it
    context = click.get_current_context()
    given = {
        name: context.params[name]
        for name in ("run", "client", "redis_url")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if "redis_url" in given:
        raise InvalidSetting("--redis-url and --join exclude each other: the token names the bus")
    for name, value in given.items():
        if value != getattr(token, name):
            raise InvalidSetting(f"--{name} {value}: the join token is for {name} {getattr(token, name)!r}")
    folder = folder_of(token.store) if token.store and not store else None
    if folder and not os.path.isabs(folder) and not os.path.isdir(folder):
        raise InvalidSetting(
            f"the join token names the store {folder!r}, a relative path, and there is no folder "
            f"{os.path.abspath(folder)!r} here: name the store's folder with --store, or let the operator enroll this "
            "site again with an absolute path"
        )
    tls = {name: context.params[name] for name in ("tls_ca", "tls_cert", "tls_key", "insecure")}
    if token.ca is not None and not tls["tls_ca"]:
        tls["tls_ca"] = _kept_ca(token.ca, workspace or _workspace(token.run, token.client))
    return _Identity(
        token.run, token.client, bus_address(token.credentials(), **tls), store or token.store, token.trust or ()
    )


def _kept_ca(pem: str, workspace: Path) -> str:
    """Write the CA of the token into a file for this process and its trainer, and return the path."""
    from flavor.atomic import write_whole
    from flavor.errors import InvalidSetting
    from flavor.ownfolder import make_own_folder

    make_own_folder(workspace, mode=0o700)
    path = workspace.absolute() / "ca.pem"
    try:
        write_whole(path, pem)
    except OSError as error:
        raise InvalidSetting(f"{path}: the token's CA cannot be written: {error.strerror}: see --workspace") from None
    return str(path)


def _workspace(run: str, client: str) -> Path:
    return Path("flavor-work") / run / client


def main() -> None:
    """Entry point."""
    keep_private()
    run_program(command, "flavor-fl")


if __name__ == "__main__":
    main()
