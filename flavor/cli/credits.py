"""`flavor credits`: show how many examples each client has contributed to a run."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import opened_run, store_of_run
from flavor.cli.options import redis_option, store_option, store_settings, store_url
from flavor.cli.output import cell
from flavor.cli.program import one_line_errors
from flavor.errors import StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from flavor.bus.runs import RunStore
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
    """Show how many examples each client has put into a run.

    Counts the updates that were aggregated, each by the datasetSize in its client information. Where the rule left
    updates out, as Krum does, a column says which updates entered the model. RUN is the name of a run on Redis. FOLDER
    is the result folder of `flavor run`, which needs no --redis-url. --store is needed only when Redis no longer has
    the verdicts of the run.
    """
    with opened_run(run, redis_url) as found_run:
        run = found_run.run
        found = _contributions(found_run.runs, store_url(store, found_run.store))
    if as_json:
        click.echo(json.dumps(_as_json(run, found), indent=2))
    elif not found:
        click.echo(f"run {run} has no closed round yet: no client has credits")
    else:
        from rich.console import Console

        Console(highlight=False, markup=False, emoji=False).print(_rounds(found) if by_round else _totals(found))


def _contributions(runs: RunStore, store: str | None) -> list[Contribution]:
    from flavor.credits import contributions
    from flavor.store.open import open_store

    if store:
        return contributions(runs, open_store(store, settings=store_settings()))
    try:
        return contributions(runs)
    except StoreError:
        return contributions(runs, open_store(store_of_run(runs.run, runs.read().config), settings=store_settings()))


def _as_json(run: str, found: list[Contribution]) -> dict[str, object]:
    from flavor.credits import CreditBook

    rounds: dict[int, list[Contribution]] = {}
    for one in found:
        rounds.setdefault(one.round, []).append(one)
    listed = [{"round": number, **_round_as_json(parts)} for number, parts in rounds.items()]
    return {"run": run, "credits": CreditBook.of(found).totals(), "rounds": listed}


def _round_as_json(parts: list[Contribution]) -> dict[str, object]:
    """Samples by client; `chosen` only where the rule left contributors out, `staleness` where an update is stale."""
    found: dict[str, object] = {"samples": {one.client: one.samples for one in parts}}
    chosen = [one.client for one in parts if one.in_model]
    if len(chosen) < len(parts):
        found["chosen"] = chosen
    if stale := {one.client: one.staleness for one in parts if one.staleness}:
        found["staleness"] = stale
    return found


def _totals(found: list[Contribution]) -> Table:
    from flavor.credits import CreditBook

    rounds = Counter(one.client for one in found)
    in_model = Counter(one.client for one in found if one.in_model)
    totals = CreditBook.of(found).totals()
    everything = sum(totals.values()) or 1
    shows_choice = in_model != rounds
    table = _table("client", "rounds", *(["in model"] if shows_choice else []), "examples", "share")
    for client, samples in totals.items():
        choice = [f"{in_model[client]}"] if shows_choice else []
        table.add_row(cell(client), f"{rounds[client]}", *choice, f"{samples}", f"{samples / everything:.1%}")
    return table


def _rounds(found: list[Contribution]) -> Table:
    shows_choice = not all(one.in_model for one in found)
    shows_staleness = any(one.staleness for one in found)
    further = [*(["in model"] if shows_choice else []), *(["staleness"] if shows_staleness else [])]
    table = _table("client", "round", *further, "examples")
    for one in found:
        choice = ["yes" if one.in_model else "no"] if shows_choice else []
        stale = [f"{one.staleness}"] if shows_staleness else []
        table.add_row(cell(one.client), f"{one.round}", *choice, *stale, f"{one.samples}")
    return table


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(first, box=None, header_style="bold")
    for name in others:
        table.add_column(name, justify="right")
    return table
