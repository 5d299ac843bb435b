"""Counters of what sites have moved: they never fall, and outlast the run's end by some scrapes."""

from __future__ import annotations

from flavor.metrics.moved import Moved
from flavor.metrics.scrape import MOVED_FOR_S
from flavor.metrics.table import OTHERS
from tests.measured import NOW_MS, MadeUp, document
from tests.unit.metrics.test_families import many, of, samples, scraper


def test_bytes_never_go_back() -> None:
    """Prometheus takes a counter that falls for one that began anew, and counts all of it again."""
    found = many(6)
    board = MadeUp(found)
    scraped = scraper(board, most=2)
    others = f'flavor_client_transferred_bytes_total{{client="{OTHERS}",direction="sent",run="mammo"}}'
    assert samples(scraped)[others] == 40
    found["clients"]["site-0005"] |= {"phase": "failed", "sent_bytes": 17}
    said = samples(scraped)
    assert said['flavor_client_transferred_bytes_total{client="site-0005",direction="sent",run="mammo"}'] == 17
    assert said[others] == 40, "site-0001 has lost its label, and moved nothing"
    del found["clients"]["site-0003"]
    assert samples(scraped)[others] == 40


def test_a_redis_that_comes_back_older_invents_no_bytes() -> None:
    moved = Moved()

    def sent(said: int | None, **more: int) -> float:
        return moved.look({"a": {"sent_bytes": said}}, ["a"], **more)["a", "sent"]

    assert [sent(said) for said in (500, 480, None, 510, 505, 520)] == [500, 500, 500, 510, 510, 520]
    assert [sent(said, recovered_ms=1) for said in (30, 40)] == [550, 560], "the edges count from zero"
    assert [sent(said, recovered_ms=2) for said in (None, 700)] == [560, 1260]
    board = MadeUp(document())
    scraped, name = scraper(board), 'flavor_client_transferred_bytes_total{client="a",direction="sent",run="mammo"}'
    a = board.documents["mammo"]["clients"]["a"]
    a["sent_bytes"] = 500
    assert samples(scraped)[name] == 500
    board.documents["mammo"]["recovered_ms"] = NOW_MS
    a["sent_bytes"] = 20
    assert samples(scraped)[name] == 520


def test_a_site_that_was_revoked_and_enrolled_anew_counts_from_zero() -> None:
    moved, joined = Moved(), {"state": "joined", "received_bytes": None}
    revoked = {"state": "revoked", "phase": "quarantined", "sent_bytes": None, "received_bytes": None}

    def sent(client: dict[str, object]) -> float:
        return moved.look({"a": client, "b": {"sent_bytes": 7}}, ["a", "b"])["a", "sent"]

    assert [sent(joined | {"sent_bytes": said}) for said in (300_000, 1_000_000)] == [300_000, 1_000_000]
    assert [sent(revoked), sent(revoked)] == [1_000_000, 1_000_000]
    assert [sent(joined | {"sent_bytes": said}) for said in (None, 100_000, 900_000)] == [1e6, 1_100_000, 1_900_000]


def test_what_a_run_has_moved_at_its_end_can_still_be_scraped() -> None:
    board = MadeUp(many(6))
    scraped = scraper(board, most=2)
    labels = {key.split('"')[1] for key in of(samples(scraped), "flavor_client_transferred_bytes_total")}
    for name, fields in board.documents["mammo"]["clients"].items():  # after the last scrape
        fields |= {"sent_bytes": 12, "phase": "failed" if name == "site-0005" else "-"}
    board.documents["mammo"] |= {"state": "finished", "ended_ms": NOW_MS}
    said = of(samples(scraped), "flavor_client_transferred_bytes_total")
    assert {key.split('"')[1] for key in said} == labels, "the same as before the end"
    assert sum(said.values()) == 6 * 12
    board.later_ms = int(MOVED_FOR_S * 1000) - 1
    assert of(samples(scraped), "flavor_client_transferred_bytes_total") == said
    board.later_ms += 1
    assert not of(samples(scraped), "flavor_client_transferred_bytes_total")


def test_a_sum_that_began_anew_is_told_from_one_of_an_older_redis_by_its_time() -> None:
    """Also where no scrape fell into the moment in which nothing was said of it."""
    moved = Moved()

    def sent(said: int, since_ms: int, **more: int) -> float:
        return moved.look({"a": {"sent_bytes": said, "moved_since_ms": since_ms}}, ["a"], **more)["a", "sent"]

    assert [sent(1000, 5), sent(80, 7), sent(900, 7)] == [1000, 1080, 1900]
    assert [sent(980, 5), sent(70, 7), sent(950, 7)] == [1900, 1900, 1950], "Redis was as before, and went on"
    assert [sent(950, 7, recovered_ms=8), sent(20, 8, recovered_ms=8)] == [1950, 1970]
    for since_ms in range(10, 20):
        sent(1, since_ms)
    assert len(moved._most["a", "sent"]) == 4, "a site that says another time each moment takes no more memory"
