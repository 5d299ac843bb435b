"""Names the key of Redis that has another type than flavor's. The server itself only says that there is one."""

from __future__ import annotations

import re
from typing import Any

import redis

_WRONG_TYPE = "WRONGTYPE"
_IN_PIPELINE = re.compile(r"Command # [0-9]+ \(\S+ (\S+?)\)? ")
_OURS = ("flavor:", "rq:")


class NamingClient(redis.Redis):
    """A client whose errors about the type of a key end with the key."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """See redis-py's `Redis`."""
        client: Any = super()
        try:
            return client.execute_command(*args, **options)
        except redis.exceptions.ResponseError as error:
            key = str(args[1]) if len(args) > 1 else ""
            if not str(error).startswith(_WRONG_TYPE) or not key.startswith(_OURS):
                raise  # of a script, the server tells no key
            raise redis.exceptions.ResponseError(f"{error}: {key}") from error


def is_of_type(error: BaseException | None) -> bool:
    """Whether an error of redis-py says that a key has another type than the command is for."""
    return _WRONG_TYPE in str(error)


def advice_on_type(error: redis.exceptions.RedisError) -> str:
    """Return which key has another type, as far as the error tells, and what to do; '' for another error."""
    if not is_of_type(error):
        return ""
    found = _IN_PIPELINE.match(" ".join(str(error).split()))
    named = f": {found[1]}" if found else ""
    which = "the key" if found or str(error).rpartition(": ")[2].startswith(_OURS) else "a key of the run"
    return f"{named}: another program has written {which}: delete it; `flavor recover` rebuilds a run from its store"
