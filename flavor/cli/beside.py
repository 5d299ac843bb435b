"""The page that `flavor run --ui` and `flavor demo --ui` show beside their run."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from flavor.page.server import PORT, Place, bound, check_installed, open_browser, opens_a_browser

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.local.federation import Federation
    from flavor.store.protocol import ObjectStore

_HOST = "127.0.0.1"
_END_S = 5.0


def ui_option(function: Any) -> Any:
    """Add `--ui`."""
    return click.option(
        "--ui",
        "with_page",
        is_flag=True,
        help="Show the run in your browser while it goes on. Its page ends with the run; `flavor ui FOLDER` shows it "
        "again.",
    )(function)


def with_beside(federation: Federation, with_page: bool, tell: Callable[[str], None]) -> Federation:
    """Return a federation that shows its run beside it, if `with_page`. `tell` prints the address of the page.

    Raises `MisuseError` where the packages of the page are not installed, before anything is started.
    """
    if not with_page:
        return federation
    check_installed()
    out = federation.layout.out
    again = shlex.join(["flavor", "ui", str(out)] if not federation.redis_url else ["flavor", "ui", federation.run])
    again += " --redis-url URL" if federation.redis_url else ""

    @contextlib.contextmanager
    def page(runs: RunStore, url: str, store: ObjectStore) -> Iterator[None]:
        place = bound(_HOST, PORT, token=None, or_free=True)
        address, over = f"{place.address}run/{runs.run}", threading.Event()
        arguments = (runs.run, url, store.url, place, over, tell)
        thread = threading.Thread(target=_show, args=arguments, name="page-run", daemon=True)
        thread.start()
        tell(f"the page of this run: {address}")
        if opens_a_browser():
            open_browser(address)
        try:
            yield
        finally:
            over.set()
            thread.join(_END_S)
            place.socket.close()
            tell(f"the page has ended with the run; to see it again: {again}")

    return replace(federation, beside=page)


def _show(run: str, url: str, store: str, place: Place, over: threading.Event, tell: Callable[[str], None]) -> None:
    """Show a run until it is over. A page that cannot be shown is said, and neither delays nor ends the run."""
    try:
        from flavor.page.shown import shown_run
        from flavor.view.board import Board

        with Board(url, store=store, runs=[run]) as board, shown_run(url, board, place, run):
            over.wait()
    except Exception as error:
        tell(f"the page cannot be shown: {type(error).__name__}: {error}")
