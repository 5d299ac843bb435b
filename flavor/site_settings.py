"""The environment variables that a run sets for the script of one site alone (`--set-for`), a field of `RunConfig`.

A site's script gets the run's `--set`, then those of `--set-for` that name the site, then the site's own (`flavor-fl
--set`): of one name, the last of these wins. All of a run's settings are in its config, which every site can read.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from flavor.errors import InvalidSetting
from flavor.option_groups import Group
from flavor.records.names import checked_name
from flavor.script_settings import checked_settings
from flavor.setting import setting

MOST_CLIENTS = 1000
"""Most clients that one run sets variables for."""
MOST_CHARACTERS = 1 << 18
"""Most characters of all these names and values together: each manifest of the run contains them."""
_LISTED, _NEAR = 5, 3


def _by_client(value: Any) -> Any:
    """Sort the pairs `(CLIENT, NAME=VALUE)` of the command line by client; leave anything else to pydantic."""
    if not isinstance(value, tuple | list) or not all(isinstance(each, tuple) and len(each) == 2 for each in value):
        return value
    found: dict[str, dict[str, str]] = {}
    for client, text in value:
        settings = found.setdefault(client, {})
        name, equals, said = text.partition("=")
        if not equals and text:
            raise InvalidSetting(f"{client[:80]!r} {text[:80]!r} cannot be used: write --set-for CLIENT NAME=VALUE")
        if name in settings:
            raise InvalidSetting(f"{name[:80]!r} is given twice for {client[:80]!r}")
        if text:
            settings[name] = said
    return found


def _checked(value: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    if len(value) > MOST_CLIENTS:
        raise InvalidSetting(f"{len(value)} clients are too many: at most {MOST_CLIENTS}")
    found = {}
    for client, settings in sorted(value.items()):
        checked_name(client, "client")
        try:
            found[client] = checked_settings(settings)
        except InvalidSetting as error:
            raise InvalidSetting(f"{client}: {error}") from None
    size = sum(len(name) + len(said) for settings in found.values() for name, said in settings.items())
    if size > MOST_CHARACTERS:
        raise InvalidSetting(
            f"names and values of {size} characters are too long: at most {MOST_CHARACTERS} for all clients together"
        )
    return {client: settings for client, settings in found.items() if settings}


SetFor: TypeAlias = Annotated[Mapping[str, Mapping[str, str]], BeforeValidator(_by_client), AfterValidator(_checked)]

SET_FOR: Any = setting(
    "Set an environment variable for the script of one site, e.g. site-1 BATCH_SIZE=16, in place of the value of --set "
    "for it. All sites of the run can read it. May be repeated.",
    Group.SCRIPT,
    default=dict,
    may_change=True,
    metavar="CLIENT NAME=VALUE",
)


class _Set(Protocol):
    """The settings of a run that are about the environment of scripts."""

    @property
    def settings(self) -> Mapping[str, str]: ...

    @property
    def set_for(self) -> Mapping[str, Mapping[str, str]]: ...


def settings_of(config: _Set, client: str) -> dict[str, str]:
    """Return the variables that a run sets for the script of this client."""
    return {**config.settings, **config.set_for.get(client, {})}


def set_for_options(set_for: Mapping[str, Mapping[str, str]]) -> str:
    """Write these settings as options for a shell; without any, the option that takes those of a client away."""
    words = [
        f"--set-for {client} {shlex.quote(f'{name}={value}')}"
        for client, settings in set_for.items()
        for name, value in settings.items()
    ]
    return " ".join(words) or "--set-for CLIENT ''"


def unknown_clients(config: _Set, known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Give each client of `--set-for` that is none of `known`, and in words which of these may be meant."""
    for client in config.set_for:
        if client not in known:
            yield client, _there_are(client, sorted(known))


def _there_are(wanted: str, names: list[str]) -> str:
    from difflib import get_close_matches  # here, as few commands need it

    by_lower = {name.lower(): name for name in names}
    near = [by_lower[name] for name in get_close_matches(wanted.lower(), by_lower, _NEAR)]
    if len(names) > _LISTED and near:
        return f"the nearest of {len(names)} {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    is_one = len(names) == 1
    return f"there {'is only' if is_one else 'are'} {', '.join(names[:_LISTED])}{more}" if names else "there are none"
