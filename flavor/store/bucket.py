"""A bucket and a prefix in it, through `obstore`: how it is opened, waited for, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from flavor.errors import (
    InvalidSetting,
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from flavor.store.requests import Requests
from flavor.store.settings import Endurance
from flavor.store.url import bucket_url
from flavor.store.wire import proxies_in_use, proxy_for
from flavor.watch import current_watch

_SIGNED_S = 120.0
"""obstore repeats a request with its first signature, which services take for 15 min: after this it is signed anew."""
_LONGEST_S = 86_400.0
"""Longest duration of one request, as long as bytes move."""
_LONGEST_PART_S = 3_600.0
"""Longest duration of a request whose bytes are not counted: the system gives up a dead connection after 30 s."""


_NO_CREDENTIALS = (
    "there are no credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your service "
    "uses), nor does this machine have a role"
)
_MACHINE_ROLES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""Address that obstore asks for credentials when the environment has none."""
_CLOCK = ("RequestTimeTooSkewed", "RequestExpired")
"""What a service says of a request that is signed with another time than its own."""
_STATUS_OF = {"AccessDenied": 403, "InternalError": 500, "ServiceUnavailable": 503, "SlowDown": 503}
"""The status that S3 would answer alone with, by the code that it gives for one object of many."""
_NO_ENTRY = "it does not let us in: check the credentials in the environment and what they allow"


class Bucket(Requests):
    """The objects below `s3://BUCKET/PREFIX` (or `gs`, `az`); `reading` and `writing` are what obstore is called with.

    Raises `InvalidSetting` for a URL or an environment that cannot be used.
    """

    def __init__(self, url: str, endurance: Endurance) -> None:
        super().__init__(bucket_url(url), endurance)
        self.reading = _opened(self.url, endurance, reading=True)
        self.writing = _opened(self.url, endurance, reading=False)

    def try_out(self) -> None:
        """Raise unless the bucket can be written and refuses to write an object twice."""
        key = f".probe/{secrets.token_hex(12)}"
        self.ask(key, lambda: self.writing.put(key, b"1", mode="create", use_multipart=False))
        try:
            self.ask(key, lambda: self.writing.put(key, b"2", mode="create", use_multipart=False))
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
        """Turn obstore's errors into this project's, without the text that obstore quotes."""
        from obstore import exceptions as raised

        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise _unavailable(self.url, "there is no such bucket", passing=False) from None
            raise ObjectMissing(f"object {key} is not in the store {self.url}") from None
        except raised.AlreadyExistsError:
            raise ObjectExists(already_there(key)) from None
        except (raised.PermissionDeniedError, raised.UnauthenticatedError) as error:
            raise refusal(self.url, key, 403, _code(str(error))) from None
        except raised.PreconditionError:
            raise StoreError(f"object {key} was changed in the store while it was read: try again") from None
        except (raised.BaseError, ValueError) as error:
            current_watch().check()  # the transfer was stopped, which closed the connections that its threads use
            raise _obstore_failure(self.url, key, str(error)) from None


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
        client["timeout"] = timedelta(seconds=_LONGEST_S)
    elif not url.startswith("s3:"):  # what is large goes another way to S3
        client["timeout"] = timedelta(seconds=max(endurance.request_s, _LONGEST_PART_S))
    scheme = "http" if client["allow_http"] else "https"
    if proxy_for(scheme, _host(url)) is not None and scheme == "http":
        client["pool_max_idle_per_host"] = "0"  # tinyproxy leaves a second request on a connection without an answer
    options: dict[str, Any] = {"copy_if_not_exists": "multipart"} if url.startswith("s3:") else {}
    try:
        return from_url(
            url,
            config=options,  # type: ignore[call-overload]
            client_options=client,
            retry_config={
                "max_retries": 1000,  # it is the time that bounds them
                "retry_timeout": timedelta(seconds=min(endurance.patience_s, _SIGNED_S)),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )
    except Exception as error:  # obstore has an error for each setting of each service
        raise InvalidSetting(f"store {url} cannot be used: {_plain(str(error))}") from None


def _host(url: str) -> str:
    """The host that requests go to, for NO_PROXY."""
    endpoint = next((value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT") and value), "")
    if url.startswith("s3:"):
        return urlsplit(endpoint).netloc or "s3.amazonaws.com"
    return "storage.googleapis.com" if url.startswith("gs:") else "blob.core.windows.net"


def already_there(key: str) -> str:
    """Return the message of `ObjectExists`."""
    return f"object {key} is there already, with other bytes: nothing was changed"


def _unavailable(url: str, said: str, *, passing: bool) -> StoreUnavailable:
    return StoreUnavailable(f"store {url}: {said}", passing=passing)


def no_credentials(url: str) -> StoreUnavailable:
    """The advice where the environment has no credentials."""
    return _unavailable(url, _NO_CREDENTIALS, passing=False)


def failure(url: str, key: str, heard: str, *, status: int = 0, code: str = "") -> StoreUnavailable:
    """Describe a failed request in one line: the service's own code where it sent one, and no part of the request."""
    if status in (401, 403):
        return refusal(url, key, status, code)
    if status:
        said = f"answered {status}" + (f" ({code})" if code else "")
        passing = status >= 500 or status in (408, 409, 429)
    else:
        said, passing = f"no answer, or half of one ({heard})", True
    if passing:
        advice = "it may be overloaded or down: try again later"
        error = _unavailable(url, f"{key}: {said}; {advice}{'' if status else _by_proxy()}", passing=True)
        error.silent = not status
        return error
    return refusal(url, key, status, code)


def refusal(url: str, key: str, status: int, code: str) -> StoreUnavailable:
    """The store has answered and refuses: this process, or this object."""
    answered = f"answered {status}" + (f" ({code})" if code else "")
    if code in _CLOCK:
        said = f"{answered}: this machine's clock is off by more than the service allows, about 15 min: set the clock"
    elif status in (401, 403):
        said = f"{answered}: {_NO_ENTRY}"
    else:
        said = f"{answered}; check the bucket, the region and the rights"
    error = _unavailable(url, f"{key}: {said}", passing=False)
    error.refused = f"{status}{f' {code}' if code else ''}"
    return error


def _obstore_failure(url: str, key: str, text: str) -> StoreUnavailable:
    if any(host in text for host in _MACHINE_ROLES):
        return no_credentials(url)
    if kept := re.search(r"DeleteObjects request failed for key .*\(code: (\w{1,60})\)", text):  # others are deleted
        return failure(url, key, "", status=_STATUS_OF.get(kept[1], 400), code=kept[1])
    status = re.search(r"status code: (\d{3})", text)
    return failure(url, key, _plain(text), status=int(status[1]) if status else 0, code=_code(text))


def _code(text: str) -> str:
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    return code[1] if code else ""


def _by_proxy() -> str:
    """Other causes to look for."""
    names = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if proxies_in_use(name)]
    return f" (it is reached through {' or '.join(names)}; NO_PROXY=HOST goes around)" if names else ""


def _plain(text: str) -> str:
    """Return the first line of obstore's message without URLs, because their queries may be signed."""
    first = text.splitlines()[0] if text else "no reason given"
    first = re.sub(r"(?:Error performing \w+ )?https?://\S+( in [\d.]+\S*)?( - )?", "", first)
    first = re.sub(r"after \d+ retries, max_retries: \d+, retry_timeout: \S+ +- ", "", first)
    return first.removeprefix("Generic S3 error: ").removeprefix("Generic GCS error: ").strip(": ")[:300]
