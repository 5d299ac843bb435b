"""Checks, before anything of the run is used, that the site's own user has agreed to what the run asks of the site."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from flavor.checkpoints.kinds import BUILT_IN
from flavor.config import RunConfig
from flavor.disk import STAGING
from flavor.errors import (
    DigestMismatch,
    InvalidSetting,
    ObjectMissing,
    OtherStore,
    RunRefused,
    ShareAway,
    StoreUnavailable,
    UnusableStore,
)
from flavor.ledger.manifest import MOST_BYTES
from flavor.script_settings import ALLOWED, settings_not_taken
from flavor.site_settings import settings_of
from flavor.store.paths import client_folder, run_record_path
from flavor.store.protocol import ObjectStore
from flavor.store.shared import lacking_right
from flavor.store.trouble import without_share
from flavor.store.url import folder_of, package_scheme


def check_consent(
    run: str,
    config: RunConfig,
    *,
    opaque: bool,
    allow_set: Sequence[str],
    store: str | None,
    checkpoint: str | None = None,
    client: str = "",
    own: Collection[str] = (),
) -> None:
    """Raise `RunRefused` unless the site takes this run's kind of checkpoint, its settings, and its folder.

    A global model of a kind that is not safe, such as an opaque one, can be any file of the coordinator. The trainer's
    own library loads it, and many libraries run code that such a file names. A setting is an environment variable of
    the trainer. A folder that the coordinator names is a folder of this machine. `store` is the store that the site
    named; None or empty if it named none. `checkpoint` is the kind of checkpoints that the site named: the package of
    another one is not imported. Of the settings, those count that the run has for this `client`, without the names that
    the site sets itself (`own`).
    """
    if config.checkpoint not in (*BUILT_IN, checkpoint):
        raise RunRefused(
            f"run {run!r} has checkpoints of the kind {config.checkpoint!r}, which a package of this machine would "
            f"read and this site has not named: start with --checkpoint {shlex.quote(config.checkpoint)} if that is "
            "the run's",
            told="its user has not named the run's kind of checkpoints (--checkpoint)",
        )
    if not (config.kind.is_safe or opaque):
        raise RunRefused(
            f"run {run!r} has {config.checkpoint} checkpoints, files that nothing checks and that may run code when "
            "the trainer loads them: start with --opaque if you trust its coordinator that far",
            told=f"its user has not allowed {config.checkpoint} checkpoints (--opaque)",
        )
    settings = _from_run(config, client, own)
    if odd := settings_not_taken(settings, allow_set):
        shown = ", ".join(f"{name}={settings[name][:60]}" for name in odd[:5])
        option = "--set-for" if config.set_for.get(client, {}).keys() & set(odd) else "--set"
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        allow = " ".join(f"--allow-set {name}" for name in odd[:5])
        raise RunRefused(
            f"run {run!r} sets {shown}{more} for its trainers, which this site does not take (it takes plain values "
            f"of {', '.join(ALLOWED[:3])}, …, see docs/protocol.md): ask its operator why, and start with {allow} if "
            "you agree",
            told=f"its user has not allowed a setting of {option} ({allow}{more})",
        )
    folder = folder_of(config.store)
    if folder is not None and not store:
        shown = shlex.quote(folder[:500])
        raise RunRefused(
            f"run {run!r} keeps its objects in the folder {shown} on this machine, which this site has not named: "
            f"start with --store {shown} if that is the run's, or with a token that names it (flavor enroll --store)",
            told="its user has not named the run's store (--store)",
        )
    if not store and (scheme := package_scheme(config.store)):
        raise RunRefused(
            f"run {run!r} keeps its objects in a store {scheme + '://'!r}, which a package of this machine would open "
            "and this site has not named: start with --store URL if that is the run's",
            told="its user has not named the run's store (--store)",
        )


def check_manifests(run: str, config: RunConfig, *, has_keys: bool) -> None:
    """Raise `RunRefused` where this site trusts keys alone, and gets no URLs of the manifests that these sign."""
    if has_keys and not config.share_names:
        raise RunRefused(
            f"run {run!r} has signed URLs, and gives none of its manifests, which name all sites: this site cannot see "
            "which aggregator has signed a global model (--trust): start without --trust, or with --store and "
            "credentials of its own, or ask its operator for a run with --share-names",
            told="it takes signed global models alone (--trust), and the run gives sites no URLs of manifests: "
            "--share-names would",
        )


@contextlib.contextmanager
def in_wait_for_share(url: str) -> Iterator[None]:
    """Raise `ShareAway`, for which the edge waits, in place of an error that says that this is not the run's store.

    That is done as long as the store's folder, or the folder in which it should be, is as empty as a folder on which
    no share is mounted yet.
    """
    try:
        yield
    except (InvalidSetting, OtherStore) as error:
        if why := without_share(url):
            raise ShareAway(f"store {url}: {why}") from error
        if isinstance(error, OtherStore | UnusableStore):
            raise
        raise UnusableStore(str(error)) from None


def check_rights(store: ObjectStore, run: str, client: str) -> None:
    """Raise `UnusableStore` where this site may not put its updates into a folder store, before it trains."""
    root = folder_of(store.url)
    if root is not None and (lacks := lacking_right(Path(root), client_folder(run, client), STAGING)):
        raise UnusableStore(
            f"store {root}: {lacks}: give those who use it a group (docs/store.md, 'A folder that several users share')"
        )


def check_store(store: ObjectStore, run: str, run_id: str, *, tell: Callable[[str], None]) -> None:
    """Raise `OtherStore` unless the run's own record lies in this store: it is the store of this very run.

    An edge with a wrong store learns that before it trains, and no coordinator can make the site use one of its own
    folders as a store. Where the store does not let this site read the record, `tell` says so.
    """
    path = run_record_path(run)
    try:
        record = json.loads(store.read_unverified(path, most=MOST_BYTES))
        found = str(record["run_id"])
    except ObjectMissing:
        raise OtherStore(
            f"{path} is not in the store {store.url}: this is not the store of run {run!r}: name the one that its "
            "coordinator names (--store, or the token's)"
        ) from None
    except StoreUnavailable as error:
        if error.passing:
            raise
        if error.refused.startswith("403"):  # so it is with the policy that `flavor store policy` prints
            tell(
                f"store {store.url}: this site may not read the run's record, which `--records` of `flavor store "
                "policy` would allow: whether this is the run's store, and the credentials are good, shows in its "
                "first round"
            )
        else:
            tell(f"{error}: whether this is the run's store cannot be told")
        return
    except (ValueError, KeyError, TypeError, RecursionError, DigestMismatch):
        raise OtherStore(f"{path} in the store {store.url} is no run's record: check --store") from None
    if found != run_id:
        raise OtherStore(
            f"the store {store.url} holds another run of the name {run!r}: name the store of this one (--store)"
        )


def _from_run(config: RunConfig, client: str, own: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in settings_of(config, client).items() if name not in own}


def told(config: RunConfig, client: str = "", *, own: Collection[str] = ()) -> list[str]:
    """The lines that a site's user is told about the run that the site joins; `own` are the names that it sets itself.

    The values of its own settings are in no line.
    """
    lines = []
    if config.parts:
        lines.append(
            f"the run shares only a part of the model ({config.parts.options}): the other tensors stay in this site's "
            "workspace"
        )
    if not config.kind.is_safe:
        name = config.checkpoint
        lines.append(f"its checkpoints are {name}: nothing looks into the global models before the trainer loads them")
    if settings := _from_run(config, client, own):
        values = " ".join(f"{name}={value}" for name, value in settings.items())
        lines.append(f"the run sets for its trainer: {values[:500]}")
    if own:
        replaced = settings_of(config, client).keys() & set(own)
        names = ", ".join(f"{name} (in place of the run's)" if name in replaced else name for name in sorted(own))
        lines.append(f"this site sets for its script itself: {names}")
    return lines
