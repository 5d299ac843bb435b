"""`flavor store`: what the object store must be set up with."""

from __future__ import annotations

import json

import click

from flavor.cli.options import needed, store_option
from flavor.cli.program import one_line_errors


@click.group()
def store() -> None:
    """Set up the object store."""


@store.command()
@click.argument("run")
@click.argument("site")
@click.option("--records", is_flag=True, help="Let the site read the run's manifests, too, which name all sites.")
@store_option
@one_line_errors
def policy(run: str, site: str, records: bool, store: str | None) -> None:
    """Print the policy (AWS IAM, JSON) of a site's credentials for the bucket given by --store.

    It reads the run's global models and writes its own folder, and nothing of another run or site.
    """
    from flavor.store.policy import site_policy

    url = needed(store, "--store", "FLAVOR_STORE")
    click.echo(json.dumps(site_policy(url, run, site, records=records), indent=2))
