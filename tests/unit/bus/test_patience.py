"""Each connection waits for its own server, as long as all others do."""

from __future__ import annotations

import copy

import pytest
import redis

from flavor.bus.connection import connect
from flavor.bus.patience import Patience


def test_a_copy_has_the_patience_and_no_outage_of_the_first() -> None:
    first = Patience("redis://example.org:6379", 2.5, quiet=True)
    first.update_supported_errors([redis.exceptions.ReadOnlyError])
    made = copy.deepcopy(first)
    assert (made.where, made.patience_s, made._quiet) == ("redis://example.org:6379", 2.5, True)
    assert (made.get_retries(), made._supported_errors) == (first.get_retries(), first._supported_errors)
    made._away.failed(1.0)
    made.update_supported_errors([redis.exceptions.BusyLoadingError])
    assert not first._away.is_on
    assert redis.exceptions.BusyLoadingError not in first._supported_errors


def test_each_connection_of_a_pool_has_one_of_its_own(server: str) -> None:
    pool = connect(server, patience_s=1.5).connection_pool
    one, other = pool.get_connection(), pool.get_connection()
    assert one.retry is not other.retry
    assert one.retry.patience_s == other.retry.patience_s == pytest.approx(1.5)
    pool.disconnect()
