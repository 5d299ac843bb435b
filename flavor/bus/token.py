"""The join token: all settings that a site needs to take part, in one word."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_serializer

from flavor.bus.connection import checked_url
from flavor.errors import InvalidSetting
from flavor.protocol import OLDEST, PROTOCOL, here, named, release_of, spoken
from flavor.records.names import checked_name

_PREFIX = "flavor-join:"
_LONGEST_NAME = 255
"""Of a file, on any file system."""
_MOST_BYTES = 1 << 20


class JoinToken(BaseModel):
    """`flavor-join:` and JSON in base64url. Frozen; shows its secret neither in `repr` nor in errors."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    url: str
    """URL of Redis as the site reaches it, without user, password and query."""
    user: str
    """The client's Redis user."""
    secret: SecretStr = Field(min_length=1)
    """Its password."""
    run: str
    client: str
    store: str | None = None
    """Object store as the site reaches it; None for the bucket that the run names, or the store that the site names."""
    trust: tuple[str, ...] | None = None
    """Public keys of the aggregators whose global models the site trains from; None for all aggregators."""
    ca: str | None = None
    """The CA that signed the server's certificate, in PEM; None for the system's CAs."""
    protocol: int = OLDEST
    """The protocol version that a site needs to take part: that of the run, if it was there when the token was made."""
    release: str = ""
    """The release of flavor that made the token; '' for 0.1.0."""

    @field_serializer("secret", when_used="json")
    def _revealed(self, secret: SecretStr) -> str:
        return secret.get_secret_value()

    def encode(self) -> str:
        """Return the token as one word."""
        text = self.model_dump_json(exclude_none=True)
        return _PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Read the token in `text`, or in the file FILE for `@FILE`. Raises `InvalidSetting`, without a quotation."""
        word = "".join(_read(text).split())  # mail programs break long lines
        if not word:
            raise InvalidSetting(
                f"{'the file ' + text[1:] if text.startswith('@') else 'the join token'} is empty: `flavor enroll` "
                "prints a token, and nothing where it fails: ask the run's operator for another one"
            )
        if not word.startswith(_PREFIX):
            is_file = len(text) < _LONGEST_NAME and Path(text).is_file()
            file = f"; one in a file is given as --join @{text}" if is_file else ""
            raise InvalidSetting(
                f"this is not a join token, which begins with {_PREFIX!r}: `flavor enroll` prints one{file}"
            )
        try:
            body = word.removeprefix(_PREFIX)
            decoded = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            _check_version(json.loads(decoded))
            token = cls.model_validate_json(decoded)
            checked_name(token.run, "run")
            checked_name(token.client, "client")
            if urlsplit(checked_url(token.url)).username is not None:
                raise ValueError("credentials in the URL")
        except _OtherVersion as error:
            raise InvalidSetting(str(error)) from None
        except (ValidationError, InvalidSetting, ValueError, binascii.Error, RecursionError):
            raise InvalidSetting("the join token is damaged: copy all of it, as `flavor enroll` printed it") from None
        return token

    def credentials(self) -> str:
        """The bus's URL with this client's user and password: itself a secret."""
        return with_credentials(self.url, self.user, self.secret.get_secret_value())


class _OtherVersion(Exception):
    """The token is for runs that this release cannot take part in."""


def _check_version(values: Any) -> None:
    """Raise `_OtherVersion` for a token of another version, whose other fields this release may not know."""
    if not isinstance(values, dict) or "protocol" not in values:
        return
    protocol, release = spoken(values["protocol"]), release_of(values.get("release"))
    if not OLDEST <= protocol <= PROTOCOL:
        do = "upgrade flavor here" if protocol > PROTOCOL else "have the run's operator make another one"
        raise _OtherVersion(f"the join token was made by {named(release, protocol)}, and this is {here()}: {do}")


def _read(text: str) -> str:
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open(encoding="ascii") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidSetting(f"--join @{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"--join @{path}: there is no join token in it") from None


def without_credentials(url: str) -> str:
    """Return the URL without user, password and query."""
    parts = urlsplit(checked_url(url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def with_credentials(url: str, user: str, secret: str) -> str:
    """Return the URL with this user and password."""
    parts = urlsplit(without_credentials(url))
    return f"{parts.scheme}://{quote(user, safe='')}:{quote(secret, safe='')}@{parts.netloc}{parts.path}"
