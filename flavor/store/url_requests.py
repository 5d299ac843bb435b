"""Requests by signed URLs: each is asked for, used until it expires, and asked for again."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flavor.errors import ObjectExists, ObjectMissing, StoreError, StoreUnavailable, TransferStopped
from flavor.outage import pause_s
from flavor.printable import printable
from flavor.records.signed_urls import PARTS_AT_ONCE, SignedUrl, UrlAnswer, UrlUse, UrlWish
from flavor.signals import asked_to_end
from flavor.store.bucket import already_there, failure, unanswered
from flavor.store.bucket_proxy import reached_through
from flavor.store.requests import Requests
from flavor.store.settings import Endurance
from flavor.store.url_fault import clock_fault, code_in
from flavor.store.wire import Answer, Pace, Silence, wire_of
from flavor.watch import current_watch

_USED = 0.9
"""The share of its time after which a URL is asked for again, before a request that it might not outlive."""
_MOST_KEPT = 64
"""Number of objects whose URLs are kept: a run's later rounds have others."""

Asking = Callable[[UrlWish], UrlAnswer]


@dataclass(frozen=True, eq=False)
class Given:
    """A URL as it was given. This machine's clock is asked for nothing but how long ago that was."""

    signed: SignedUrl
    ends_at: float
    """On the monotonic clock."""

    @property
    def is_due(self) -> bool:
        """Whether another one is to be asked for."""
        return time.monotonic() >= self.ends_at


Urls = Callable[[Given | None], Given]
"""Returns a URL; given one that the store has refused, another one."""


class _Refused(StoreError):
    """The store refuses a URL, which may have expired."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("the store refuses a signed URL")
        self.answer = answer


class UrlRequests(Requests):
    """Asks for signed URLs, and sends requests with them to the store at `url`. No message names a signed URL.

    `tell` is told once to which host the URLs lead, and once of a clock that is wrong.
    """

    def __init__(self, url: str, ask: Asking, endurance: Endurance, tell: Callable[[str], None]) -> None:
        super().__init__(url, endurance)
        self._ask, self._tell_user, self._told = ask, tell, set[str]()
        self._wire = wire_of(endurance)
        self._lock = threading.RLock()
        self._given: dict[str, Given] = {}
        self._host = ""

    @property
    def way(self) -> str:
        """See `Requests`. The address of the bucket is that to which the URLs lead."""
        return reached_through(urlsplit(self._host)) if self._host else ""

    @property
    def pace(self) -> Pace:
        """The measured speed of the link to the store."""
        return self._wire.pace

    def asked(self, use: UrlUse, path: str, **words: Any) -> UrlAnswer:
        """Return the coordinator's answer to a wish. Raises `StoreUnavailable` and `TransferStopped` for a refusal."""
        since = time.monotonic()
        while (answer := self._ask(UrlWish(secrets.token_hex(8), use, path, **words))).is_passing:
            self.tell_once(f"the run's coordinator gives no URL for now, which is asked for again: {answer.refused}")
            waited_s = time.monotonic() - since
            if waited_s >= self.endurance.patience_s:
                break
            if current_watch().pause(pause_s(waited_s), unless=asked_to_end):
                break
        if answer.is_over:
            raise TransferStopped(f"object {path}: no URL is given: {answer.refused}")
        if answer.refused:
            raise StoreUnavailable(
                f"store {self.url}: {path}: the run's coordinator gives no URL: {answer.refused}",
                passing=answer.is_passing,
            )
        for each in answer.urls:
            self._check_host(each.url)
        return answer

    def given(self, answer: UrlAnswer) -> list[Given]:
        """Return the URLs of an answer, with the time at which others are to be asked for."""
        return [Given(each, time.monotonic() + _USED * answer.expires_s) for each in answer.urls]

    def one(self, use: UrlUse, path: str, **words: Any) -> Given:
        """Ask for one URL."""
        found = self.given(self.asked(use, path, **words))
        if not found:
            raise StoreUnavailable(f"store {self.url}: {path}: the run's coordinator has answered without a URL")
        return found[0]

    def reading(self, path: str) -> Urls:
        """Return where the URLs come from that read this object; one is kept for further requests."""

        def urls(refused: Given | None) -> Given:
            with self._lock:
                found = self._given.get(path)
                if found is None or found is refused or found.is_due:
                    while len(self._given) >= _MOST_KEPT:
                        del self._given[next(iter(self._given))]
                    found = self._given[path] = self.one(UrlUse.GET, path)
                return found

        return urls

    def answered(
        self,
        path: str,
        method: str,
        urls: Urls,
        *,
        body: memoryview | bytes = b"",
        headers: Callable[[], Mapping[str, str]] = dict,
        into: Callable[[bytes], object] | None = None,
    ) -> Answer:
        """Send a request, again while the store does not answer; return a good answer.

        A URL that the store refuses is taken for one that has expired, and another one is asked for: a refusal of that
        one counts. `headers` are asked for before each attempt. Raises `ObjectMissing`, `ObjectExists` and
        `StoreUnavailable`.
        """
        given, is_new, since = urls(None), False, time.monotonic()
        while True:
            try:
                return self.persist(path, lambda: self._sent(path, method, given, body, headers(), into))  # noqa: B023
            except _Refused as error:
                if is_new:
                    self._wait_for_clock(path, error.answer, since)
                given, is_new = urls(given), True

    def _sent(
        self,
        path: str,
        method: str,
        given: Given,
        body: memoryview | bytes,
        headers: Mapping[str, str],
        into: Callable[[bytes], object] | None,
    ) -> Answer:
        signed = given.signed
        try:
            answer = self._wire.send(
                method, signed.url, {**signed.headers, **headers}, memoryview(body), current_watch(), into=into
            )
        except Silence as error:
            raise unanswered(self.url, path, error, way=self.way) from None
        if answer.status < 300:
            return answer
        code = code_in(answer.content)
        if answer.status in (401, 403) or (answer.status == 400 and clock_fault(answer.content)):
            raise _Refused(answer)
        if answer.status == 404 and code != "NoSuchBucket":
            raise ObjectMissing(f"object {path} is not in the store {self.url}")
        if answer.status == 412:
            raise ObjectExists(already_there(path))
        raise failure(self.url, path, "", status=answer.status, code=code)

    def _wait_for_clock(self, path: str, answer: Answer, since: float) -> None:
        """Wait a moment where the store takes a URL that was just signed for one of another time; raise otherwise."""
        code = code_in(answer.content)
        said = f"{answer.status}{f' ({code})' if code else ''}"
        what = f"store {printable(self.url)}: it refuses a URL that the run's coordinator has just signed, with {said}"
        if not clock_fault(answer.content):
            error = StoreUnavailable(
                f"{what}, for {path}: ask the run's operator what the coordinator's credentials allow"
            )
            error.refused = said
            raise error
        cause = "the clock of the coordinator's machine is wrong: ask the run's operator to set it"
        if code == "ExpiredToken":
            cause = "the coordinator's credentials have expired: ask the run's operator to renew them"
        why = f"{what}: {cause}"
        waited_s = time.monotonic() - since
        self.tell_once(why)
        if waited_s >= self.endurance.patience_s or current_watch().pause(pause_s(waited_s), unless=asked_to_end):
            raise StoreUnavailable(why, passing=True)

    def tell_once(self, line: str) -> None:
        """Tell this site's user something, unless it was told before."""
        with self._lock:
            is_news = line not in self._told
            self._told.add(line)
        if is_news:
            self._tell_user(line)

    def _check_host(self, url: str) -> None:
        """Raise `StoreUnavailable` for a URL that leads to another host than the first one, or into this machine's net.

        So no coordinator can make this site send requests to other machines than the one that the user was told of.
        """
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            host = f"{parts.scheme}://{parts.netloc}"
            if parts.scheme in ("http", "https") and parts.hostname and not _is_link_local(parts.hostname):
                with self._lock:
                    if not self._host:
                        self._host = host
                        self.tell_once(f"the URLs that the run's coordinator signs lead to {host}")
                if host == self._host:
                    return
                raise StoreUnavailable(
                    f"store {self.url}: the run's coordinator gives URLs of another host than before, which this site "
                    "does not follow: start this again if the run's operator has moved the store"
                )
        raise StoreUnavailable(f"store {self.url}: the run's coordinator gives URLs that cannot be used here")


class PartUrls:
    """The URLs of one upload in parts, asked for as parts are sent."""

    def __init__(
        self, requests: UrlRequests, path: str, upload: str, missing: Sequence[int], begun: UrlAnswer, **words: Any
    ) -> None:
        """Begin with the URLs of the answer `begun`, for the first parts of `missing`. `words` are those of a wish."""
        self._requests, self._path, self._missing = requests, path, missing
        self._words = {**words, "upload": upload}
        self._lock = threading.Lock()
        self._given = dict(zip(missing, requests.given(begun), strict=False))

    def of(self, number: int) -> Urls:
        """Return where the URLs of this part come from."""

        def urls(refused: Given | None) -> Given:
            with self._lock:
                found = self._given.get(number)
                if found is None or found is refused or found.is_due:
                    at = self._missing.index(number)
                    numbers = tuple(self._missing[at : at + PARTS_AT_ONCE])
                    answer = self._requests.asked(UrlUse.PARTS, self._path, parts=numbers, **self._words)
                    self._given = dict(zip(numbers, self._requests.given(answer), strict=False))
                    found = self._given.get(number)
                if found is None:
                    raise StoreUnavailable(f"{self._path}: the run's coordinator has answered without a URL")
                return found

        return urls


def _is_link_local(host: str) -> bool:
    """Whether this is an address at which machines of clouds give out credentials, and no store lies."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "metadata.google.internal"
    return address.is_link_local or address.is_multicast or address.is_unspecified
