"""The counter of moved bytes while a site is revoked and enrolled anew, and while Redis comes back a moment older."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flavor.bus.acl import enroll, revoke, user_name
from flavor.bus.connection import connect
from flavor.bus.token import with_credentials
from flavor.edge.membership import Membership
from flavor.edge.meter import Meter
from flavor.errors import LeaseLost
from flavor.metrics.scrape import Scraper
from flavor.records.client import ClientStatus
from flavor.records.pulse import Doing, Pulse
from flavor.records.states import ClientState
from flavor.view.board import Board
from tests.driven import Driven
from tests.faults.servers import Server
from tests.polled import eventually


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps its users, and of all else what was saved last."""
    users = tmp_path / "users.acl"
    users.touch()
    found = Server(tmp_path / "redis", "--aclfile", str(users), append_only=False)
    yield found
    found.close()


class Edge:
    """What an edge of site `a` counts and tells, with a token of its own."""

    def __init__(self, driven: Driven, secret: str) -> None:
        url = with_credentials(driven.url, user_name(driven.runs.run, "a"), secret)
        self._membership = Membership(connect(url), url, driven.runs.keys, "a")
        self._membership.take(ttl_s=600, told=lambda _: None)
        self.meter = Meter(moved=self._membership.moved())
        self._membership.report(ClientStatus(ClientState.READY))

    def sends(self, size_bytes: int) -> None:
        self.meter.sent(size_bytes)
        self._membership.report_pulse(lambda now_ms: Pulse(Doing.UPLOADING, 1, now_ms, moved=self.meter.moved))

    def ends(self) -> None:
        self._membership.leave(announce=True)


@pytest.mark.parametrize("has_ended", [True, False])
def test_bytes_go_on_over_a_revocation_between_two_scrapes_and_over_an_older_redis(
    own: Server, has_ended: bool
) -> None:
    """`has_ended` says whether the site's first edge had ended when Redis saved what it comes back with."""
    driven, admin = Driven(own.url), connect(own.url)
    run = driven.runs.run
    admin.sadd(driven.runs.keys.members, "a")

    def enrolled() -> str:
        return enroll(admin, run, "a", where="here")[0]

    with Board(own.url) as board:
        scraper = Scraper.on(own.url, board)

        def said() -> tuple[int | None, int | None]:
            row = board.document(run)["clients"].get("a", {})
            return row.get("sent_bytes"), row.get("moved_since_ms")

        def counted(edge: Edge) -> float:
            """What is scraped once the board has heard what this edge has told last."""
            moved = edge.meter.moved
            return counted_of(moved.sent_bytes, moved.since_ms)

        def counted_of(sent: int, since_ms: int) -> float:
            eventually("it is heard", lambda: said() == (sent, since_ms), told=lambda: str(said()))
            (scene,) = scraper.scene().runs
            return scene.moved["a", "sent"]

        first = Edge(driven, secret := enrolled())
        first.sends(1000)
        assert counted(first) == 1000
        first.ends()
        again = Edge(driven, secret)
        again.sends(10)
        assert counted(again) == 1010, "an edge that is started again counts on"
        if has_ended:
            again.ends()
        admin.save()
        assert revoke(admin, run, "a", where="here")
        anew = Edge(driven, renewed := enrolled())
        anew.sends(80)
        assert counted(anew) == 1090
        anew.sends(900)
        assert counted(anew) == 1990
        own.kill()
        own.start()
        assert counted_of(1010, again.meter.moved.since_ms) == 1990, "Redis is as before the revocation"
        if not has_ended:  # its lease is there again
            with pytest.raises(LeaseLost):
                anew.sends(30)
            admin.delete(driven.runs.keys.client("a").lease)  # runs out
            anew = Edge(driven, renewed)
            assert anew.meter.moved == again.meter.moved, "it can know no better"
        anew.sends(30)
        assert counted(anew) == 2020
