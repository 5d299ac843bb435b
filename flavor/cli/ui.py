"""`flavor ui`: show runs in a browser, live."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flavor.bus.variables import UI_TOKEN_VARIABLE
from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import PATIENCE_S, connected_to_all, opened_run
from flavor.cli.options import redis_option, start_patience_option, store_option, store_url
from flavor.cli.output import teller
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm
from flavor.cli.tokens import read_token, taken_out
from flavor.page.server import PORT, Place, bound, check_installed, open_browser, opens_a_browser

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.view.board import Board

_LOOK_S = 1.0


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
    envvar=UI_TOKEN_VARIABLE,
    show_envvar=True,
    metavar="TOKEN",
    callback=taken_out(UI_TOKEN_VARIABLE),
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
@start_patience_option
@one_line_errors
def ui(
    run: str | None,
    host: str,
    port: int,
    token: str | None,
    opens: bool | None,
    redis_url: str | None,
    store: str | None,
    patience_s: float,
) -> None:
    """Show runs in a browser, live.

    Without RUN, the page shows all runs on Redis; with RUN, that one alone. FOLDER is the result folder of `flavor
    run`, which needs no --redis-url. The page changes nothing. Ctrl-C ends it. docs/see-a-run.md says how others can
    see it, too.
    """
    check_installed()
    secret, tell = read_token(token, UI_TOKEN_VARIABLE), teller("flavor: ")
    raise_on_sigterm()
    place = bound(host, port, token=secret)
    with contextlib.closing(place.socket), contextlib.suppress(KeyboardInterrupt, Terminated):  # told to end: code 0
        tells = True
        while True:
            with (
                followed(run, redis_url, store, tell, patience_s=patience_s) as shown,
                shown.at(place, secret) as ended,
            ):
                address = f"{place.address}run/{shown.name}" if shown.name else place.address
                if tells:
                    tell(f"the page is at {address} (Ctrl-C ends it)")
                if tells and (opens or (opens is None and opens_a_browser())):
                    open_browser(address)
                tells = False
                while not ended.wait(_LOOK_S) and not shown.is_left():
                    pass
                if ended.is_set():
                    raise RuntimeError("the page's server has ended by itself")  # a fault of this program
    tell("the page has ended")


@dataclass(frozen=True)
class Shown:
    """What a page shows: all runs on a Redis, or one of them."""

    url: str = field(repr=False)
    board: Board
    name: str
    """The run; '' for all."""
    borrowed: Path | None
    """The folder of a local run whose `flavor run` goes on: the server is its own, and ends with it."""

    @contextlib.contextmanager
    def at(self, place: Place, token: str | None) -> Iterator[threading.Event]:
        """Show it at this place; the event tells that the page's server has ended by itself."""
        from flavor.page.shown import shown_board

        with shown_board(self.url, self.board, place.again(), token=token) as ended:
            yield ended

    def is_left(self) -> bool:
        """Whether the `flavor run` has ended whose server this is, so that the page needs one of its own."""
        from flavor.local.record import is_served

        return self.borrowed is not None and bool(self.board.problem()) and not is_served(self.borrowed)


@contextlib.contextmanager
def followed(
    run: str | None,
    redis_url: str | None,
    store: str | None,
    tell: Callable[[str], None],
    *,
    patience_s: float = PATIENCE_S,
) -> Iterator[Shown]:
    """Follow all runs, or the one that is named."""
    from flavor.local.record import is_folder
    from flavor.view.board import Board

    with contextlib.ExitStack() as stack:
        name, folder, left_in, borrowed = "", "", "", None
        if run is None:
            redis, url = connected_to_all(redis_url, "flavor ui", patience_s=patience_s)
        else:
            opened = stack.enter_context(opened_run(run, redis_url, patience_s=patience_s))
            redis, url, name, store = opened.redis, opened.url, opened.run, store_url(store, opened.store)
            folder = run if is_folder(run) else ""
            left_in = run if opened.is_left else ""
            borrowed = Path(run) if is_folder(run) and not opened.is_left else None
        _check_may_read(redis, url)
        if run is not None:
            opened.runs.read()  # raises RunNotFound
        if run is not None and left_in:
            again = shlex.join(["flavor", "run", "--resume", run])
            tell(f"the page needs the run's own Redis server: press Ctrl-C before you go on with the run ({again})")
        redis.close()
        board = stack.enter_context(
            Board(
                url, store=store, runs=[name] if name else None, left_in=left_in, folder=folder, tells=borrowed is None
            )
        )
        board.runs()  # raises BusUnavailable
        yield Shown(url, board, name, borrowed)


def _check_may_read(redis: Redis, url: str) -> None:
    """Raise `BusUnavailable` for a user of Redis that may not read runs, such as a site's."""
    from redis.exceptions import NoPermissionError

    from flavor.bus.connection import shown
    from flavor.bus.runs import list_runs
    from flavor.errors import BusUnavailable

    try:
        list_runs(redis, url)
    except BusUnavailable as error:
        if not isinstance(error.__cause__, NoPermissionError):
            raise
        raise BusUnavailable(
            f"Redis at {shown(url)}: the user of this URL may not look at runs: an administrator makes one that may, "
            "and may do nothing else, with `flavor enroll --viewer NAME`"
        ) from None
