"""What `translated` makes of an error of redis-py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import redis

from flavor.bus.connection import translated
from flavor.errors import BusUnavailable


@contextlib.contextmanager
def pipeline() -> Iterator[None]:
    """Its clean-up fails, as that of redis-py does on a server that stands still."""
    try:
        yield
    finally:
        raise redis.exceptions.ConnectionError("UNWATCH had no answer")


def test_a_clean_up_that_fails_does_not_hide_that_the_process_was_asked_to_end() -> None:
    with pytest.raises(KeyboardInterrupt), translated("there"), pipeline(), pipeline():
        raise KeyboardInterrupt


def test_while_the_process_ends_redis_may_be_away() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(BusUnavailable, match="UNWATCH had no answer"), translated("there"), pipeline():
            pass
