"""`flavor credits`: show how many samples each client has contributed to a run."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import click

from flavor.bus.runs import RunStore
from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import opened_run
from flavor.cli.options import redis_option, store_option, store_settings
from flavor.cli.program import one_line_errors
from flavor.errors import StoreError
from flavor.store.open import open_store

if TYPE_CHECKING:
    from rich.table import Table

    from flavor.credits import Contribution


@click.command(
    cls=GroupedCommand,
    example="flavor credits flavor-runs/mammo --by-round\nflavor credits mammo --redis-url redis://localhost",
)
@click.argument("run", metavar="RUN|FOLDER")
@click.option("--by-round", is_flag=True, help="Show one line for each round and client.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with the totals and with every round.")
@redis_option
@store_option
@one_line_errors
def credits(run: str, by_round: bool, as_json: bool, redis_url: str | None, store: str | None) -> None:
    """Show how many samples each client has put into a run.

    Counts the updates that were aggregated, each by the datasetSize in its client information. RUN is the name of a run
    on Redis. FOLDER is the result folder of `flavor run`, which needs no --redis-url. --store is needed only when Redis
    no longer has the verdicts of the run.
    """
    with opened_run(run, redis_url) as found_run:
        run = found_run.run
        found = _contributions(found_run.runs, store or found_run.store)
    if as_json:
        click.echo(json.dumps(_as_json(run, found), indent=2))
    elif not found:
        click.echo(f"run {run} has no closed round yet: no client has credits")
    else:
        from rich.console import Console

        Console(highlight=False, markup=False, emoji=False).print(_rounds(found) if by_round else _totals(found))


def _contributions(runs: RunStore, store: str | None) -> list[Contribution]:
    from flavor.credits import contributions

    if store:
        return contributions(runs, open_store(store, settings=store_settings()))
    try:
        return contributions(runs)
    except StoreError:
        return contributions(runs, open_store(runs.read().config["store"], settings=store_settings()))


def _as_json(run: str, found: list[Contribution]) -> dict[str, object]:
    from flavor.credits import CreditBook

    rounds: dict[int, dict[str, int]] = {}
    for one in found:
        rounds.setdefault(one.round, {})[one.client] = one.samples
    listed = [{"round": number, "samples": samples} for number, samples in rounds.items()]
    return {"run": run, "credits": CreditBook.of(found).totals(), "rounds": listed}


def _totals(found: list[Contribution]) -> Table:
    from flavor.credits import CreditBook

    rounds = Counter(one.client for one in found)
    totals = CreditBook.of(found).totals()
    everything = sum(totals.values()) or 1
    table = _table("client", "rounds", "samples", "share")
    for client, samples in totals.items():
        table.add_row(client, f"{rounds[client]}", f"{samples}", f"{samples / everything:.1%}")
    return table


def _rounds(found: list[Contribution]) -> Table:
    table = _table("client", "round", "samples")
    for one in found:
        table.add_row(one.client, f"{one.round}", f"{one.samples}")
    return table


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(first, box=None, header_style="bold")
    for name in others:
        table.add_column(name, justify="right")
    return table
