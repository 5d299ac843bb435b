"""`flavor store`: print what an object store must allow."""

from __future__ import annotations

import json

import click

from flavor.cli.help import ExampleGroup, GroupedCommand
from flavor.cli.options import needed, store_option
from flavor.cli.program import one_line_errors


@click.group(cls=ExampleGroup, example="flavor store policy mammo site-1 --store s3://models/fl")
def store() -> None:
    """Print what a bucket must allow a site."""


@store.command(cls=GroupedCommand, example="flavor store policy mammo site-1 --store s3://models/fl")
@click.argument("run")
@click.argument("site")
@click.option("--records", is_flag=True, help="Also let the site read the manifests of the run, which name all sites.")
@store_option
@one_line_errors
def policy(run: str, site: str, records: bool, store: str | None) -> None:
    """Print the policy (AWS IAM, JSON) for a site's credentials.

    With this policy the site can read the global models of RUN and write its own folder in the bucket given by
    --store. The policy allows no access to other runs or other sites.
    """
    from flavor.store.policy import site_policy

    url = needed(store, "--store", "FLAVOR_STORE")
    click.echo(json.dumps(site_policy(url, run, site, records=records), indent=2))
