"""`flavor aggregators`: list the aggregation rules and server steps."""

from __future__ import annotations

import json

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.program import one_line_errors

_TITLES = {
    "alias": "Aggregators with a server step of their own",
    "reducer": "Aggregators",
    "server step": "Server steps",
    "unusable": "Installed, and cannot be used",
}


@click.command(cls=GroupedCommand, example="flavor aggregators")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list in place of text.")
@one_line_errors
def aggregators(as_json: bool) -> None:
    """List the rules that --aggregator and --server-step take.

    Shows the usage, effect, source and conditions of each rule: n is the number of updates in a round, f is the number
    of updates that may be bad. Square brackets mark options with a default. Installed packages add rules by the entry
    point group `flavor.aggregators`; see docs/aggregation.md.
    """
    from aggregators.registry import catalogue

    entries = catalogue()
    if as_json:
        fields = ("name", "kind", "usage", "description", "source", "condition")
        click.echo(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries], indent=2))
        return
    for kind, title in _TITLES.items():
        listed = [entry for entry in entries if entry.kind == kind]
        if listed:
            click.secho(f"{title}:", bold=True)
        for entry in listed:
            needs = f"; needs: {entry.condition}" if entry.condition else ""
            click.echo(f"  {entry.usage}\n      {entry.description}; {entry.source}{needs}")
