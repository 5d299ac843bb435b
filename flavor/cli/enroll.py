"""`flavor enroll`: let a client take part in a run."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from flavor import __version__
from flavor.cli.help import GroupedCommand
from flavor.cli.opened_run import connected
from flavor.cli.options import needed, redis_option
from flavor.cli.output import teller
from flavor.cli.program import one_line_errors
from flavor.errors import DamagedRecord, InvalidSetting, MisuseError, RunError
from flavor.protocol import OLDEST

if TYPE_CHECKING:
    from flavor.bus.connection import Redis
    from flavor.bus.runs import RunStore
    from flavor.ledger.keys import PublicKey

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)

_VIEWED = "flavor ui --redis-url @FILE"


@click.command(
    cls=GroupedCommand, example="flavor enroll mammo site-1 --redis-url redis://localhost --out site-1.token"
)
@click.argument("run", required=False)
@click.argument("client", required=False)
@click.option(
    "--worker",
    metavar="NAME",
    help="Create a user for the aggregator NAME in place of a client, and print the URL for the aggregator's "
    "FLAVOR_REDIS_URL. The user can use all runs and job queues, and no command of an administrator.",
)
@click.option(
    "--viewer",
    metavar="NAME",
    help="Create a user that can look at all runs and change nothing, in place of a client, and print the URL for "
    "`flavor ui` and `flavor metrics`.",
)
@click.option(
    "--out",
    metavar="FILE",
    help="Write the token, or the URL of --worker or --viewer, into FILE, which only you can read, instead of printing "
    "it. FILE is replaced if it exists.",
)
@click.option(
    "--unsaved",
    is_flag=True,
    help="Enroll although the server saves no users: it forgets the new user when it restarts.",
)
@click.option(
    "--rules",
    "only_rules",
    is_flag=True,
    help="Print the name and the ACL rules of the user, and make none: for a managed Redis whose console makes users.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="URL of Redis that the token gives the site.  [default: --redis-url without its password]",
)
@click.option(
    "--public-ca",
    metavar="FILE",
    help="Certificate of the CA (PEM) with which the token lets the site check Redis.  [default: --tls-ca]",
)
@click.option(
    "--store",
    metavar="STORE",
    help="URL of the object store that the token gives the site. A store that is a folder must be named here or at the "
    "site.  [default: the bucket of the run]",
)
@click.option(
    "--new-key",
    is_flag=True,
    help="Forget the pinned key of CLIENT, e.g. because the site has lost the file. The next key that CLIENT announces "
    "is pinned.",
)
@click.option(
    "--public-key",
    metavar="KEY",
    help="Pin this key for CLIENT in place of its pinned key: ed25519:HEX, or the file client.key.pub of CLIENT.",
)
@click.option(
    "--trust",
    multiple=True,
    metavar="KEY",
    help="Public key of an aggregator (ed25519:HEX, or its aggregator.key.pub), or sha256:HEX of the initial weights, "
    "that the token gives the site. The site trains only from models that are signed with these keys or have this "
    "digest. May be repeated.",
)
@redis_option
@one_line_errors
def enroll(
    run: str | None,
    client: str | None,
    worker: str | None,
    viewer: str | None,
    out: str | None,
    unsaved: bool,
    only_rules: bool,
    public_url: str | None,
    public_ca: str | None,
    store: str | None,
    new_key: bool,
    public_key: str | None,
    trust: tuple[str, ...],
    redis_url: str | None,
) -> None:
    """Let a client take part in a run, and print its join token.

    Creates a Redis user that can use only the keys and channels of CLIENT in RUN, and cannot run scripts. The run need
    not exist yet. A client that is enrolled again gets a new token; its old token is invalid from then on. --redis-url
    needs the password of an administrator. The server saves the new user in its aclfile or its configuration file; a
    server without both is refused unless --unsaved is given.
    """
    from pydantic import SecretStr

    from flavor.bus.acl import UserPersistence, enrolled, user_name
    from flavor.bus.acl import enroll as enroll_user
    from flavor.bus.address import database, tls_ca
    from flavor.bus.admission import check_replaceable, replace_key
    from flavor.bus.connection import shown
    from flavor.bus.runs import RunStore
    from flavor.bus.token import JoinToken, without_credentials
    from flavor.edge.trust import ModelTrust

    if new_key and public_key:
        raise InvalidSetting("--new-key and --public-key exclude each other: the one forgets a key, the other pins one")
    tell = teller("flavor: ")
    if only_rules:
        _print_rules(run, client, worker, viewer, public_url or redis_url)
        return
    if out is not None:
        _check_out(out)
    url = needed(redis_url, "--redis-url", "FLAVOR_REDIS_URL")
    public = without_credentials(public_url or url)
    _check_printable(public, store or "")
    if worker is not None or viewer is not None:
        if run is not None or new_key or public_key:
            raise MisuseError("--worker and --viewer go without RUN, CLIENT and their key: they are for all runs")
        _enroll_for_all_runs(worker, viewer, url, public, out, unsaved, tell)
        return
    if run is None or client is None:
        raise MisuseError("name the run and the client: flavor enroll RUN CLIENT (or --worker NAME, or --viewer NAME)")
    user = user_name(run, client)
    pinned = _one_key(public_key, client) if public_key else None
    trusted = ModelTrust.parse(trust).words()
    ca = _certificates(public_ca or (tls_ca(url) if public.startswith("rediss:") else None))
    redis, url = connected(url)
    _check_saved(redis, url, unsaved)
    runs = RunStore(redis, run, url)
    if new_key or pinned:
        check_replaceable(runs, client, str(pinned) if pinned else "")
    blank = JoinToken(
        url=public,
        user=user,
        secret=SecretStr("?"),
        run=run,
        client=client,
        store=store,
        trust=trusted or None,
        ca=ca,
        protocol=_protocol_of(runs),
        release=__version__,
    )
    # From here on the old token is invalid. Print the new one before anything that can fail; the key is replaced after
    # the user, so that no process with the old token can announce the next key.
    secret, kept = enroll_user(redis, run, client, where=shown(url), database=database(public))
    _give(blank.model_copy(update={"secret": SecretStr(secret)}).encode(), out, tell)
    if new_key or pinned:
        replace_key(runs, client, str(pinned) if pinned else "")
        tell(f"{client} of run {run}: {_pinned(pinned)}")
    tell(
        f"{client} may join run {run} with this token, and with no earlier one: flavor-fl --join @FILE -m CMD, or "
        "flavor-fv to judge models only"
    )
    _warn_of_store(store, tell)
    warnings = _of_server(redis, url) + _of_address(public)
    if kept is not UserPersistence.SAVED:
        warnings.insert(0, (kept.value, "a restart of the server may forget its users"))
    is_first = set(enrolled(redis, run, where=shown(url))) <= {client}
    for line in (whole for whole, _ in warnings) if is_first else _again(warnings):
        tell(line)


def _enroll_for_all_runs(
    worker: str | None,
    viewer: str | None,
    url: str,
    public: str,
    out: str | None,
    unsaved: bool,
    tell: Callable[[str], None],
) -> None:
    """Give an aggregator or a viewer a user of its own, whose URL is printed or written into `out`."""
    from flavor.bus.acl import enroll_viewer, enroll_worker, viewer_user, worker_user
    from flavor.bus.address import database
    from flavor.bus.connection import shown
    from flavor.bus.token import with_credentials

    if worker is not None and viewer is not None:
        raise MisuseError("--worker and --viewer exclude each other: enroll the one, and then the other")
    name = worker if worker is not None else viewer or ""
    user = worker_user(name) if worker is not None else viewer_user(name)
    redis, url = connected(url)
    _check_saved(redis, url, unsaved)
    make = enroll_worker if worker is not None else enroll_viewer
    secret, _ = make(redis, name, where=shown(url), database=database(public))
    _give(with_credentials(public, user, secret), out, tell)
    who, how = ("aggregator", "FLAVOR_REDIS_URL=URL flavor-agg") if worker is not None else ("viewer", _VIEWED)
    tell(f"{who} {name} may use this URL, and no earlier one: {how}")


_Warnings = list[tuple[str, str]]
"""What protects less than a token promises: with the way to mend it, and in a few words."""


def _of_server(redis: Redis, url: str) -> _Warnings:
    from flavor.bus.acl import is_open
    from flavor.bus.bounds import bounds_warnings

    warnings: _Warnings = []
    if is_open(redis):
        warnings.append(
            (
                "this server lets anyone in as its user 'default', so tokens protect nothing yet: give that user a "
                "password (ACL SETUSER default '>PASSWORD', or requirepass), and use it in --redis-url",
                "the server lets anyone in as its user 'default', so tokens protect nothing yet",
            )
        )
    return warnings + [
        (line, "the server lacks settings that bound what one site can take of it")
        for line in bounds_warnings(redis, url)
    ]


def _again(warnings: _Warnings) -> list[str]:
    """Return one line for all: the first site of the run was told how to mend each."""
    said = "; ".join(few for _, few in warnings)
    return [f"warning: still so, as this run's first site was told with the way to mend it: {said}"] if said else []


def _print_rules(run: str | None, client: str | None, worker: str | None, viewer: str | None, url: str | None) -> None:
    """Print the name of a user, and its rules in a line of their own, for the console of a managed server."""
    from flavor.bus import acl
    from flavor.bus.address import database

    number = database(url) if url else 0
    if run is not None and client is not None and worker is None and viewer is None:
        user, rules = acl.user_name(run, client), acl.rules(run, client, "", database=number)
    elif worker is not None and run is None and viewer is None:
        user, rules = acl.worker_user(worker), acl.worker_rules("", database=number)
    elif viewer is not None and run is None and worker is None:
        user, rules = acl.viewer_user(viewer), acl.viewer_rules("", database=number)
    else:
        raise MisuseError("--rules: name RUN and CLIENT, or --worker NAME, or --viewer NAME")
    click.echo(f"{user}\n{acl.for_console(rules)}")


def _protocol_of(runs: RunStore) -> int:
    """Return the version of the run's protocol; the oldest where there is no run yet, or one that a site refuses."""
    with contextlib.suppress(DamagedRecord):
        return max(OLDEST, view.protocol) if (view := runs.find()) is not None else OLDEST
    return OLDEST


def _check_out(out: str) -> None:
    """Raise `InvalidSetting` for a file that cannot be written, before an earlier token becomes invalid."""
    folder = Path(out).absolute().parent
    if Path(out).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidSetting(f"--out {out}: it cannot be written there: name a file in a folder of yours")


def _give(secret: str, out: str | None, tell: Callable[[str], None]) -> None:
    """Write the token or URL into the file `out`, for its owner alone, or print it."""
    from flavor.atomic import write_whole

    if out is not None:
        write_whole(Path(out), f"{secret}\n", mode=0o600)
        return
    click.echo(secret)
    with contextlib.suppress(OSError, ValueError):  # a stdout that is closed, or no file
        found = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            tell("warning: other users can read the file that this was written to: `chmod 600` it, or use --out FILE")


def _check_saved(redis: Redis, url: str, unsaved: bool) -> None:
    """Raise `RunError` unless the server saves its users, or `unsaved` accepts that it does not."""
    from flavor.bus.acl import UserPersistence, save_users
    from flavor.bus.connection import shown, translated

    with translated(shown(url)):
        redis.acl_users()  # fails with advice if this is not the administrator's URL
        kept = save_users(redis)
    if kept is not UserPersistence.SAVED and not unsaved:
        raise RunError(f"Redis at {shown(url)}: {kept}; or enroll with --unsaved, and again after each restart")


def _check_printable(public: str, store: str) -> None:
    """Raise `InvalidSetting` for a URL that no token can hold."""
    for option, text in (("--public-url", public), ("--store", store)):
        if not text.isprintable():
            raise InvalidSetting(f"{option} {text!a}: it has a character that cannot be printed: type the URL anew")


def _pinned(key: PublicKey | None) -> str:
    return f"key {key.fingerprint} is pinned" if key else "no key is pinned any more: its next one will be"


def _one_key(text: str, client: str) -> PublicKey:
    from flavor.ledger.keys import read_public_key

    found = read_public_key(text)
    if len(found) != 1 or found[0][0] not in ("", client):
        raise InvalidSetting(f"--public-key {text}: one key is expected, of {client!r}")
    return found[0][1]


def _warn_of_store(store: str | None, tell: Callable[[str], None]) -> None:
    """Warn of a store that the site would look for in a folder of its own."""
    from flavor.store.url import folder_of

    if store and (folder := folder_of(store)) and not os.path.isabs(folder):
        tell(
            f"warning: the token carries the store as the relative path {store!r}: the site looks for it in the folder "
            "in which flavor-fl starts; enroll again with an absolute path, or let the site give --store"
        )


def _of_address(public: str) -> _Warnings:
    """Return what a token's URL lacks for a site on another machine."""
    from flavor.bus.address import is_this_machine

    if public.startswith("unix:") or is_this_machine(urlsplit(public).hostname or "localhost"):
        whole = (
            "the token's URL works on this machine alone: --public-url gives the URL at which the site reaches Redis"
        )
        return [(whole, "the token's URL works on this machine alone")]
    if public.startswith("redis:"):
        whole = "the token's URL is not encrypted: the site will need --insecure; rediss:// would protect its password"
        return [(whole, "the token's URL is not encrypted")]
    return []


def _certificates(file: str | None) -> str | None:
    """Return the certificates of a PEM file, and nothing else that is in the file."""
    from flavor.bus.address import check_files

    if file is None:
        return None
    check_files(file)
    return "".join(_CERTIFICATE.findall(Path(file).read_text(encoding="utf-8", errors="replace")))
