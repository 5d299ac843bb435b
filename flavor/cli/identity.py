"""Which client of which run an edge is: what its options say, or its join token, which has priority."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

import click
from click.core import ParameterSource

from flavor.bus.variables import JOIN_VARIABLE
from flavor.cli.options import needed


@dataclass(frozen=True)
class Identity:
    """The client and the run of this edge, and the addresses of Redis and the store."""

    run: str
    client: str
    address: str = field(repr=False)
    store: str | None
    trust: tuple[str, ...]
    names_store: bool = False
    """Whether an option or the environment names the store, and not the token."""


def identity_of(
    join: str | None,
    *,
    run: str | None,
    client: str | None,
    redis_url: str | None,
    store: str | None,
    workspace: Path | None,
) -> Identity:
    """Return who the edge is, by its token or its options. Raises `InvalidSetting` and `MisuseError`."""
    from flavor.records.names import checked_name

    if join:
        return _joined(join, workspace, store)
    return Identity(
        checked_name(needed(run, "--run", "FLAVOR_RUN"), "run"),
        checked_name(client or socket.gethostname(), "client"),
        needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL"),
        store,
        (),
        names_store=bool(store),
    )


def _joined(text: str, workspace: Path | None, store: str | None) -> Identity:
    """Read a join token, which has priority over the environment. Options that contradict the token are refused.

    The store and the CA are exceptions: for them, options and the environment have priority over the token.
    """
    from flavor.bus.address import bus_address
    from flavor.bus.token import JoinToken
    from flavor.errors import InvalidSetting
    from flavor.store.url import folder_of

    token = JoinToken.parse(text)
    os.environ.pop(JOIN_VARIABLE, None)  # its own processes are given what they need of it
    context = click.get_current_context()
    given = {
        name: context.params[name]
        for name in ("run", "client", "redis_url")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if "redis_url" in given:
        raise InvalidSetting("--redis-url and --join exclude each other: the token names the bus")
    for name, value in given.items():
        if value != getattr(token, name):
            raise InvalidSetting(f"--{name} {value}: the join token is for {name} {getattr(token, name)!r}")
    folder = folder_of(token.store) if token.store and not store else None
    if folder and not os.path.isabs(folder) and not os.path.isdir(folder):
        raise InvalidSetting(
            f"the join token names the store {folder!r}, a relative path, and there is no folder "
            f"{os.path.abspath(folder)!r} here: name the store's folder with --store, or let the operator enroll this "
            "site again with an absolute path"
        )
    tls = {name: context.params[name] for name in ("tls_ca", "tls_cert", "tls_key", "insecure")}
    if token.ca is not None and not tls["tls_ca"]:
        tls["tls_ca"] = _kept_ca(token.ca, workspace or default_workspace(token.run, token.client))
    return Identity(
        token.run,
        token.client,
        bus_address(token.credentials(), **tls),
        store or token.store,
        token.trust or (),
        names_store=bool(store),
    )


def _kept_ca(pem: str, workspace: Path) -> str:
    """Write the CA of the token into a file for this process and its trainer, and return the path."""
    from flavor.atomic import write_whole
    from flavor.errors import InvalidSetting
    from flavor.ownfolder import make_own_folder

    make_own_folder(workspace, mode=0o700)
    path = workspace.absolute() / "ca.pem"
    try:
        write_whole(path, pem)
    except OSError as error:
        raise InvalidSetting(f"{path}: the token's CA cannot be written: {error.strerror}: see --workspace") from None
    return str(path)


def default_workspace(run: str, client: str) -> Path:
    """Return the folder of a client's files where no option names one."""
    return Path("flavor-work") / run / client
