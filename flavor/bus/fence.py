"""Writes only while this process has its lease, in two round trips: the first reads, and the second writes.

The server may deny EVAL to an edge's user, so this uses WATCH and MULTI in place of a script. redis-py would send WATCH
and each read before MULTI by itself, and wait for each answer: on a slow link, a round trip for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

from flavor.bus.connection import Redis

T = TypeVar("T")


def fenced(
    client: Redis, watched: Sequence[str], reads: Sequence[tuple[str, ...]], write: Callable[[Redis, list[Any]], T]
) -> T:
    """Have `write` queue its commands, which are run in one transaction if no `watched` key has changed by then.

    It is given the pipeline and the answers to `reads`; what it returns is returned, and when it raises nothing is
    written. It is called again after a change, and after an answer that was lost: then what it queued before may have
    been run.
    """
    with client.pipeline(transaction=True) as step:
        while True:
            try:
                answers = _watching(step, watched, reads)
                step.multi()
                result = write(step, answers)
                step.execute()
            except redis.exceptions.WatchError:
                continue
            return result


def _watching(step: Any, watched: Sequence[str], reads: Sequence[tuple[str, ...]]) -> list[Any]:
    """The answers to `reads`, from when the keys were watched on."""
    if step.connection is None:
        step.connection = step.connection_pool.get_connection()
    connection, commands = step.connection, [("WATCH", *watched), *reads]

    def ask() -> list[Any]:
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        try:
            return [connection.read_response() for _ in commands][1:]
        except BaseException:
            connection.disconnect()  # what was not read would be taken for the next answers
            raise

    answers: list[Any] = connection.retry.call_with_retry(ask, lambda _: connection.disconnect())
    step.watching = True
    return answers
