"""Redis users with few rights: one for each client, with the rights of an edge and its trainer.

The rights of client C of run R (`flavor.bus.keys` has the table of keys):

- keys: all below `client:C` for reading and writing; `run` and all below `to:C` for reading;
- channels: those below `client:C` for publishing; `SUBSCRIBE` to `run` alone, `PSUBSCRIBE` with three patterns alone;
- commands: those of `COMMANDS`, by name. No scripts, and no command that lists, configures or empties the server.

No command of `COMMANDS` goes through a hash, or through what a connection watches or subscribes to: their cost is that
of what the client sends with them, and of copying single values. The others have selectors of their own, with the keys
or channels on which they are bounded:

- `HGETALL`, whose cost is the size of the hash: hashes that this client cannot write;
- `WATCH`, which compares each key with all that the connection watches, and keeps them: the lease and `run`;
- `SUBSCRIBE` and `PSUBSCRIBE`, which keep each name: those that an edge and its trainer hear.

`flavor.bus.bounds` has the settings of the server that bound the rest.

An aggregator has a user with the rights to every run, the job queues and scripts, and not those of an administrator.
Signed URLs in clients' mailboxes are not for it.

A viewer has a user that reads what `flavor ui`, `flavor metrics`, `flavor status` and `flavor log` show of all runs. It
changes nothing, and runs no scripts. It cannot read the values of leases: no command of its own reads a string, other
than the log that a site shares.

Users belong to one server: Redis copies them neither to replicas nor to the other nodes of a cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum

import redis

from flavor.bus.connection import Redis, translated
from flavor.bus.keys import RunKeys, every_run_patterns
from flavor.bus.removal import remove_keys
from flavor.errors import BusUnavailable, RunError
from flavor.records.client import revoked
from flavor.records.names import checked_name
from flavor.records.states import ClientState

COMMANDS = (
    *("get", "set", "del", "exists", "pexpire", "pttl", "hset", "hget", "hmget"),
    *("multi", "exec", "discard", "unwatch", "publish", "unsubscribe", "punsubscribe"),
    *("ping", "time", "client|setname"),  # every user may send auth, hello, reset and quit
)
"""The commands of an edge, its trainer and `flavor event` on all of its keys.

Together with the selectors in `rules` they also suffice for a trainer that uses Redis itself.
"""
VIEWER_COMMANDS = (
    *("exists", "type", "pttl", "hget", "hmget", "hgetall", "hlen", "hstrlen", "smembers", "scard", "zrange", "zcard"),
    *("llen", "lrange", "xrange", "xrevrange", "xread", "xlen", "multi", "exec", "discard"),
    *("psubscribe", "punsubscribe", "unsubscribe", "ping", "time", "client|setname", "info"),
    "memory|usage",
)
"""The commands of a viewer: those of `flavor.view` and of the look at RQ's queues.

INFO has no subcommands, so a rule for its sections would not bind: `info memory everything` passes it, and Redis warns
of such rules.
"""
_VIEWER_KEYS = (
    "flavor:*",
    "rq:queue:*",
    "rq:workers",
    "rq:workers:*",
    "rq:worker:*",
    "rq:wip:*",
    "rq:failed:*",
    "rq:suspended",
)
_ALL_BUT_URLS = (
    *("flavor:*[^s]", "flavor:*[^l]s", "flavor:*[^r]ls", "flavor:*[^u]rls", "flavor:*[^:]urls"),
    "flavor:{*}:client:urls",  # the hash of a client of this name
)
"""Every key but those that end in `:urls`: Redis has no rule that takes a key away."""
_SHARED_LOGS = "flavor:{*}:client:*:log"
_SECRET_BYTES = 32
_TOO_OLD = "ACL SETUSER modifier"


class UserPersistence(StrEnum):
    """What happens to a server's users at a restart. The value is a line for the operator."""

    SAVED = "saved"
    LOST = (
        "this server keeps its users in memory alone, and a restart forgets them: start it with --aclfile FILE, or "
        "with a configuration file (`redis-server redis.conf`)"
    )
    UNKNOWN = "the server could not save its users (ACL SAVE, CONFIG REWRITE), and a restart may forget them"


def user_name(run: str, client: str) -> str:
    """Return the name of a client's Redis user. Raises `InvalidSetting` for names that are not allowed."""
    return f"flavor:{checked_name(run, 'run')}:{checked_name(client, 'client')}"


def rules(run: str, client: str, secret: str, *, database: int = 0) -> list[str]:
    """Return the arguments of `ACL SETUSER` for a client, with the SHA-256 of `secret` and without `secret` itself."""
    run_keys = RunKeys(run)
    keys = run_keys.client(client)
    hashed = hashlib.sha256(secret.encode()).hexdigest()
    selectors = (
        f"+hgetall %R~{run_keys.state} %R~{keys.to_pattern}",
        f"+watch %R~{keys.lease} %R~{run_keys.state}",
        f"+subscribe &{run_keys.state}",
        f"+psubscribe &{keys.own_pattern} &{keys.events_pattern} &{keys.to_pattern}",  # allowed literally
    )
    return [
        *("reset", "on", f"#{hashed}", "resetkeys", "resetchannels", "-@all"),
        *(f"+{command}" for command in COMMANDS),
        *([f"+select|{database}"] if database else []),
        *(f"~{keys.hash}", f"~{keys.own_pattern}", f"%R~{run_keys.state}", f"%R~{keys.to_pattern}"),
        f"&{keys.own_pattern}",
        *(f"(-@all {selector})" for selector in selectors),
    ]


def for_console(rules_: Sequence[str]) -> str:
    """Return the rules as the console of a managed server takes them: without a password, which is given apart."""
    return " ".join(rule for rule in rules_ if rule != "reset" and not rule.startswith("#"))


def worker_user(name: str) -> str:
    """Return the name of an aggregator's Redis user. Raises `InvalidSetting` for a name that is not allowed."""
    return f"flavor-worker:{checked_name(name, 'worker')}"


def worker_rules(secret: str, *, database: int = 0) -> list[str]:
    """Return the arguments of `ACL SETUSER` for an aggregator: all runs but their signed URLs, and all job queues."""
    hashed = hashlib.sha256(secret.encode()).hexdigest()
    return [
        *("reset", "on", f"#{hashed}", "resetkeys", "resetchannels"),
        *("+@all", "-@admin", "-@dangerous", "-@scripting", "+info", "+client|setname"),
        *(f"+{command}" for command in ("eval", "evalsha", "script|load")),
        *([] if database else ["-select"]),
        *(f"~{pattern}" for pattern in _ALL_BUT_URLS),
        *("~rq:*", "&flavor:*", "&rq:*"),
    ]


def viewer_user(name: str) -> str:
    """Return the name of a viewer's Redis user. Raises `InvalidSetting` for a name that is not allowed."""
    return f"flavor-viewer:{checked_name(name, 'viewer')}"


def viewer_rules(secret: str, *, database: int = 0) -> list[str]:
    """Return the arguments of `ACL SETUSER` for a viewer: it reads all runs, and changes nothing."""
    hashed = hashlib.sha256(secret.encode()).hexdigest()
    return [
        *("reset", "on", f"#{hashed}", "resetkeys", "resetchannels", "-@all"),
        *(f"+{command}" for command in VIEWER_COMMANDS),
        *([f"+select|{database}"] if database else []),
        *(f"%R~{pattern}" for pattern in _VIEWER_KEYS),
        *(f"&{pattern}" for pattern in every_run_patterns()),  # which Redis allows literally
        f"(-@all +getrange %R~{_SHARED_LOGS})",
    ]


def enroll_viewer(client: Redis, name: str, *, where: str, database: int = 0) -> tuple[str, UserPersistence]:
    """Make or renew the user of a viewer; see `enroll`."""
    return _made(client, viewer_user(name), lambda secret: viewer_rules(secret, database=database), where)


def enroll_worker(client: Redis, name: str, *, where: str, database: int = 0) -> tuple[str, UserPersistence]:
    """Make or renew the user of an aggregator; see `enroll`."""
    return _made(client, worker_user(name), lambda secret: worker_rules(secret, database=database), where)


def enroll(client: Redis, run: str, name: str, *, where: str, database: int = 0) -> tuple[str, UserPersistence]:
    """Make or renew the user of client `name` of `run`; return its new secret, and whether a restart keeps the user.

    `client` is connected as an administrator. Connections that were made with an earlier secret are closed. Raises
    `BusUnavailable` when the server refuses, and `RunError` when it is too old; nothing has changed then.
    """
    return _made(client, user_name(run, name), lambda secret: rules(run, name, secret, database=database), where)


def _made(client: Redis, user: str, rules_for: Callable[[str], list[str]], where: str) -> tuple[str, UserPersistence]:
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    with translated(where):
        try:
            client.execute_command("ACL SETUSER", user, *rules_for(secret))
        except redis.exceptions.ResponseError as error:
            if _TOO_OLD not in str(error):
                raise
            raise RunError(f"Redis at {where} cannot restrict a client: it needs Redis 7 or Valkey") from None
        client.execute_command("CLIENT KILL", "USER", user)
    return secret, save_users(client)


def revoke(client: Redis, run: str, name: str, *, where: str) -> UserPersistence | None:
    """Remove the user of a client, end its connections and delete all keys that it wrote; None for an unknown user.

    From then on the client counts as lost, so that no round waits for it, and no goal of `--stop-when` for a value of
    it. Its accepted updates stay: they stand in verdicts, which the client did not write. A server that the client has
    filled has room again.
    """
    run_keys = RunKeys(run)
    keys = run_keys.client(name)
    with translated(where):
        if not client.execute_command("ACL DELUSER", user_name(run, name)):  # this also ends its connections
            return None
        kept = save_users(client)
        was_there = client.exists(keys.hash) or client.sismember(run_keys.members, name)
        client.unlink(keys.hash)  # of any type: the client wrote it
        remove_keys(client, f"{keys.hash}:")
        client.hdel(run_keys.reported, name)
        if was_there:
            # a server that other clients have filled refuses this; the missing hash shows that the client is gone
            with contextlib.suppress(redis.exceptions.OutOfMemoryError):
                _count_as_revoked(client, run_keys, name)
    return kept


def revoke_absent(client: Redis, run: str, name: str, *, where: str) -> bool:
    """Have a client that has no user count as revoked, where it has taken part in the run and its edge is gone.

    False, and nothing has changed, where it has not, or its edge runs: no server keeps that out. The client may join
    again.
    """
    keys = RunKeys(run)
    with translated(where):
        is_known = client.sismember(keys.members, name) or client.hexists(keys.reported, name)
        if not is_known or client.exists(keys.client(name).lease):
            return False
        client.hdel(keys.reported, name)
        _count_as_revoked(client, keys, name)
    return True


def _count_as_revoked(client: Redis, run_keys: RunKeys, name: str) -> None:
    keys = run_keys.client(name)
    with client.pipeline(transaction=True) as step:
        step.hset(keys.hash, mapping=revoked())
        step.publish(keys.state, ClientState.REVOKED)
        step.execute()


def revoke_worker(client: Redis, name: str, *, where: str) -> UserPersistence | None:
    """Remove the user of an aggregator, and end its connections; None for an unknown user.

    Work that it had begun is given to another aggregator once its lease has run out.
    """
    return _removed(client, worker_user(name), where)


def revoke_viewer(client: Redis, name: str, *, where: str) -> UserPersistence | None:
    """Remove the user of a viewer, and end its connections; None for an unknown user."""
    return _removed(client, viewer_user(name), where)


def _removed(client: Redis, user: str, where: str) -> UserPersistence | None:
    with translated(where):
        return save_users(client) if client.execute_command("ACL DELUSER", user) else None


def enrolled_workers(client: Redis, *, where: str) -> list[str]:
    """Return the aggregators that have a user, sorted."""
    return _users_of(client, worker_user("x").removesuffix("x"), where)


def enrolled_viewers(client: Redis, *, where: str) -> list[str]:
    """Return the viewers that have a user, sorted."""
    return _users_of(client, viewer_user("x").removesuffix("x"), where)


def enrolled(client: Redis, run: str, *, where: str) -> list[str]:
    """Return the clients of a run that have a user, sorted."""
    return _users_of(client, user_name(run, "x").removesuffix("x"), where)


def _users_of(client: Redis, prefix: str, where: str) -> list[str]:
    with translated(where):
        return sorted(user.removeprefix(prefix) for user in client.acl_users() if user.startswith(prefix))


def has_users(client: Redis, run: str) -> bool:
    """Whether clients of this run have users of their own; False where the server does not say."""
    try:
        return bool(enrolled(client, run, where=""))
    except BusUnavailable as error:
        if not isinstance(error.__cause__, redis.exceptions.ResponseError):
            raise
        return False


def is_open(client: Redis) -> bool:
    """Whether the server's user `default` may do anything without a password; False where the server does not say."""
    try:
        default = client.acl_getuser("default")
    except redis.exceptions.ResponseError:
        return False
    return bool(default) and {"on", "nopass"} <= set(default["flags"])


def save_users(client: Redis) -> UserPersistence:
    """Make the server save its users as they are now, in its aclfile or in its configuration file."""
    try:
        client.execute_command("ACL SAVE")
    except redis.exceptions.ResponseError as error:
        if "not configured to use an ACL file" not in str(error):
            return UserPersistence.UNKNOWN
    else:
        return UserPersistence.SAVED
    try:
        if not client.info("server").get("config_file"):
            return UserPersistence.LOST
        client.execute_command("CONFIG REWRITE")
    except redis.exceptions.ResponseError:
        return UserPersistence.UNKNOWN
    return UserPersistence.SAVED
