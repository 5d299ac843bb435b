"""`flavor ui`: show runs in a browser, live."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected, opened_run
from flavor.cli.options import redis_option, store_option
from flavor.cli.output import teller
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm
from flavor.cli.tokens import read_token
from flavor.page.server import PORT, TOKEN_VARIABLE, bound, check_installed, open_browser, opens_a_browser

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.view.board import Board


@click.command(
    cls=GroupedCommand,
    example="flavor ui flavor-runs/mammo\nflavor ui --redis-url redis://localhost",
)
@click.argument("run", metavar="[RUN|FOLDER]", required=False)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine to listen on. An address that other machines can reach needs --token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; 0 for any free one.",
)
@click.option(
    "--token",
    envvar=TOKEN_VARIABLE,
    show_envvar=True,
    metavar="TOKEN",
    help="Token that the page asks each browser for, or @FILE for a file that has it.",
)
@click.option(
    "--open/--no-open",
    "opens",
    default=None,
    help="Open the page in your browser, or leave that to you.  [default: open it where there is a display]",
)
@redis_option
@store_option
@one_line_errors
def ui(
    run: str | None,
    host: str,
    port: int,
    token: str | None,
    opens: bool | None,
    redis_url: str | None,
    store: str | None,
) -> None:
    """Show runs in a browser, live.

    Without RUN, the page shows all runs on Redis; with RUN, that one alone. FOLDER is the result folder of `flavor
    run`, which needs no --redis-url. The page changes nothing. Ctrl-C ends it. docs/see-a-run.md says how others can
    see it, too.
    """
    check_installed()
    from flavor.page.shown import shown_board

    secret, tell = read_token(token, TOKEN_VARIABLE), teller("flavor: ")
    raise_on_sigterm()
    place = bound(host, port, token=secret)
    with contextlib.closing(place.socket), _followed(run, redis_url, store, tell) as (url, board, name):
        with shown_board(url, board, place, token=secret) as ended:
            address = f"{place.address}run/{name}" if name else place.address
            tell(f"the page is at {address} (Ctrl-C ends it)")
            if opens or (opens is None and opens_a_browser()):
                open_browser(address)
            with contextlib.suppress(KeyboardInterrupt, Terminated):  # told to end, as a service: exit code 0
                ended.wait()
                raise RuntimeError("the page's server has ended by itself")  # a fault of this program
        tell("the page has ended")


@contextlib.contextmanager
def _followed(
    run: str | None, redis_url: str | None, store: str | None, tell: Callable[[str], None]
) -> Iterator[tuple[str, Board, str]]:
    """Follow all runs, or the one that is named: the URL of its Redis, its board, and its name or ''."""
    from flavor.bus.connection import shown
    from flavor.local.record import is_folder
    from flavor.view.board import Board

    with contextlib.ExitStack() as stack:
        if run is None:
            redis, url = connected(redis_url)
            name, left_in = "", ""
        else:
            opened = stack.enter_context(opened_run(run, redis_url))
            redis, url, name, store = opened.redis, opened.url, opened.run, store or opened.store
            left_in = run if opened.is_left else ""
        _check_may_read(redis, shown(url))
        if run is not None:
            opened.runs.read()  # raises RunNotFound
        if run is not None and left_in and is_folder(run):
            tell(f"end this page before you go on with the run (`flavor run --resume {shlex.quote(run)}`)")
        redis.close()
        board = stack.enter_context(Board(url, store=store, runs=[name] if name else None, left_in=left_in))
        board.runs()  # raises BusUnavailable
        yield url, board, name


def _check_may_read(redis: Redis, where: str) -> None:
    """Raise `BusUnavailable` for a user of Redis that may not read runs, such as a site's."""
    from redis.exceptions import NoPermissionError

    from flavor.bus.connection import translated
    from flavor.bus.keys import RUNS
    from flavor.errors import BusUnavailable

    with translated(where):
        try:
            redis.zcard(RUNS)
        except NoPermissionError:
            raise BusUnavailable(
                f"Redis at {where}: the user of this URL may not look at runs: an administrator makes one that may, "
                "and may do nothing else, with `flavor enroll --viewer NAME`"
            ) from None
