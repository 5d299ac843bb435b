"""Takes secrets out of the process list, in which every user of a machine can read all command lines."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flavor.bus.variables import (
    JOIN_VARIABLE,
    METRICS_TOKEN_VARIABLE,
    NOTIFY_VARIABLE,
    UI_TOKEN_VARIABLE,
    URL_VARIABLE,
)
from flavor.proxy import PROXY_VARIABLE

_VARIABLES = {
    "--redis-url": URL_VARIABLE,
    "--join": JOIN_VARIABLE,
    "--notify": NOTIFY_VARIABLE,
    "--proxy": PROXY_VARIABLE,
}
_REPEATED = ("--notify",)
"""Options that may be given again: their variable has a line for each value, and ends with a line break."""
_TOKENS = {
    "ui": UI_TOKEN_VARIABLE,
    "run": UI_TOKEN_VARIABLE,
    "demo": UI_TOKEN_VARIABLE,
    "metrics": METRICS_TOKEN_VARIABLE,
}
"""The variable of `--token` for each command that has this option."""
_PEOPLE = range(1000, 60_000)
"""User ids that systems give to people; those of services are smaller or larger."""


def keep_private(flags: Mapping[str, str] | None = None) -> None:
    """Start this program again in this process, with the secrets of its command line moved into its environment.

    `flags` maps an option to a word that takes its place on the command line, for options whose presence a command has
    to see. If the command line has no secrets, the function returns and changes nothing. Entry points call it first.

    Until then the secrets stand in the process list. On a machine with other users, one line on stderr says so.
    """
    words, moved = without_secrets(sys.argv[1:], flags)
    if not moved:
        return
    if _has_other_users():
        for option, variable in sorted(_variables(sys.argv[1:]).items()):
            if variable in moved:
                with contextlib.suppress(OSError):
                    print(f"{Path(sys.argv[0]).name}: {_advice(option, variable)}", file=sys.stderr, flush=True)
    count = len(sys.argv) - 1
    if sys.executable and sys.orig_argv[-count:] == sys.argv[1:]:
        command = [sys.executable, *sys.orig_argv[1:-count], *words]
        sys.stdout.flush()
        os.execve(sys.executable, command, {**os.environ, **moved})
    os.environ.update(moved)  # embedded in another program, whose command line is not ours
    sys.argv[1:] = words


def _variables(words: Sequence[str]) -> dict[str, str]:
    """Return the secret options of this command line's command, each with its environment variable."""
    variable = _TOKENS.get(words[0]) if words else None
    return {**_VARIABLES, "--token": variable} if variable else _VARIABLES


def _advice(option: str, variable: str) -> str:
    """What to do instead of giving this option its secret on the command line."""
    return (
        f"until this program had started, other users of this machine could read the secret of {option} in the process "
        f"list: give it as {option} @FILE, or in the variable {variable}"
    )


def _has_other_users() -> bool:
    """Whether this machine's list of users has people, or what looks like them, beside this user."""
    return any(each.pw_uid in _PEOPLE and each.pw_uid != os.getuid() for each in pwd.getpwall())


def without_secrets(words: Sequence[str], flags: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
    """Return a command line without the options whose value is secret, and these options as environment variables.

    A removed option that is a key of `flags` is replaced by the word there. The URL of Redis or of a proxy is secret
    if it may contain a password, and a join token or a URL of `--notify` unless it names a file (`@FILE`).
    """
    variables = _variables(words)
    given: dict[str, list[str]] = {option: [] for option in variables}
    rest = list(words)
    while rest and rest[0] != "--":
        option, equals, value = rest.pop(0).partition("=")
        if option in given and (equals or rest):
            given[option].append(value if equals else rest.pop(0))
    secret = {option for option, values in given.items() if any(_is_secret(option, value) for value in values)}
    kept: list[str] = []
    rest = list(words)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        option, equals, _ = word.partition("=")
        if option not in secret or not (equals or rest):
            kept.append(word)
            continue
        if not equals:
            rest.pop(0)
        if flags and option in flags:
            kept.append(flags[option])
    return [*kept, *rest], {variables[option]: _in_variable(option, given[option]) for option in secret}


def _in_variable(option: str, values: Sequence[str]) -> str:
    return "".join(f"{value}\n" for value in values) if option in _REPEATED else values[-1]


def _is_secret(option: str, value: str) -> bool:
    if value.startswith("@"):
        return False
    if option == "--proxy":
        return "@" in value
    return bool(value) if option != "--redis-url" else "@" in value or "?" in value
