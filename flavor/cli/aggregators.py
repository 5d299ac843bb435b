"""`flavor aggregators`: the rules there are."""

from __future__ import annotations

import json

import click

from flavor.cli.common import one_line_errors

_TITLES = {
    "alias": "Aggregators with a server step of their own",
    "reducer": "Aggregators",
    "server step": "Server steps",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@one_line_errors
def aggregators(as_json: bool) -> None:
    """List the rules that --aggregator and --server-step take: usage, what it does, source, conditions.

    n is the number of updates in a round, f how many of them may be bad. Square brackets mark options that have a
    default. More come from packages with an entry point in the group `flavor.aggregators`.
    """
    from aggregators.registry import catalogue

    entries = catalogue()
    if as_json:
        fields = ("name", "kind", "usage", "description", "source", "condition")
        click.echo(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries], indent=2))
        return
    for kind, title in _TITLES.items():
        click.secho(f"{title}:", bold=True)
        for entry in entries:
            if entry.kind == kind:
                click.echo(f"  {entry.usage}\n      {entry.description}; {entry.source}; needs: {entry.condition}")
