"""Parse the URL of a store: a plain folder, `file:///FOLDER`, or `SCHEME://PLACE`."""

from __future__ import annotations

import re

from flavor.errors import InvalidSetting
from flavor.store.paths import checked_path

BUCKETS = ("s3", "gs", "az")
"""Schemes of buckets."""


def scheme_of(url: str) -> str:
    """Return the scheme of the URL; `file` for a plain folder."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator else "file"


def folder_of(url: str) -> str | None:
    """Return the folder that is the store at `url`; None for a store that is no folder."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return rest if scheme == "file" else None


def package_scheme(url: str) -> str:
    """Return the scheme of a store that a package of a third party would open; '' for a folder and a bucket."""
    scheme = scheme_of(url)
    return "" if folder_of(url) is not None or scheme in BUCKETS else scheme


def why_unsigned(url: str) -> str:
    """Return why URLs of the store's objects cannot be signed; '' for a bucket."""
    if (scheme := scheme_of(url)) in BUCKETS:
        return ""
    what = "a folder" if scheme == "file" else f"a store {scheme + '://'!r}"
    return f"--signed-urls: {what} has no URLs that can be signed: give --store s3://BUCKET/PREFIX (or gs, az)"


def bucket_url(url: str) -> str:
    """Return `s3://BUCKET/PREFIX` without a slash at its end. Raises `InvalidSetting`, which does not quote the URL."""
    scheme, _, rest = url.partition("://")
    if "@" in rest or "?" in rest or "#" in rest:
        raise InvalidSetting(
            f"the store's URL cannot be used: write {scheme}://BUCKET/PREFIX and nothing more; credentials and "
            "endpoint come from the environment (docs/store.md)"
        )
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise InvalidSetting(
            f"store {url!r} cannot be used: write {scheme}://BUCKET/PREFIX, the bucket's name having 2 to 255 letters, "
            "digits, '.', '_' and '-'"
        )
    if prefix:
        checked_path(prefix)
    return f"{scheme}://{bucket}/{prefix}".rstrip("/")
