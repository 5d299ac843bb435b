"""The environment of a program that runs on another machine, where a batch system keeps it in files of its own.

Such a program has no use for what its edge needs to reach Redis and the object store, and gets none of it.
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN = "FLAVOR_"
_OWN_KEPT = ("FLAVOR_RUN", "FLAVOR_CLIENT", "FLAVOR_ROLE", "FLAVOR_ROUND", "FLAVOR_RELAY")
"""Of this project's variables, those that `flavor.cook` reads there."""
_OF_CLOUDS = ("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_")
"""Beginnings of the names by which clients of object stores find their credentials."""


def relayed_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment `base` without credentials of Redis, of clouds and of proxies."""
    return {name: value for name, value in base.items() if not _is_kept_out(name, value)}


def _is_kept_out(name: str, value: str) -> bool:
    if name.startswith(_OWN):
        return name not in _OWN_KEPT
    is_proxy_with_user = name.upper().endswith("_PROXY") and name.upper() != "NO_PROXY" and "@" in value
    return name.startswith(_OF_CLOUDS) or is_proxy_with_user
