"""The options of commands that send notices about their run, and the notices of a local run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from flavor.bus.variables import NOTIFY_VARIABLE
from flavor.cli.tokens import taken_out
from flavor.notices import AFTER_S

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.local.federation import Federation
    from flavor.store.protocol import ObjectStore


class _Urls(click.types.StringParamType):
    """A URL of apprise, or a file with URLs. The variable has one on each line, or several with spaces between them."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Split the variable's value."""
        return [line for line in rv.splitlines() if line.strip()] if "\n" in rv else rv.split()


def notify_options(function: Any) -> Any:
    """Add `--notify` and `--notify-after-s`. The command gets the URLs, which are secret, as `notify`."""

    for option in (
        click.option(
            "--notify-after-s",
            type=click.FloatRange(min=1),
            default=AFTER_S,
            show_default=True,
            help="Seconds that a run waits for what may not come by itself until a message says so.",
        ),
        click.option(
            "--notify",
            type=_Urls(),
            multiple=True,
            metavar="URL",
            envvar=NOTIFY_VARIABLE,
            show_envvar=True,
            callback=taken_out(NOTIFY_VARIABLE),
            help="Send a message there when the run ends or waits for long, and when a site is gone, refused or "
            "quarantined: slack://, mailto://, json:// and others of the package apprise; @FILE reads URLs from FILE. "
            "May be repeated.",
        ),
    ):
        function = option(function)
    return function


def with_notices(
    federation: Federation, notify: Sequence[str], after_s: float, tell: Callable[[str], None]
) -> Federation:
    """Return a federation that sends notices about its run, beside what it does already.

    Raises `InvalidSetting` for a URL that cannot be used, before anything is started.
    """
    if not notify:
        return federation
    from flavor.notices.destination import destinations
    from flavor.notices.following import following

    places, before = destinations(notify, tell), federation.beside

    @contextlib.contextmanager
    def beside(runs: RunStore, url: str, store: ObjectStore) -> Iterator[None]:
        with before(runs, url, store), following(runs, url, places, after_s=after_s, tell=tell):
            yield

    tell(f"notices go by {', '.join(place.name for place in places)}")
    return replace(federation, beside=beside)
