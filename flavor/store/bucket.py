"""A bucket and a prefix in it, through `obstore`: how it is opened, waited for, and what its errors mean."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from flavor.errors import InvalidSetting, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from flavor.signals import pause
from flavor.store.paths import checked_path

_ATTEMPTS = 2
"""At least so many times a write is tried, even if the first took all patience to time out."""

_NO_CREDENTIALS = (
    "there are no credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your service "
    "uses), nor does this machine have a role"
)
_MACHINE_ROLES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""Where obstore asks for credentials when the environment has none."""
_NO_ENTRY = "it does not let us in: check the credentials in the environment and what they allow"


@dataclass(frozen=True)
class Endurance:
    """How long a store is waited for. Every wait is bounded."""

    patience_s: float = 60.0
    """How long one request is repeated that fails for want of an answer, or with a 5xx."""
    request_s: float = 180.0
    """Longest that one request may take, with at most 16 MiB to send or 8 MiB to receive."""
    silence_s: float = 20.0
    """Longest that a store may say nothing in the middle of an answer."""


_endurance = Endurance()


def set_patience(patience_s: float) -> None:
    """For entry points: how long every store that is opened from now on is waited for."""
    global _endurance  # noqa: PLW0603 - one patience a process, chosen before anything else
    _endurance = replace(_endurance, patience_s=patience_s)


def chosen_endurance() -> Endurance:
    """What the entry point has chosen."""
    return _endurance


class Bucket:
    """The objects below `s3://BUCKET/PREFIX` (or `gs`, `az`); `reading` and `writing` are what obstore is called with.

    Raises `InvalidSetting` for a URL or an environment that cannot be used.
    """

    def __init__(self, url: str, endurance: Endurance) -> None:
        self.url = _checked_url(url)
        self._patience_s = endurance.patience_s
        self.reading = _opened(self.url, endurance, reading=True)
        self.writing = _opened(self.url, endurance, reading=False)

    def persist(self, key: str, act: Callable[[], object]) -> None:
        """Do it, and again while the store does not answer: obstore repeats no conditional write that timed out.

        Repeating is harmless: what was done already is found to exist.
        """
        deadline, pause_s = time.monotonic() + self._patience_s, 0.2
        for attempt in itertools.count(1):
            try:
                with self.translated(key):
                    act()
                return
            except StoreUnavailable as error:
                left_s = deadline - time.monotonic()
                if not error.passing or (left_s <= 0 and attempt >= _ATTEMPTS) or pause(max(0.0, min(pause_s, left_s))):
                    raise
                pause_s = min(2 * pause_s, 5.0)

    def try_out(self) -> None:
        """Raise unless it can be written, and refuses to write an object twice."""
        key = f".probe/{secrets.token_hex(12)}"
        with self.translated(key):
            self.writing.put(key, b"1", mode="create", use_multipart=False)
        try:
            with self.translated(key):
                self.writing.put(key, b"2", mode="create", use_multipart=False)
        except ObjectExists:
            return
        finally:
            with contextlib.suppress(Exception):
                self.writing.delete(key)
        raise InvalidSetting(
            f"store {self.url} cannot be used: it writes an object twice, though asked not to (If-None-Match); "
            "see docs/store.md for what can"
        )

    @contextlib.contextmanager
    def translated(self, key: str) -> Iterator[None]:
        """Turn what obstore raises into this project's errors, without what it quotes."""
        from obstore import exceptions as raised

        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise _unavailable(self.url, "there is no such bucket", passing=False) from None
            raise ObjectMissing(f"object {key} is not in the store {self.url}") from None
        except raised.AlreadyExistsError:
            raise ObjectExists(already_there(key)) from None
        except (raised.PermissionDeniedError, raised.UnauthenticatedError):
            raise _unavailable(self.url, f"{key}: {_NO_ENTRY}", passing=False) from None
        except raised.PreconditionError:
            raise StoreError(f"object {key} was changed in the store while it was read: try again") from None
        except (raised.BaseError, ValueError) as error:
            raise _failure(self.url, key, str(error)) from None


def _checked_url(url: str) -> str:
    """`s3://BUCKET/PREFIX`, without a slash at its end; `InvalidSetting` for anything else, which is not quoted."""
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


def _opened(url: str, endurance: Endurance, *, reading: bool) -> Any:
    try:
        from obstore.store import from_url
    except ImportError:
        raise InvalidSetting(
            f"store {url} needs a library that is not installed: pip install '.[s3]' in flavor's folder"
        ) from None
    endpoints = (value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT"))
    client: dict[str, Any] = {
        "allow_http": any(value.startswith("http://") for value in endpoints),  # only where it was asked for
        "connect_timeout": timedelta(seconds=min(5.0, endurance.request_s)),
        "timeout": timedelta(seconds=endurance.request_s),
    }
    if reading:  # while a body is sent nothing is read, so there it would end slow uploads
        client["read_timeout"] = timedelta(seconds=endurance.silence_s)
    options: dict[str, Any] = {"copy_if_not_exists": "multipart"} if url.startswith("s3:") else {}
    try:
        return from_url(
            url,
            config=options,  # type: ignore[call-overload]
            client_options=client,
            retry_config={
                "max_retries": 1000,  # it is the time that bounds them
                "retry_timeout": timedelta(seconds=endurance.patience_s),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )
    except Exception as error:  # obstore has an error for each setting of each service
        raise InvalidSetting(f"store {url} cannot be used: {_plain(str(error))}") from None


def already_there(key: str) -> str:
    """The message of `ObjectExists`."""
    return f"object {key} is there already, with other bytes: nothing was changed"


def _unavailable(url: str, said: str, *, passing: bool) -> StoreUnavailable:
    return StoreUnavailable(f"store {url}: {said}", passing=passing)


def _failure(url: str, key: str, text: str) -> StoreUnavailable:
    """One line about a failed request: the service's own code where it sent one, nothing of the request."""
    if any(host in text for host in _MACHINE_ROLES):
        return _unavailable(url, _NO_CREDENTIALS, passing=False)
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    if status and status[1] in ("401", "403"):
        return _unavailable(url, f"{key}: {_NO_ENTRY}", passing=False)
    if status:
        said = f"answered {status[1]}" + (f" ({code[1]})" if code else "")
        passing = status[1][0] == "5" or status[1] in ("408", "429")
    else:
        said, passing = f"no answer, or half of one ({_plain(text)})", True
    advice = (
        "it may be overloaded or down: try again later" if passing else "check the bucket, the region and the rights"
    )
    return _unavailable(url, f"{key}: {said}; {advice}", passing=passing)


def _plain(text: str) -> str:
    """The first line of a message of obstore's without URLs, whose queries may be signed."""
    first = text.splitlines()[0] if text else "no reason given"
    first = re.sub(r"(?:Error performing \w+ )?https?://\S+( in [\d.]+\S*)?( - )?", "", first)
    first = re.sub(r"after \d+ retries, max_retries: \d+, retry_timeout: \S+ +- ", "", first)
    return first.removeprefix("Generic S3 error: ").removeprefix("Generic GCS error: ").strip(": ")[:300]
