"""A site's wait for the URLs that it has asked its run's coordinator for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flavor.edge import urls
from flavor.edge.urls import UrlAsker
from flavor.errors import StoreUnavailable, TransferStopped
from flavor.records.signed_urls import UrlAnswer, UrlUse, UrlWish
from flavor.watch import Watch, watched

WISH = UrlWish("0" * 16, UrlUse.GET, "runs/r/global/0001-model-ab.st")


class Coordinator:
    """Stands for what a site writes into Redis and reads there: answers the wish that `answers` names by its place."""

    def __init__(self, answers: Callable[[int], UrlAnswer | None]) -> None:
        self.answers, self.wishes = answers, 0

    def wish(self, wish: UrlWish) -> None:
        self.wishes += 1

    def urls(self) -> UrlAnswer | None:
        return self.answers(self.wishes)


def asker(coordinator: Coordinator, told: list[str], *, has_ended: bool = False) -> UrlAsker:
    return UrlAsker(coordinator, "the channel", has_ended=lambda: has_ended, tell=told.append)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_STEP_S": 0.002, "_LOOK_S": 0.004, "_FIRST_AGAIN_S": 0.01, "_TELL_S": 0.02}.items():
        monkeypatch.setattr(urls, name, seconds)
    monkeypatch.setattr(urls, "_AFTER_END_S", 0.05)


def test_a_wish_is_made_again_until_the_coordinator_is_there_and_the_user_is_told_once() -> None:
    told, other = list[str](), UrlAnswer("1" * 16)
    coordinator = Coordinator(lambda wishes: UrlAnswer(WISH.id) if wishes == 4 else other)
    assert asker(coordinator, told).ask(WISH) == UrlAnswer(WISH.id)
    assert coordinator.wishes == 4
    assert told == [
        "waiting for the run's coordinator, which signs the URLs that this site needs",
        "the run's coordinator signs URLs again",
    ]


def test_a_wish_is_given_up_once_the_run_has_ended() -> None:
    with pytest.raises(StoreUnavailable, match="its coordinator, which signs URLs, has ended with it"):
        asker(Coordinator(lambda _: None), [], has_ended=True).ask(WISH)


def test_a_wait_ends_with_what_the_object_is_for() -> None:
    watch = Watch()
    threading.Timer(0.03, watch.stop).start()
    with watched(watch), pytest.raises(TransferStopped):
        asker(Coordinator(lambda _: None), []).ask(WISH)


def test_news_of_the_answer_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_STEP_S", "_LOOK_S", "_FIRST_AGAIN_S"):
        monkeypatch.setattr(urls, name, 30.0)
    asking = asker(Coordinator(lambda _: UrlAnswer(WISH.id)), [])
    threading.Timer(0.02, lambda: asking.heard(["another", "the channel"])).start()
    assert asking.ask(WISH).wish == WISH.id
