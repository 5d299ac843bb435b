"""Options that several commands share: the run, the bus, the object store, how long to wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from flavor import __version__
from flavor.bus.variables import INSECURE_VARIABLE, PATIENCE_S, PATIENCE_VARIABLE, URL_VARIABLE
from flavor.cli.installed import InstalledOption, complete_store, schemes_installed
from flavor.cli.program import fail
from flavor.errors import MisuseError
from flavor.proxy import PROXY_VARIABLE, chosen

if TYPE_CHECKING:
    from flavor.store.settings import StoreSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_STORE = "flavor.store"
"""The key under which a command's context keeps its `StoreSettings`."""


def version_option(function: Command) -> Command:
    """Add `--version`."""
    return click.version_option(__version__, prog_name="flavor")(function)


def redis_option(function: Command) -> Command:
    """Add `--redis-url`, the TLS options and `--proxy`.

    The command gets the first four as one `redis_url`, from `bus_address`, and finds the proxy in the environment.
    """
    for option in (
        click.option(
            "--proxy",
            metavar="URL",
            envvar=PROXY_VARIABLE,
            show_envvar=True,
            callback=_choose_proxy,
            expose_value=False,
            help="Proxy for Redis and a remote store: http://HOST:PORT (CONNECT) or socks5://HOST:PORT; @FILE reads it "
            "from FILE, for a password; 'none' uses none.  [default: HTTPS_PROXY or ALL_PROXY, as NO_PROXY allows]",
        ),
        click.option(
            "--insecure",
            is_flag=True,
            envvar=INSECURE_VARIABLE,
            show_envvar=True,
            help="Allow redis:// to another machine, although the network can read the password.",
        ),
        click.option(
            "--tls-key",
            metavar="FILE",
            envvar="FLAVOR_TLS_KEY",
            show_envvar=True,
            help="Private key of --tls-cert (PEM).",
        ),
        click.option(
            "--tls-cert",
            metavar="FILE",
            envvar="FLAVOR_TLS_CERT",
            show_envvar=True,
            help="Client certificate, for a server that requires one (PEM).",
        ),
        click.option(
            "--tls-ca",
            metavar="FILE",
            envvar="FLAVOR_TLS_CA",
            show_envvar=True,
            help="Certificate of the CA that signed the server's certificate (PEM).  [default: the system's CAs]",
        ),
        click.option(
            "--redis-url",
            envvar=URL_VARIABLE,
            show_envvar=True,
            metavar="URL",
            help="URL of Redis: rediss:// (TLS), redis:// (this machine only) or unix://; @FILE reads it from FILE.",
        ),
    ):
        function = option(function)
    return function


def _choose_proxy(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Put the proxy where every connection of this program, and of the programs that it starts, looks for it."""
    if value:
        try:
            os.environ[PROXY_VARIABLE] = chosen(value)
        except MisuseError as error:
            fail(error)


def store_option(function: Command) -> Command:
    """Add `--store`, and `--store-cache` and `--store-cache-size` for remote stores."""

    def choose(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        from dataclasses import replace

        from flavor.sizes import parse_size

        if value is not None and parameter.name == "store_cache":
            context.meta[_STORE] = replace(store_settings(context), cache=value)
        elif value is not None:
            try:
                size_bytes = parse_size(value, "--store-cache-size")
            except MisuseError as error:
                fail(error)
            context.meta[_STORE] = replace(store_settings(context), cache_bytes=size_bytes)

    for option in (
        click.option(
            "--store-cache-size",
            envvar="FLAVOR_STORE_CACHE_SIZE",
            show_envvar=True,
            metavar="SIZE",
            callback=choose,
            expose_value=False,
            help="Maximum size of the local cache; least recently used objects are evicted.  [default: 16GiB]",
        ),
        click.option(
            "--store-cache",
            envvar="FLAVOR_STORE_CACHE",
            show_envvar=True,
            type=click.Path(file_okay=False, path_type=Path),
            callback=choose,
            expose_value=False,
            help="Folder of the local cache, for objects of a remote store.  [default: ~/.cache/flavor]",
        ),
        click.option(
            "--store",
            cls=InstalledOption,
            installed=schemes_installed,
            shell_complete=complete_store,
            envvar="FLAVOR_STORE",
            show_envvar=True,
            metavar="URL",
            help="Object store: a folder that the coordinator, the aggregators and the edges can reach, or "
            "s3://BUCKET/PREFIX (gs://, az://), whose endpoint and credentials come from the AWS_* variables.",
        ),
    ):
        function = option(function)
    return function


def store_url(store: str | None, of_folder: str | None) -> str | None:
    """Return the store that --store names, else a result folder's own (None for a run on Redis), else FLAVOR_STORE's.

    `store` is the value of --store, which may come from its variable.
    """
    return of_folder or store if is_of_environment("store") else store or of_folder


def is_of_environment(name: str) -> bool:
    """Return whether the value of an option is that of its variable. What a folder says comes before that."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.ENVIRONMENT


def store_settings(context: click.Context | None = None) -> StoreSettings:
    """Return the settings of `--store-cache`, `--store-cache-size` and `--patience-s`, or of their variables."""
    from flavor.store.settings import DEFAULTS

    settings: StoreSettings = (context or click.get_current_context()).meta.get(_STORE, DEFAULTS)
    return settings


def run_option(function: Command) -> Command:
    """Add `--run`."""
    return click.option(
        "--run", envvar="FLAVOR_RUN", show_envvar=True, metavar="RUN", required=True, help="Name of the run."
    )(function)


def patience_option(function: Command) -> Command:
    """Add `--patience-s`, for Redis and for a remote store."""
    return _patience(PATIENCE_S, "Seconds to wait for a Redis or a remote store that does not answer.")(function)


def start_patience_option(function: Command) -> Command:
    """Add `--patience-s` for a program that shows runs, which goes on through any outage after its start."""
    text = "Seconds to wait for a Redis that does not answer at the start. Later outages are waited out without limit."
    return _patience(PATIENCE_S, text)(function)


def site_patience_option(also: str = "") -> Callable[[Command], Command]:
    """Add `--patience-s` for a site, whose network may be away for hours; None where it is not given.

    `also` is a sentence about what else waits for as long.
    """
    return _patience(
        None,
        f"Seconds to wait for a Redis or a store that does not answer.{also and f' {also}'}  "
        "[default: a day, or the run's --round-timeout-s where that is longer]",
    )


def _patience(default: float | None, text: str) -> Callable[[Command], Command]:
    def choose(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
        if value is not None:
            context.meta[_STORE] = store_settings(context).with_patience(value)
        return value

    return click.option(
        "--patience-s",
        envvar=PATIENCE_VARIABLE,
        show_envvar=True,
        type=click.FloatRange(min=0),
        default=default,
        show_default=default is not None,
        callback=choose,
        help=text,
    )


def needed(value: str | None, option: str, variable: str) -> str:
    """Return `value`; raise `MisuseError`, which names the option and its variable, where there is none."""
    if not value and variable in os.environ:
        raise MisuseError(f"{variable} is set, and empty: set it to what {option} takes, or pass {option}")
    if not value:
        raise MisuseError(f"no {option} is given: pass {option} or set {variable}")
    return value
