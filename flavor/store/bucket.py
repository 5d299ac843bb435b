"""A bucket and a prefix in it, through `obstore`: how it is opened, waited for, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from flavor.errors import (
    InvalidSetting,
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from flavor.store import certificate
from flavor.store.bucket_proxy import endpoint_of, proxy_options, reached_through, refusal_of_proxy
from flavor.store.requests import Requests
from flavor.store.settings import Endurance
from flavor.store.url import bucket_url
from flavor.store.wire import Silence
from flavor.tunnel import ProxyFailure
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
_MACHINE_ROLES = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal")
"""Address that obstore asks for credentials when the environment has none."""
_CLOCK = ("RequestTimeTooSkewed", "RequestExpired")
"""What a service says of a request that is signed with another time than its own."""
_STATUS_OF = {"AccessDenied": 403, "InternalError": 500, "ServiceUnavailable": 503, "SlowDown": 503}
"""The status that S3 would answer alone with, by the code that it gives for one object of many."""
_NO_ENTRY = "it does not let us in: check the credentials in the environment and what they allow"


class Bucket(Requests):
    """The objects below `s3://BUCKET/PREFIX` (or `gs`, `az`); `reading` and `writing` are what obstore is called with.

    Raises `InvalidSetting` for a URL or an environment that cannot be used, and `StoreUnavailable` where a proxy
    refuses to lead to the service.
    """

    def __init__(self, url: str, endurance: Endurance) -> None:
        super().__init__(bucket_url(url), endurance)
        self._endpoint = endpoint_of(self.url)
        if (refused := refusal_of_proxy(self._endpoint)) is not None and refused.lasting:
            raise _unavailable(self.url, str(refused), passing=False)
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
            code = _code(str(error))
            raise self._by_proxy(key, 403, code) or refusal(self.url, key, 403, code) from None
        except raised.PreconditionError:
            raise StoreError(f"object {key} was changed in the store while it was read: try again") from None
        except (raised.BaseError, ValueError) as error:
            current_watch().check()  # the transfer was stopped, which closed the connections that its threads use
            text = str(error)
            by_proxy = self._by_proxy(key, _status(text), _code(text))
            raise by_proxy or _obstore_failure(self.url, key, text) from None

    def _by_proxy(self, key: str, status: int, code: str) -> StoreUnavailable | None:
        """Return the error where the proxy has refused or failed, and not the service, which obstore does not tell."""
        if code or (status if self._endpoint.scheme == "https" else status not in (0, 403, 407)):
            return None
        failed = refusal_of_proxy(self._endpoint)
        return None if failed is None else failure(self.url, key, "", proxy=failed)


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
    client |= proxy_options(endpoint_of(url))
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


def already_there(key: str) -> str:
    """Return the message of `ObjectExists`."""
    return f"object {key} is there already, with other bytes: nothing was changed"


def _unavailable(url: str, said: str, *, passing: bool) -> StoreUnavailable:
    return StoreUnavailable(f"store {url}: {said}", passing=passing)


def no_credentials(url: str) -> StoreUnavailable:
    """The advice where the environment has no credentials."""
    return _unavailable(url, _NO_CREDENTIALS, passing=False)


def failure(
    url: str,
    key: str,
    heard: str,
    *,
    status: int = 0,
    code: str = "",
    proxy: ProxyFailure | None = None,
    way: str | None = None,
) -> StoreUnavailable:
    """Describe a failed request in one line: the service's own code where it sent one, and no part of the request.

    `proxy` is the failure of a proxy, where there is one, and `way` names the way to the service, where it is not that
    of the store's URL.
    """
    way = reached_through(endpoint_of(url)) if way is None else way
    if proxy is not None:
        error = _unavailable(url, f"{key}: {proxy}", passing=not proxy.lasting)
        error.silent = not proxy.lasting
        return error
    if status in (401, 403):
        return refusal(url, key, status, code)
    if status:
        said = f"answered {status}" + (f" ({code})" if code else "")
        passing = status >= 500 or status in (408, 409, 429)
    else:
        said, passing = f"no answer, or half of one ({heard})", True
    if passing:
        advice = "it may be overloaded or down: try again later"
        error = _unavailable(url, f"{key}: {said}; {advice}{'' if status else way}", passing=True)
        error.silent = not status
        return error
    return refusal(url, key, status, code)


def unanswered(url: str, key: str, silence: Silence, *, way: str | None = None) -> StoreUnavailable:
    """Describe a request without an answer; see `failure`."""
    if silence.refusal is not None:
        return _untrusted(url, key, silence.refusal, way)
    return failure(url, key, str(silence), proxy=silence.failure, way=way)


def _untrusted(url: str, key: str, refused: certificate.Refusal, way: str | None = None) -> StoreUnavailable:
    way = reached_through(endpoint_of(url)) if way is None else way
    return _unavailable(url, f"{key}: {refused}{way}", passing=refused.passing)


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
    if refused := certificate.Refusal.in_text(text):
        return _untrusted(url, key, refused)
    return failure(url, key, _plain(text), status=_status(text), code=_code(text))


def _status(text: str) -> int:
    status = re.search(r"status code: (\d{3})", text)
    return int(status[1]) if status else 0


def _code(text: str) -> str:
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    return code[1] if code else ""


def _plain(text: str) -> str:
    """Return the first line of obstore's message without URLs, because their queries may be signed."""
    first = text.splitlines()[0] if text else "no reason given"
    first = re.sub(r"(?:Error performing \w+ )?https?://\S+( in [\d.]+\S*)?( - )?", "", first)
    first = re.sub(r"after \d+ retries, max_retries: \d+, retry_timeout: \S+ +- ", "", first)
    return first.removeprefix("Generic S3 error: ").removeprefix("Generic GCS error: ").strip(": ")[:300]
