"""The URL of a store, taken apart: a plain folder, `file:///FOLDER`, or `SCHEME://PLACE`."""

from __future__ import annotations


def scheme_of(url: str) -> str:
    """The scheme of the URL; `file` for a plain folder."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator else "file"


def folder_of(url: str) -> str | None:
    """The folder that is the store at `url`; None for a store that is no folder."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return rest if scheme == "file" else None
