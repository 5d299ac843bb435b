"""What all commands share: options, errors as one line, exit codes.

Exit codes, of every program: 0 done, which an aggregator is when it is told to end; 1 the run or the check failed; 2
wrong use, which a full disk or a mount that gives errors is not; 3 Redis cannot be reached; 4 a wait timed out; 5 the
trainer failed; 6 (`flavor event wait` only) the run is finished; 7 the run finished early, because its trainers (for
`flavor-fl` also: its own) were done before all its rounds were; 8 the run was stopped by an operator; 130
interrupted, 143 terminated, with something left to do.
"""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from flavor import __version__
from flavor.bus.address import INSECURE_VARIABLE, bus_address
from flavor.bus.connection import PATIENCE_S, bus_error
from flavor.bus.variables import URL_VARIABLE
from flavor.disk import is_of_the_machine
from flavor.errors import FlavorError, MisuseError, RunEnding
from flavor.printable import printable
from flavor.say import say
from flavor.signals import raise_in_main
from flavor.stamp import stamp

Command = TypeVar("Command", bound=Callable[..., Any])

_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_OF_ADDRESS = ("tls_ca", "tls_cert", "tls_key", "insecure")
EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong use, 3 no Redis, 4 timed out, 5 trainer failed, 7 finished early, "
    "8 stopped, 130 interrupted, 143 terminated."
)


class Terminated(BaseException):
    """SIGTERM has arrived."""


def one_line_errors(function: Command) -> Command:
    """Turn this project's errors into one line on stderr and their exit code; `--debug` adds the trace."""

    @click.option("--debug", is_flag=True, help="Show the trace of an error.")
    @functools.wraps(function)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        import redis

        try:
            return function(*args, **_with_address(kwargs))
        except FlavorError as error:
            fail(error, debug)
        except redis.exceptions.RedisError as error:
            fail(bus_error(error, "the given URL"), debug)
        except OSError as error:
            if error.errno not in _UNWRITTEN or error.filename is not None:
                raise
            fail(FlavorError(f"the output could not be written: {error.strerror}"), debug)
        except KeyboardInterrupt:
            say(f"{stamp()}flavor: interrupted")
            sys.exit(130)
        except Terminated:
            say(f"{stamp()}flavor: terminated")
            sys.exit(143)

    return wrapped  # type: ignore[return-value]


def run_program(command: click.Command, name: str) -> NoReturn:
    """Run a program to its exit code; an interruption ends each in the same way, wherever it comes.

    A letter that the terminal's encoding lacks, in a metric's name say, is replaced and ends nothing. Nor does a stderr
    that was closed before.
    """
    atexit.register(gc.freeze)  # nothing is looked for among all that was imported: a fifth of a short command's time
    if sys.stderr is None:  # type: ignore[unreachable,unused-ignore]
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say(f"{stamp()}flavor: interrupted")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: FlavorError, debug: bool = False) -> None:
    """Print `error` as one line and exit with its code: 1 for wrong use that is none, as the machine is to blame."""
    if debug:
        say(traceback.format_exc(), end="")
    kind = "flavor" if isinstance(error, RunEnding) else "Error"
    say(f"{stamp()}{kind}: {printable(' '.join(str(error).split()))}")
    sys.exit(1 if error.exit_code == 2 and is_of_the_machine(error) else error.exit_code)


def raise_on_sigterm(kind: type[BaseException] = Terminated) -> None:
    """Make SIGTERM end the program through its `finally` clauses, as Ctrl-C does; see `flavor.signals`."""
    raise_in_main(kind)


def version_option(function: Command) -> Command:
    """`--version`."""
    return click.version_option(__version__, prog_name="flavor")(function)


def redis_option(function: Command) -> Command:
    """`--redis-url` and what belongs to it; the command gets all of it as `redis_url`, from `bus_address`."""
    for option in (
        click.option(
            "--insecure",
            is_flag=True,
            envvar=INSECURE_VARIABLE,
            show_envvar=True,
            help="Allow redis:// to another machine: whoever is in between reads the password.",
        ),
        click.option(
            "--tls-key", metavar="FILE", envvar="FLAVOR_TLS_KEY", show_envvar=True, help="The key of --tls-cert (PEM)."
        ),
        click.option(
            "--tls-cert",
            metavar="FILE",
            envvar="FLAVOR_TLS_CERT",
            show_envvar=True,
            help="Our own certificate, for a server that wants one (PEM).",
        ),
        click.option(
            "--tls-ca",
            metavar="FILE",
            envvar="FLAVOR_TLS_CA",
            show_envvar=True,
            help="The CA that signed the server's certificate (PEM).  [default: the system's]",
        ),
        click.option(
            "--redis-url",
            envvar=URL_VARIABLE,
            show_envvar=True,
            metavar="URL",
            help="The bus: rediss:// (TLS), redis:// (this machine only) or unix:// URL.",
        ),
    ):
        function = option(function)
    return function


def _with_address(options: dict[str, Any]) -> dict[str, Any]:
    """A command's options with the bus's whole address for `redis_url`; those of other commands as they are."""
    if "tls_ca" not in options:
        return options
    given = {name: options[name] for name in _OF_ADDRESS}
    url = None if options.get("join") else options.get("redis_url")  # a join token names the bus itself
    others = {name: value for name, value in options.items() if name not in _OF_ADDRESS}
    return {**others, "redis_url": bus_address(url, **given) if url else None}


def store_option(function: Command) -> Command:
    """`--store`, and where files of a remote one are kept: `--store-cache`, `--store-cache-size`."""

    def choose(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        from dataclasses import replace

        from flavor.sizes import parse_size
        from flavor.store.cache import cache_settings, set_cache

        if value is not None and parameter.name == "store_cache":
            set_cache(replace(cache_settings(), folder=value))
        elif value is not None:
            try:
                set_cache(replace(cache_settings(), size_bytes=parse_size(value, "--store-cache-size")))
            except MisuseError as error:
                fail(error)

    for option in (
        click.option(
            "--store-cache-size",
            envvar="FLAVOR_STORE_CACHE_SIZE",
            show_envvar=True,
            metavar="SIZE",
            callback=choose,
            expose_value=False,
            help="How much of it; what was not used for longest goes.  [default: 16GiB]",
        ),
        click.option(
            "--store-cache",
            envvar="FLAVOR_STORE_CACHE",
            show_envvar=True,
            type=click.Path(file_okay=False, path_type=Path),
            callback=choose,
            expose_value=False,
            help="Where files of a remote store are kept on this machine.  [default: ~/.cache/flavor]",
        ),
        click.option(
            "--store",
            envvar="FLAVOR_STORE",
            show_envvar=True,
            metavar="URL",
            help="The object store: a folder that coordinator, aggregators and edges all reach, or s3://BUCKET/PREFIX "
            "(gs://, az://), with endpoint and credentials from AWS_* as usual.",
        ),
    ):
        function = option(function)
    return function


def run_option(function: Command) -> Command:
    """`--run`."""
    return click.option(
        "--run", envvar="FLAVOR_RUN", show_envvar=True, metavar="RUN", required=True, help="Name of the run."
    )(function)


def patience_option(function: Command) -> Command:
    """`--patience-s`, of the bus and of a remote store."""

    def choose(context: click.Context, parameter: click.Parameter, value: float) -> float:
        from flavor.store.bucket import set_patience

        set_patience(value)
        return value

    return click.option(
        "--patience-s",
        envvar="FLAVOR_PATIENCE_S",
        show_envvar=True,
        type=click.FloatRange(min=0),
        default=PATIENCE_S,
        show_default=True,
        callback=choose,
        help="How long to wait for a Redis or a remote store that does not answer.",
    )(function)


def needed(value: str | None, option: str, variable: str) -> str:
    """`value`, or `MisuseError` that names the option and its variable."""
    if not value and variable in os.environ:
        raise MisuseError(f"{variable} is set, and empty: set it to what {option} takes, or pass {option}")
    if not value:
        raise MisuseError(f"no {option} is given: pass {option} or set {variable}")
    return value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, of what others wrote as well: each cell whole, and one line.

    No word is cut to fit a width: the last column may be long, and a terminal breaks its line.
    """
    from rich.cells import cell_len

    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *lines, strict=True)]
    for number, line in enumerate([list(columns), *lines]):
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        click.secho("  ".join(padded).rstrip(), bold=True if number == 0 else None)


def teller(prefix: str) -> Callable[[str], None]:
    """A function that says a line to the user, with the time in a program that runs for long."""

    def tell(line: str) -> None:
        say(f"{stamp()}{prefix}{printable(line)}")

    return tell
