"""Open the store at a URL: the scheme says which implementation."""

from __future__ import annotations

from pathlib import Path

from flavor.errors import InvalidSetting
from flavor.store.bucket import Endurance
from flavor.store.protocol import ObjectStore
from flavor.store.url import folder_of


def open_store(url: str, *, create: bool = False, endurance: Endurance | None = None) -> ObjectStore:
    """The store at `url`: a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX`, or the same with `gs` or `az`.

    With `create` a folder is made, and a bucket is tried: whether it takes objects, and takes each only once. A bucket
    is waited for as the entry point has chosen, if no `endurance` is given.
    """
    from flavor.store.local import LocalStore

    if (folder := folder_of(url)) is not None:
        return LocalStore(Path(folder), create=create)
    scheme, separator, _ = url.partition("://")
    if scheme in ("s3", "gs", "az"):
        from flavor.store.remote import RemoteStore

        return RemoteStore(url, create=create, endurance=endurance)
    raise InvalidSetting(
        f"store {scheme + separator!r} cannot be used: give a folder that every party can reach, or s3://BUCKET/PREFIX"
    )
