"""Every error of redis-py becomes one line that says what to do."""

from __future__ import annotations

import inspect

import pytest
import redis.exceptions

from flavor.bus.connection import bus_error
from flavor.errors import BusUnavailable

CLASSES = [kind for _, kind in inspect.getmembers(redis.exceptions, inspect.isclass) if issubclass(kind, Exception)]
KINDS = [kind for kind in CLASSES if redis.exceptions.RedisError in kind.__mro__[1:]]
BESIDE = {"RedisClusterException", "ChildDeadlockedError", "IncorrectPolicyType"}
"""Roots of redis-py that are no `RedisError`: of its cluster client, which flavor does not use, and its own faults."""


def test_the_kinds_of_redis_py_are_known() -> None:
    assert len(KINDS) > 20
    assert {kind.__name__ for kind in CLASSES if kind.__base__ is Exception} == {"RedisError", *BESIDE}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_has_its_advice(kind: type[redis.exceptions.RedisError]) -> None:
    text = "9999 10.0.0.1:6379"  # of which a MovedError is made
    error = bus_error(kind(text), "redis://host:1")
    assert isinstance(error, BusUnavailable)
    start, _, said = str(error).partition("Redis at redis://host:1: ")
    assert (start, "\n" in said) == ("", False)
    assert said not in {text, kind.__name__}, "it does not say what to do"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}: flavor:r:log", "{}: flavor:r:log: another program has written the key: delete it; "),
        (
            "Command # 2 (HGETALL flavor:r:x) of pipeline caused error: {}",
            "{}: flavor:r:x: another program has written ",
        ),
        (
            "{} script: 0a1b, on @user_script:3.",
            "{} script: 0a1b, on @user_script:3: another program has written a key ",
        ),
    ],
)
def test_a_key_of_another_type_is_named_where_the_server_or_the_command_tells(text: str, told: str) -> None:
    wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
    error = bus_error(redis.exceptions.ResponseError(text.format(wrong)), "redis://host:1")
    assert str(error).startswith(f"Redis at redis://host:1: {told.format(wrong)}")
    assert str(error).endswith("`flavor recover` rebuilds a run from its store")
