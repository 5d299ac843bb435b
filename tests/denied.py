"""How a server refuses a command that a user has no right to."""

from __future__ import annotations

import pytest
import redis

from flavor.bus.connection import Redis


def assert_denied(client: Redis, command: str) -> None:
    """Assert that the server refuses the command: its user has no right to it, or this server does not have it."""
    name = command.partition(" ")[0]
    with pytest.raises(redis.exceptions.RedisError) as caught:
        client.execute_command(*command.split())
    is_missing = str(caught.value).startswith(f"unknown command '{name}'")  # the embedded server has not all of them
    if not (is_missing or name == "DEBUG"):  # DEBUG has a lock of its own
        assert isinstance(caught.value, redis.exceptions.NoPermissionError), caught.value
