"""Open the store at a URL. Its scheme selects the implementation.

A third party adds a scheme by the entry-point group `flavor.stores`: an entry point's name is the scheme, its value a
`StoreFactory`. Its package is imported when a store of its scheme is opened, and not before.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from flavor.errors import FlavorError, InvalidSetting
from flavor.plugins import names, one_line, points
from flavor.store.protocol import ObjectStore
from flavor.store.settings import DEFAULTS, StoreSettings
from flavor.store.url import BUCKETS, folder_of, scheme_of

GROUP = "flavor.stores"


class StoreFactory(Protocol):
    """Opens the store at a URL.

    Raises `InvalidSetting` for a URL that cannot be used, and `StoreUnavailable` for a store that is away.
    """

    def __call__(self, url: str, *, create: bool, settings: StoreSettings) -> ObjectStore:
        """Return the store. With `create`, make it, or test that it can be written."""


def open_store(url: str, *, create: bool = False, settings: StoreSettings = DEFAULTS) -> ObjectStore:
    """Open the store at `url`: a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX` (or `gs`, `az`), or a plug-in's URL.

    With `create`, makes a folder, and tests that a bucket can be written and refuses to write an object twice.
    """
    scheme = scheme_of(url)
    factory = FACTORIES.get(scheme)
    return (factory or _plugged_in)(url, create=create, settings=settings)


def _folder(url: str, *, create: bool, settings: StoreSettings) -> ObjectStore:
    from flavor.store.local import LocalStore

    return LocalStore(Path(folder_of(url) or ""), create=create)


def _bucket(url: str, *, create: bool, settings: StoreSettings) -> ObjectStore:
    from flavor.store.remote import RemoteStore

    return RemoteStore(url, create=create, settings=settings)


FACTORIES: Mapping[str, StoreFactory] = MappingProxyType({"file": _folder, **dict.fromkeys(BUCKETS, _bucket)})
"""The schemes that flavor has itself. No plug-in can replace one."""


def schemes() -> tuple[str, ...]:
    """The schemes of all stores: flavor's own, then those of installed packages, which are not imported."""
    return names(GROUP, FACTORIES)


def is_installed(url: str) -> bool:
    """Whether this machine has an implementation for the scheme of `url`; its package is not imported."""
    return scheme_of(url) in schemes()


def _plugged_in(url: str, *, create: bool, settings: StoreSettings) -> ObjectStore:
    """Open the store of an installed package. Messages do not quote the URL, because it may have a password in it."""
    scheme = scheme_of(url)
    found = sorted((found[1:] for found in points(GROUP) if found[0] == scheme), key=lambda each: each[0])
    if not found:
        raise InvalidSetting(
            f"store {scheme + '://'!r} cannot be used: no package here provides this scheme: install the package, or "
            f"give a folder that every party can reach, or s3://BUCKET/PREFIX (schemes here: {', '.join(schemes())})"
        )
    origin, point = found[0]
    if isinstance(point, str):
        raise _unusable(scheme, origin, point)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is no part of our output
            store = point.load()(url, create=create, settings=settings)
    except FlavorError:
        raise
    except (Exception, SystemExit) as error:  # it is foreign code that runs here
        raise _unusable(scheme, origin, one_line(f"{point.value}: {type(error).__name__}: {error}")) from error
    if lacking := sorted(name for name in _MEMBERS if not hasattr(store, name)):
        raise _unusable(scheme, origin, f"{point.value} makes no store: {', '.join(lacking)} is missing")
    opened: ObjectStore = store
    return opened


def _unusable(scheme: str, origin: str, why: str) -> InvalidSetting:
    return InvalidSetting(f"store {scheme + '://'!r} cannot be used: its package {origin} is broken ({why})")


_MEMBERS = {name for name in (*vars(ObjectStore), *ObjectStore.__annotations__) if not name.startswith("_")}
