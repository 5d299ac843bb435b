"""The tokens that pages and scrapes are asked for: the option `--token` of `flavor ui` and `flavor metrics`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flavor.errors import InvalidSetting

LEAST_CHARACTERS = 8
_LONGEST = 512
_MOST_BYTES = 4096


def taken_out(variable: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback of an option whose `variable` holds a secret: it leaves the environment of this process.

    No program that this one starts finds the secret then. An empty one stays, for `read_token` to refuse it.
    """

    def taken(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if os.environ.get(variable):
            del os.environ[variable]
        return value

    return taken


def read_token(given: str | None, variable: str) -> str | None:
    """Return the token of `--token`, or of its `variable`, or that in the file FILE for `@FILE`; None for none.

    Raises `InvalidSetting` for one that is easily guessed, or that no browser can send, and for an empty `variable`,
    which click takes for none: the command that should have made the token may have failed.
    """
    if given is None:
        if os.environ.get(variable) == "":
            raise InvalidSetting(
                f"{variable} is empty: give it a token (`openssl rand -hex 16` makes one), or unset it for none"
            )
        return None
    where, token = "--token", given
    if given.startswith("@"):
        where = f"--token {given}"
        try:
            with Path(given[1:]).open(encoding="utf-8") as file:
                token = file.read(_MOST_BYTES).strip()
        except OSError as error:
            raise InvalidSetting(f"{where}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InvalidSetting(f"{where}: there is no token in it") from None
    if len(token) < LEAST_CHARACTERS:
        raise InvalidSetting(
            f"{where} ({variable}): a token needs {LEAST_CHARACTERS} characters or more, so that it cannot be guessed: "
            "`openssl rand -hex 16` makes one"
        )
    if len(token) > _LONGEST or not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidSetting(f"{where} ({variable}): a token has letters, digits and signs, and no spaces")
    return token
