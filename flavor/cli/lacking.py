"""Looks, for a command, whether the store has more of a run than Redis, which came back empty or older."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from flavor.cli.options import store_settings, store_url
from flavor.errors import FlavorError, RunNotFound
from flavor.view.lacking import what_is_lacking

if TYPE_CHECKING:
    from flavor.bus.runs import RunStore
    from flavor.records.run import RunView
    from flavor.store.protocol import ObjectStore


def named_or_own_store(of_folder: str | None, of_run: str | None = None) -> ObjectStore | None:
    """Open a store for a short look: that of --store, a result folder's own, FLAVOR_STORE's or that of the run."""
    from flavor.store.brief import BriefStore

    named = store_url(click.get_current_context().params.get("store"), of_folder)
    url = named or os.environ.get("FLAVOR_STORE") or of_run
    if url:
        with contextlib.suppress(FlavorError, OSError):
            return BriefStore(url, settings=store_settings()).store
    return None


@contextlib.contextmanager
def naming_recover(runs: Callable[[], RunStore], of_folder: str | None = None) -> Iterator[None]:
    """Let a `RunNotFound` of the body name `flavor recover` too, if the store is known and holds the run."""
    try:
        yield
    except RunNotFound as error:
        lacking = what_is_lacking(runs(), named_or_own_store(of_folder))
        raise RunNotFound(f"{error}; {lacking}") if lacking else error from None


def read_run(runs: RunStore) -> RunView:
    """Read the run of a command; see `naming_recover`."""
    with naming_recover(lambda: runs):
        return runs.read()
