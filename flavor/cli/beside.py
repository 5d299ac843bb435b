"""The page that `flavor run --ui` and `flavor demo --ui` show beside their run."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flavor.bus.variables import UI_TOKEN_VARIABLE
from flavor.cli.program import Terminated, fail
from flavor.cli.tokens import read_token, taken_out
from flavor.errors import MisuseError
from flavor.page.server import (
    PORT,
    Place,
    bound,
    check_installed,
    open_browser,
    opens_a_browser,
)

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.local.federation import Federation
    from flavor.store.protocol import ObjectStore

_HOST = "127.0.0.1"
_END_S = 5.0


def ui_option(function: Any) -> Any:
    """Add `--ui` and `--token`. The command gets them as `with_page` and `ui_token`."""

    def check(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
        """End with an error for a token on the command line that no page would ask for; a variable is for all runs."""
        if not value and context.get_parameter_source("ui_token") is ParameterSource.COMMANDLINE:
            fail(MisuseError("--token is for the page of --ui: pass --ui as well, or leave --token out"))
        return value

    for option in (
        click.option(
            "--token",
            "ui_token",
            envvar=UI_TOKEN_VARIABLE,
            show_envvar=True,
            metavar="TOKEN",
            callback=taken_out(UI_TOKEN_VARIABLE),
            is_eager=True,  # --ui looks whether it is given
            help="Token that the page of --ui asks each browser for, or @FILE for a file that has it.",
        ),
        click.option(
            "--ui",
            "with_page",
            is_flag=True,
            callback=check,
            help="Show the run in your browser while it goes on. In a terminal, its page then stays until Ctrl-C; "
            "elsewhere it ends with the run. `flavor ui FOLDER` shows it again.",
        ),
    ):
        function = option(function)
    return function


class PageBeside:
    """The page of a local run: while the run goes on, and afterwards for as long as somebody sits at the terminal."""

    def __init__(
        self, with_page: bool, token: str | None, tell: Callable[[str], None], *, stays: bool | None = None
    ) -> None:
        """Prepare a page, if `with_page`; `tell` prints its address.

        `stays` says whether it stays when its run has ended; None: where there is a terminal. Raises `MisuseError`
        where the packages of the page are not installed, and `InvalidSetting` for a token that is none.
        """
        self._tell, self._stays = tell, stays if stays is not None else _is_terminal()
        self._token = read_token(token, UI_TOKEN_VARIABLE) if with_page else None
        self._with_page = with_page
        self._place: Place | None = None
        self._run = self._shown = ""
        self._redis_url: str | None = None
        self._store: str | None = None
        if with_page:
            check_installed()

    def added(self, federation: Federation) -> Federation:
        """Return a federation that shows its run beside it."""
        if not self._with_page:
            return federation
        self._run, self._redis_url = federation.run, federation.redis_url
        self._shown = federation.run if federation.redis_url else str(federation.layout.out)
        return replace(federation, beside=self._beside)

    @contextlib.contextmanager
    def _beside(self, runs: RunStore, url: str, store: ObjectStore) -> Iterator[None]:
        self._place = place = bound(_HOST, PORT, token=self._token, or_free=True)
        self._store, over = store.url, threading.Event()
        folder = "" if self._redis_url else self._shown
        arguments = (runs.run, url, store.url, folder, place.again(), self._token, over, self._tell)
        thread = threading.Thread(target=_show, args=arguments, name="page-run", daemon=True)
        thread.start()
        self._tell(f"the page of this run: {self._address}{' (it asks for its token)' if self._token else ''}")
        if opens_a_browser():
            open_browser(self._address)
        stays = False
        try:
            yield
            stays = self._stays
        finally:
            over.set()
            thread.join(_END_S)
            if not stays:
                self._end()

    @contextlib.contextmanager
    def staying(self) -> Iterator[None]:
        """Show the run that has ended within the context, and from its end on until Ctrl-C, if the page is to stay."""
        from flavor.errors import FlavorError

        if self._place is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            ended: threading.Event | None = None
            try:
                ended = self._shown_again(self._place, stack)
            except FlavorError as error:
                self._tell(f"the page cannot stay: {error}")
            yield
            if ended is not None:
                self._tell(f"the run has ended; its page stays at {self._address} until Ctrl-C")
                with contextlib.suppress(KeyboardInterrupt, Terminated):  # the run's exit code stays
                    ended.wait()

    def _shown_again(self, place: Place, stack: contextlib.ExitStack) -> threading.Event:
        from flavor.cli.ui import followed

        found = stack.enter_context(followed(self._shown, self._redis_url, self._store, self._tell))
        return stack.enter_context(found.at(place, self._token))

    @property
    def _address(self) -> str:
        return f"{self._place.address}run/{self._run}" if self._place else ""

    def _end(self) -> None:
        if self._place is None:
            return
        self._place.socket.close()
        self._place = None
        again = shlex.join(["flavor", "ui", self._shown]) + (" --redis-url URL" if self._redis_url else "")
        self._tell(f"the page has ended; to see it again: {again}")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _show(
    run: str,
    url: str,
    store: str,
    folder: str,
    place: Place,
    token: str | None,
    over: threading.Event,
    tell: Callable[[str], None],
) -> None:
    """Show a run until it is over. A page that cannot be shown is said, and neither delays nor ends the run."""
    try:
        from flavor.page.shown import shown_run
        from flavor.view.board import Board

        with (
            Board(url, store=store, runs=[run], folder=folder) as board,
            shown_run(url, board, place, run, token=token),
        ):
            over.wait()
    except Exception as error:
        tell(f"the page cannot be shown: {type(error).__name__}: {error}")
    finally:
        place.socket.close()
