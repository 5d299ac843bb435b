"""A reader without credit still sees, not much later, what sites say of themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from flavor.view.facts_reader import FactsReader
from flavor.view.turns import OLDEST_S, oldest_s
from tests.heard import TOKEN, Heard

SITES = ("a", "b", "c", "d")


@pytest.fixture
def followed(url: str) -> Iterator[Heard]:
    followed = Heard(url)
    yield followed
    followed.close()


def told(followed: Heard, site: str, **fields: str) -> None:
    keys = followed.runs.keys.client(site)
    with followed.redis.pipeline() as step:
        step.hset(keys.hash, mapping=fields).publish(keys.pulse, "")
        step.execute()


def sent(followed: Heard) -> dict[str, int]:
    return {name: client.pulse.moved.sent_bytes for name, client in followed.look().clients.items()}


def of_clients(followed: Heard, names: Sequence[str]) -> None:
    """Have a run with these clients, and a reader that may spend nothing."""
    followed.reader = FactsReader(
        followed.runs, followed.log, credit=0.0, clock=lambda: time.monotonic() + followed.later_s
    )
    with followed.redis.pipeline(transaction=False) as step:
        for name in names:
            own = followed.runs.keys.client(name)
            step.sadd(followed.runs.keys.members, name).set(own.lease, "x", px=600_000)
            step.hset(own.hash, mapping={"state": "ready", "protocol": "2", "sent": "1"})
        step.execute()
    followed.runs.open_round(TOKEN, 1, expected=names, timeout_s=600, reason="ready")
    followed.look()


def test_without_credit_what_a_client_says_is_seen_soon(followed: Heard) -> None:
    """Rounds may cost the reader all its credit, one after the other."""
    of_clients(followed, SITES)
    for number in range(1, 4):
        told(followed, "a", sent=f"{number}01")
        handed_in = followed.runs.keys.client("b").update(1)
        followed.redis.hset(followed.runs.keys.client("b").hash, "sent", f"{number}02")
        followed.redis.publish(handed_in, "1")  # in a round that is too short for a pulse
        before = sent(followed)
        assert max(before.values()) < number * 100, "it was read just now"
        assert followed.reader.is_behind
        followed.later_s += oldest_s(len(SITES))
        assert sent(followed) == before | {"a": number * 100 + 1, "b": number * 100 + 2}
        assert not followed.reader.is_behind


def test_without_credit_many_clients_have_their_turns(followed: Heard) -> None:
    names = [f"site-{number:03d}" for number in range(80)]
    of_clients(followed, names)
    seen: list[set[str]] = []
    for _ in range(3):
        for name in names:
            told(followed, name, sent=f"{len(seen) + 2}")
        followed.later_s += OLDEST_S
        sent(followed)  # and the look after that finds nothing more
        seen.append({name for name, bytes_ in sent(followed).items() if bytes_ == len(seen) + 2})
    assert [len(each) for each in seen] == [30, 30, 30], "ten in a second"
    assert seen[0] | seen[1] | seen[2] == set(names)


def test_the_more_clients_the_longer_they_wait() -> None:
    assert [oldest_s(clients) for clients in (1, 4, 6, 12, 2000)] == [1.0, 1.0, 1.5, 3.0, 3.0]
