"""Where messages go: one destination of apprise, with a thread of its own, so that none delays another or the run."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flavor.errors import InvalidSetting
from flavor.notices.digest import Message

if TYPE_CHECKING:
    from apprise import Apprise

SEND_S = 10.0
"""Longest time of one attempt to send."""
_ANSWER_S = 8.0
"""Seconds without an answer after which a message counts as lost, and is sent again: so that few arrive twice."""
_AGAIN_S = 3.0
_MOST_WAITING = 8
_MOST_URLS = 20
_MOST_BYTES = 64 * 1024
_SCHEME = re.compile(r"[a-z][a-z0-9]{0,19}")


class Destination:
    """One destination. Its URL is a secret: nothing that this class says has a part of it but the service's name."""

    def __init__(self, apprise: Apprise, name: str, tell: Callable[[str], None]) -> None:
        self._apprise, self.name, self._tell = apprise, name, tell
        self._waiting: queue.Queue[Message | None] = queue.Queue(_MOST_WAITING)
        self._done = threading.Event()
        self._over = threading.Event()
        self._has_told = False
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Have a message sent. It is lost where so many wait already that the destination must have failed."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._told(f"messages are lost, because {_MOST_WAITING} wait already")

    def finish(self, timeout_s: float) -> None:
        """Wait for the messages that are left, for so many seconds; say so where they are lost."""
        self._over.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        if not self._done.wait(timeout_s):
            self._told("the last message may be lost, because it was not taken in time")

    def _work(self) -> None:
        while (message := self._next()) is not None:
            why = self._send(message)
            if why and not self._over.wait(_AGAIN_S):  # a moment's fault
                why = self._send(message)
            if why:
                self._told(f"a message was not delivered: {why}")
        self._done.set()

    def _next(self) -> Message | None:
        """Wait for a message; None once there are no more."""
        if self._over.is_set() and self._waiting.empty():
            return None
        return self._waiting.get()

    def _send(self, message: Message) -> str:
        """Send a message; return why it was not delivered."""
        said: list[str] = []

        def heard(entry: Any, service: Any) -> None:
            said.append(str(entry.message))

        try:
            from apprise import NotifyFormat

            result = self._apprise.notify(
                title=message.title,
                body=message.body,
                notify_type=message.tone.value,
                body_format=NotifyFormat.TEXT,
                timeout=SEND_S,
                log_callback=heard,
            )
            return "" if result else _why(said)
        except Exception as error:  # of a plug-in of apprise; its text may have the URL
            return f"the package apprise failed ({type(error).__name__})"

    def _told(self, line: str) -> None:
        if not self._has_told:
            self._has_told = True
            self._tell(f"notices by {self.name}: {line}; this is said once")


def _why(said: Sequence[str]) -> str:
    """Say why a message was not delivered, without the words of the library, which may have parts of the URL."""
    for line in said:
        if code := re.search(r"error[= ](\d{3})\b", line):
            return f"the service answers with HTTP {code[1]}"
        if "onnection" in line:
            return "there is no connection to the service, or it does not answer in time"
    return "the service did not take it, or did not answer in time"


def destinations(given: Iterable[str], tell: Callable[[str], None]) -> list[Destination]:
    """Make the destinations of `--notify`: URLs of apprise, and files that have one on each line (`@FILE`).

    Raises `InvalidSetting`, which names no URL.
    """
    urls = [url for each in given for url in (_of_file(each[1:]) if each.startswith("@") else [each.strip()]) if url]
    if len(urls) > _MOST_URLS:
        raise InvalidSetting(f"--notify: there are {len(urls)} URLs, and at most {_MOST_URLS} are taken")
    if not urls:
        return []
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise InvalidSetting(
            "--notify needs a library that is not installed: pip install '.[notify]' in flavor's folder"
        ) from None
    logger = logging.getLogger("apprise")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False  # its lines may have parts of a URL
    warnings.filterwarnings("ignore", "Unverified HTTPS request")  # it names the host; the URL's own user has chosen it
    made = []
    for number, url in enumerate(urls, 1):
        asset = AppriseAsset(
            app_id="flavor",
            app_desc="flavor",
            app_url="",
            image_url_mask="",
            image_url_logo="",
            async_mode=False,
            pgp_autogen=False,
            pem_autogen=False,
        )
        apprise = Apprise(asset=asset)
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what its plug-ins import
            apprise.add(url)
        if len(apprise) == 0:
            raise InvalidSetting(f"--notify: URL {number} of {len(urls)} cannot be used{_about(url)}")
        for service in apprise:
            if service.socket_read_timeout == type(service).socket_read_timeout:  # unless the URL says another
                service.socket_read_timeout = _ANSWER_S
        services = dict.fromkeys(str(service.service_name or "a service") for service in apprise)
        made.append((apprise, " and ".join(services)))
    return [Destination(apprise, name, tell) for apprise, name in made]


def _about(url: str) -> str:
    """What can be said of a URL that cannot be used, without a part of it that may be secret."""
    scheme, found, _ = url.partition("://")
    if not found:
        return ": it has no scheme, as in json://HOST/PATH: the package apprise lists what each service needs"
    name = f" ({scheme}://)" if _SCHEME.fullmatch(scheme) else ""
    return f"{name}: the package apprise does not know its scheme, or a part is missing"


def _of_file(path: str) -> list[str]:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
    except OSError as error:
        raise InvalidSetting(f"--notify @{path}: {error.strerror}") from None
    except ValueError:
        raise InvalidSetting(f"--notify @{path}: the file is no text") from None
    urls = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not urls:
        raise InvalidSetting(f"--notify @{path}: the file has no URL: write one on each line")
    return urls
