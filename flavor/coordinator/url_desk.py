"""Signs URLs for the sites of a run, in threads beside the loop: no round waits for a signature, or for the bucket.

A site asks by a wish in its own keys, and is answered in its mailbox. What signing alone needs is done at once by the
desk's thread. What asks the bucket, because an object is written in parts, is done by a few other threads.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.bus.subscription import RESYNC, Subscription
from flavor.bus.wishes import answer_wish, coordinator_token, is_admitted, read_wish, run_now
from flavor.config import RunConfig
from flavor.coordinator.told_faults import ToldFaults
from flavor.coordinator.url_counts import UrlCounts
from flavor.errors import FlavorError, StoreError, StoreUnavailable
from flavor.printable import quoted
from flavor.records.client import Role
from flavor.records.run import RunView
from flavor.records.signed_urls import UrlAnswer, UrlUse, UrlWish, sizes_of_parts
from flavor.records.states import RunState
from flavor.store.aside import begun
from flavor.store.paths import clients_folder, is_info, round_of
from flavor.store.protocol import ObjectStore
from flavor.store.settings import Endurance
from flavor.store.signer import Signer, opened_signer, part_bytes_of
from flavor.store.url_grants import granted
from flavor.store.url_rights import Occasion, occasion_of, refusal_of

EXPIRES_S = 3600
"""Lifetime of a URL: a site that needs one for longer asks again."""
_LAST_EXPIRES_S = 12 * 3600
"""Lifetime of a URL of the last model: once the coordinator has ended, no site can ask again."""
_LANES = 4
"""Number of threads that ask the bucket."""
_BURST, _EACH_S = 60, 20.0
"""So many wishes of one client are answered at once, and so many in each second after that."""
_MOST_NAMED = 20
_OF_STORE = ("store away", "store refuses")
"""Kinds of faults: those that pass by themselves, and others."""
_LOOK_S, _SOON_S, _AGAIN_S = 2.0, 0.1, 1.0
_SEES_OFF_S = 30.0
"""The longest time for which a coordinator stays after the end of its run, so that sites ask for the last model."""


class _Pace:
    """Bounds how many wishes of one client are answered."""

    def __init__(self, now: float) -> None:
        self._left, self._at = float(_BURST), now

    def take(self, now: float) -> bool:
        """Whether one more may be answered now."""
        self._left, self._at = min(_BURST, self._left + (now - self._at) * _EACH_S), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class UrlDesk:
    """Answers the wishes of one run's sites for URLs.

    It answers only while no other process has the coordinator's lease, which this process holds by `token`; '' for a
    command that asks for evaluations, and answers where no coordinator is there.
    """

    def __init__(
        self,
        runs: RunStore,
        config: RunConfig,
        redis_url: str,
        signer: Signer,
        *,
        token: str,
        tell: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._config, self._signer, self._tell, self._token = config, signer, tell, token
        redis = connect(redis_url, patience_s=patience_s, client_name=f"flavor-urls:{runs.run}")
        self._runs = RunStore(redis, runs.run, redis_url)
        self._subscription = Subscription(redis, redis_url, patterns=[self._runs.keys.wishes_pattern])
        self._paces: dict[str, _Pace] = {}
        self._later: set[str] = set()
        self._faults = ToldFaults(tell)
        self._counts = UrlCounts()
        self._has_uploads = bool(token)  # a coordinator before this one may have left some
        self._round = 0
        self._models: dict[str, tuple[str, float]] = {}  # client -> what it was last given a URL of to read, and when
        self._lock = threading.Lock()
        self._busy: set[str] = set()  # clients for which a lane asks the bucket
        self._waiting: dict[str, UrlWish] = {}
        self._closing = threading.Event()
        self._is_last = False
        self._thread = threading.Thread(target=self._work, name="urls", daemon=True)

    def start(self) -> None:
        """Hear wishes from now on."""
        self._subscription.open()
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._closing.set()
        with contextlib.suppress(Exception):  # wakes its thread, which ends by itself otherwise
            self._runs.redis.publish(self._runs.keys.no_wish, "")
        self._thread.join(_LOOK_S)

    def end(self, view: RunView) -> None:
        """Where the run has ended, see the sites off, and end the uploads that they have left unfinished."""
        if not view.state.ended:
            return
        if view.state is RunState.FINISHED and view.global_model is not None:
            with contextlib.suppress(FlavorError):  # Redis is away: the run has ended all the same
                self._see_off(view.global_model.model.path, view.ended_ms or 0)
        if self._has_uploads:
            self._abort(lambda path: False)

    def _see_off(self, model: str, ended_ms: int) -> None:
        """Stay until the sites that train have asked for the last model, at `model`, since the end, or are gone."""
        self._is_last = True
        now = time.monotonic()
        ended_at, until = now - (self._runs.now_ms() - ended_ms) / 1000, now + _SEES_OFF_S
        while left := self._not_served(model, ended_at):
            if time.monotonic() >= until:
                self._tell(f"{', '.join(left[:_MOST_NAMED])} did not ask for a URL of the last model in time")
                return
            time.sleep(_SOON_S)

    def _not_served(self, model: str, ended_at: float) -> list[str]:
        served = {name for name, (path, at) in list(self._models.items()) if path == model and at >= ended_at}
        names = [name for name in self._runs.members() if name not in served]
        found = []
        for name, (status, left_ms) in self._runs.clients(names).items():
            if left_ms and status.role is Role.TRAINER:  # also one whose script has ended: its edge is there
                found.append(name)
        return found

    # -- the desk's thread

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                channels = self._subscription.wait(_SOON_S if self._later else _LOOK_S)
                asking, self._later = self._later, set()
                for channel in channels:
                    parsed = None if channel == RESYNC else self._runs.keys.parse_client_channel(channel)
                    asking |= {parsed[0]} if parsed is not None else set()
                for client in asking:
                    self._look(client)
            except Exception as error:  # a site asks again, and no fault here may end the desk
                if not self._closing.wait(_AGAIN_S):
                    self._faults.tell(f"sites get no signed URLs for now: {error}", kind="redis")
        self._subscription.close()

    def _look(self, client: str) -> None:
        now = time.monotonic()
        if len(self._paces) > 10_000:
            self._paces.clear()
        if not self._paces.setdefault(client, _Pace(now)).take(now):
            self._later.add(client)
            return
        if coordinator_token(self._runs) not in (None, self._token):
            return
        wish = read_wish(self._runs, client)
        if wish is None:
            return
        refused = self._refused(client, wish)
        if refused is not None:
            answer_wish(self._runs, client, refused)
        elif wish.use in (UrlUse.BEGIN, UrlUse.COMPLETE) and self._signer.has_parts:
            with self._lock:
                self._waiting[client] = wish
            self._fill_lanes()
        else:
            self._answer(client, wish)

    def _refused(self, client: str, wish: UrlWish) -> UrlAnswer | None:
        """Return the refusal of a wish; None where it is to be granted."""
        if not is_admitted(self._runs, client):
            return UrlAnswer(wish.id, refused="this client is not admitted to the run")
        config, run = self._config, self._runs.run
        why = refusal_of(wish, run, client, most_update_bytes=config.max_update_bytes, shares_names=config.share_names)
        if why:
            path = quoted(wish.path[:120])
            line = f"{client} asks for a signed URL ({wish.use}) of {path}, and gets none: {why}"
            self._faults.tell(line, client=client, kind="rights")
            return UrlAnswer(wish.id, refused=why)
        if wish.use is UrlUse.GET:
            return None
        occasion = occasion_of(wish, run, client)
        assert occasion is not None
        return self._untimely(client, wish, occasion) or self._excessive(client, wish, occasion)

    def _untimely(self, client: str, wish: UrlWish, occasion: Occasion) -> UrlAnswer | None:
        now = run_now(self._runs, client, occasion.round, occasion.evaluation)
        self._begun_round(now.round)
        if occasion.evaluation is not None:
            return None if now.is_judging else UrlAnswer(wish.id, refused="the evaluation is over", is_over=True)
        if not now.has_task:
            return UrlAnswer(wish.id, refused=f"it has no task of round {occasion.round}", is_over=True)
        if now.has_ended or occasion.round < now.round - self._staleness:
            return UrlAnswer(wish.id, refused=f"round {occasion.round} is over", is_over=True)
        return None

    def _excessive(self, client: str, wish: UrlWish, occasion: Occasion) -> UrlAnswer | None:
        if wish.use in (UrlUse.PARTS, UrlUse.COMPLETE):
            sizes = sizes_of_parts(wish.size_bytes, part_bytes_of(wish.size_bytes))
            if not self._signer.has_parts or not wish.upload or any(part > len(sizes) for part in wish.parts):
                return UrlAnswer(wish.id, refused="there are no such parts")
            return None
        if wish.use is UrlUse.BEGIN and (occasion.evaluation is not None or not wish.size_bytes):
            return UrlAnswer(wish.id, refused="objects of this kind are written by one request")
        why = self._counts.refusal(client, wish.path, occasion)
        return UrlAnswer(wish.id, refused=why) if why else None

    @property
    def _staleness(self) -> int:
        mode = self._config.buffered
        return mode.max_staleness if mode is not None else 0

    def _begun_round(self, round_: int) -> None:
        """End what sites have left unfinished of earlier rounds, once for each new round."""
        if round_ > self._round:
            self._round = round_
            if self._has_uploads:
                oldest = round_ - self._staleness
                self._has_uploads = oldest < round_  # those of rounds in between stay for now
                begun(lambda: self._abort(lambda path: round_of(path) >= oldest))

    # -- answers

    def _fill_lanes(self) -> None:
        """Give waiting wishes to free lanes, one of each client at a time."""
        with self._lock:
            for client in [name for name in self._waiting if name not in self._busy]:
                if len(self._busy) >= _LANES:
                    return
                wish = self._waiting.pop(client)
                self._busy.add(client)
                begun(lambda client=client, wish=wish: self._in_lane(client, wish))  # type: ignore[misc]

    def _in_lane(self, client: str, wish: UrlWish) -> None:
        try:
            self._answer(client, wish)
        except Exception as error:  # the site asks again
            self._faults.tell(f"{client} gets no signed URL for now: {error}", client=client, kind="redis")
        finally:
            with self._lock:
                self._busy.discard(client)
                if (waiting := self._waiting.get(client)) is not None and waiting.id == wish.id:
                    del self._waiting[client]  # asked again since
            self._fill_lanes()

    def _answer(self, client: str, wish: UrlWish) -> None:
        expires_s = _LAST_EXPIRES_S if self._is_last else EXPIRES_S
        self._has_uploads |= wish.use is UrlUse.BEGIN
        try:
            answer = granted(self._signer, wish, expires_s)
        except StoreError as error:
            is_passing = isinstance(error, StoreUnavailable) and error.passing
            self._faults.tell(f"{client} gets no signed URL: {error}", client=client, kind=_OF_STORE[not is_passing])
            answer = UrlAnswer(wish.id, refused=f"its own request failed: {error}", is_passing=is_passing)
        answer_wish(self._runs, client, answer)
        if wish.use is UrlUse.GET and not is_info(wish.path):
            self._models[client] = wish.path, time.monotonic()

    def _abort(self, keeps: Callable[[str], bool]) -> None:
        try:
            self._signer.abort(clients_folder(self._runs.run), keeps=keeps)
        except StoreError as error:
            self._has_uploads = True
            self._faults.tell(f"unfinished uploads of sites stay in the store for now: {error}", kind="uploads")


class NoDesk:
    """Stands for the desk of a run whose sites have credentials of their own."""

    def end(self, view: RunView) -> None:
        """See `UrlDesk`."""

    def close(self) -> None:
        """See `UrlDesk`."""


def opened_desk(
    runs: RunStore,
    config: RunConfig,
    redis_url: str,
    store: ObjectStore,
    *,
    token: str,
    tell: Callable[[str], None],
    signer: Signer | None = None,
    patience_s: float = 60.0,
) -> UrlDesk | NoDesk:
    """Return a desk that hears wishes, where the run's sites get signed URLs; `signer` is one that is open already.

    Raises `InvalidSetting` and `StoreError` where one is to be opened.
    """
    if not config.signed_urls:
        return NoDesk()
    if signer is None:
        signer = opened_signer(store.url, Endurance(patience_s=patience_s))
    desk = UrlDesk(runs, config, redis_url, signer, token=token, tell=tell, patience_s=patience_s)
    desk.start()
    return desk
