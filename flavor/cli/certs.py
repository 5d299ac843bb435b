"""`flavor certs`: certificates to try TLS with."""

from __future__ import annotations

from pathlib import Path

import click

from flavor.cli.program import one_line_errors


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    required=True,
    help="A name or IP address by which clients reach the server. May be repeated.",
)
@click.option("--days", type=click.IntRange(1, 36_500), default=365, show_default=True, help="How long they are valid.")
@click.option("--force", is_flag=True, help="Replace what is there.")
@one_line_errors
def certs(folder: Path, hosts: tuple[str, ...], days: int, force: bool) -> None:
    """Make a small CA in DIR, with a certificate of the server and one of its clients, for tests and demonstrations.

    Keys are EC P-256, unencrypted, and readable by their owner alone. Whoever has ca.key can be your server: for more
    than a try use the CA of your organisation.
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
