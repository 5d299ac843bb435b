"""`flavor metrics`: give the state of all runs to Prometheus."""

from __future__ import annotations

import contextlib
import threading

import click

from flavor.bus.variables import METRICS_TOKEN_VARIABLE
from flavor.cli.help import GroupedCommand
from flavor.cli.installed import InstalledOption, complete_store, schemes_installed
from flavor.cli.opened_run import connected
from flavor.cli.options import redis_option, start_patience_option
from flavor.cli.program import Terminated, one_line_errors, raise_on_sigterm
from flavor.cli.tokens import read_token, taken_out
from flavor.errors import InvalidSetting, MisuseError
from flavor.own_machine import is_own_name
from flavor.say import say
from flavor.stamp import stamp


@click.command(
    cls=GroupedCommand,
    example="flavor metrics --redis-url redis://localhost\n"
    "flavor metrics --redis-url redis://localhost --host 0.0.0.0 --token @FILE",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9600,
    show_default=True,
    help="Port to listen on; 0 for any free one.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. All but this machine's own need --token.",
)
@click.option(
    "--token",
    envvar=METRICS_TOKEN_VARIABLE,
    show_envvar=True,
    metavar="TOKEN",
    callback=taken_out(METRICS_TOKEN_VARIABLE),
    help="Token that a scrape has to send (Authorization: Bearer TOKEN), or @FILE for a file that has it.",
)
@click.option(
    "--max-clients-labelled",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Maximum number of clients of a run with metrics of their own; those that need attention come first, and the "
    "others are summed up.",
)
@click.option(
    "--store",
    cls=InstalledOption,
    installed=schemes_installed,
    shell_complete=complete_store,
    envvar="FLAVOR_STORE",
    show_envvar=True,
    metavar="URL",
    help="Object store of all runs, which has the metrics of their models.  [default: the one in each run's settings]",
)
@redis_option
@start_patience_option
@one_line_errors
def metrics(
    port: int,
    host: str,
    token: str | None,
    max_clients_labelled: int,
    store: str | None,
    redis_url: str | None,
    patience_s: float,
) -> None:
    """Give the state of all runs to Prometheus, at http://HOST:PORT/metrics.

    deploy/observability has alert rules and a dashboard. `flavor ui` has the same metrics at /metrics.
    """
    secret = read_token(token, METRICS_TOKEN_VARIABLE)
    try:
        from flavor.metrics.server import MetricsServer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise MisuseError(
            "metrics need a library that is not installed: pip install '.[metrics]' in flavor's folder"
        ) from None
    from flavor.metrics.scrape import Scraper
    from flavor.view.board import Board

    if not secret and not is_own_name(host):
        raise InvalidSetting(
            f"--host {host}: other machines can reach it, and metrics name runs, sites and their results: choose a "
            f"--token ({METRICS_TOKEN_VARIABLE}) that Prometheus sends (`authorization` in its scrape_configs)"
        )
    raise_on_sigterm()
    with contextlib.ExitStack() as stack:
        redis, url = connected(redis_url, patience_s=patience_s)
        redis.close()
        board = stack.enter_context(Board(url, store=store, tells=True))
        scraper = Scraper.on(url, board, most_clients=max_clients_labelled)
        server = MetricsServer(host, port, scraper.answer, secret or "")
        stack.callback(server.close)
        shown = f"[{host}]" if ":" in host else host
        say(f"{stamp()}flavor: metrics at http://{shown}:{server.port}/metrics; Ctrl-C ends that")
        with contextlib.suppress(KeyboardInterrupt, Terminated):  # told to end, as a service
            threading.Event().wait()
