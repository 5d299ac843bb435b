"""`flavor certs`: make certificates to try TLS with."""

from __future__ import annotations

from pathlib import Path

import click

from flavor.cli.help import GroupedCommand
from flavor.cli.program import one_line_errors


@click.command(cls=GroupedCommand, example="flavor certs tls --host bus.example.org")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    required=True,
    help="Name or IP address by which clients reach the server. May be repeated.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    default=365,
    show_default=True,
    help="Days for which the certificates are valid.",
)
@click.option("--force", is_flag=True, help="Replace certificates that exist in DIR.")
@one_line_errors
def certs(folder: Path, hosts: tuple[str, ...], days: int, force: bool) -> None:
    """Make certificates to try TLS with.

    Creates a small CA in DIR, with a certificate for the server and one for its clients. The private keys are EC P-256,
    unencrypted, and readable only by their owner. A person who has ca.key can impersonate your server: use the CA of
    your organisation for more than a trial.
    """
    from flavor.certs import make_certificates

    made = make_certificates(folder, hosts, days=days, replace=force)
    for path in made.files:
        click.echo(path)
    server = " ".join(
        [
            f"--tls-cert-file {made.certificate('server')}",
            f"--tls-key-file {made.key('server')}",
            f"--tls-ca-cert-file {made.certificate('ca')}",
        ]
    )
    click.echo(f"server:  redis-server --port 0 --tls-port 6379 {server}", err=True)
    click.echo(
        f"client:  --redis-url rediss://{hosts[0]}:6379 --tls-ca {made.certificate('ca')} "
        f"--tls-cert {made.certificate('client')} --tls-key {made.key('client')}",
        err=True,
    )
