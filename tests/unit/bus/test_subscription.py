"""What a subscription does with publications that do not end."""

from __future__ import annotations

from typing import Any

import pytest

from flavor.bus import subscription
from flavor.bus.connection import connect
from flavor.bus.subscription import RESYNC, Subscription

_MOST = 10_000


def test_publications_without_end_are_taken_in_for_a_moment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name once; else a site that floods its channel would keep a coordinator from its deadline."""
    heard, clock = 0, 0.0

    def always(_self: Subscription, _timeout_s: float) -> dict[str, Any]:
        nonlocal heard, clock
        heard, clock = heard + 1, clock + 0.001
        assert heard < _MOST, "it reads on as long as more is there"
        return {"type": "message", "channel": f"c{heard % 3}", "data": "x"}

    listener = Subscription(connect(server), server, channels=["c0", "c1", "c2"])
    assert listener.wait(1.0) == [RESYNC]
    monkeypatch.setattr(Subscription, "_next", always)
    monkeypatch.setattr(subscription.time, "monotonic", lambda: clock)
    assert sorted(listener.wait(1.0)) == ["c0", "c1", "c2"]
    assert heard * 0.001 == pytest.approx(subscription._DRAIN_S, abs=0.01)
    monkeypatch.undo()
    listener.close()
