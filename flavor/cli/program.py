"""Runs a program: prints errors as one line, chooses the exit code, and ends on a signal."""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from flavor import failpoints
from flavor.cli.address import with_address
from flavor.disk import is_of_the_machine
from flavor.errors import FlavorError, RunEnding
from flavor.exit_codes import ExitCode
from flavor.printable import printable
from flavor.say import say
from flavor.signals import raise_in_main
from flavor.stamp import stamp

if TYPE_CHECKING:
    from redis.exceptions import RedisError

Command = TypeVar("Command", bound=Callable[..., Any])

_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Terminated(BaseException):
    """SIGTERM has arrived."""


def one_line_errors(function: Command) -> Command:
    """Turn this project's errors into one line on stderr and an exit code; `--debug` adds the traceback."""

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        try:
            return function(*args, **with_address(kwargs))
        except FlavorError as error:
            fail(error, debug)
        except _redis_errors() as error:
            from flavor.bus.connection import bus_error

            fail(bus_error(error, "the given URL"), debug)
        except OSError as error:
            if error.errno not in _UNWRITTEN or error.filename is not None:
                raise
            fail(FlavorError(f"the output could not be written: {error.strerror}"), debug)
        except KeyboardInterrupt:
            say(f"{stamp()}flavor: interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        except Terminated:
            say(f"{stamp()}flavor: terminated")
            sys.exit(ExitCode.TERMINATED)

    return wrapped  # type: ignore[return-value]


def _redis_errors() -> tuple[type[RedisError], ...]:
    """Return the root of redis-py's errors; nothing in a program that has not imported redis."""
    found = sys.modules.get("redis.exceptions")
    return () if found is None else (found.RedisError,)


def run_program(command: click.Command, name: str) -> NoReturn:
    """Run a program and exit with its code. An interruption at any moment ends each program in the same way.

    A character that the terminal's encoding lacks, e.g. in a metric's name, is replaced. A program runs with a closed
    stderr, too.
    """
    failpoints.arm(os.environ)
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
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: FlavorError, debug: bool = False) -> None:
    """Print `error` as one line and exit with its code; with 1 in place of 2 where the machine is the cause."""
    if debug:
        say(traceback.format_exc(), end="")
    kind = "flavor" if isinstance(error, RunEnding) else "Error"
    say(f"{stamp()}{kind}: {printable(' '.join(str(error).split()))}")
    wrong_use = error.exit_code == ExitCode.WRONG_USE
    sys.exit(ExitCode.FAILED if wrong_use and is_of_the_machine(error) else error.exit_code)


def raise_on_sigterm(kind: type[BaseException] = Terminated) -> None:
    """Make SIGTERM end the program through its `finally` clauses, as Ctrl-C does. See `flavor.signals`."""
    raise_in_main(kind)
