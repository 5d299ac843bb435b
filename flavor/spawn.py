"""Start every child process of flavor that is not forked: in its own session, without input.

Ctrl-C in the terminal does not reach the child, and the kernel kills the child when this process ends.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

from flavor.parent_death import bound_by_programs, die_with_parent

Limit = tuple[int, tuple[int, int]]
"""A resource, by its number in `resource.setrlimit`, and its soft and hard limit."""


def spawn(
    command: Sequence[str],
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes] = subprocess.STDOUT,
    environment: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    inherited: Sequence[int] = (),
    limits: Sequence[Limit] = (),
    again: bool = False,
    **identity: Any,
) -> subprocess.Popen[bytes]:
    """Start `command`; it inherits only the descriptors in `inherited`.

    `identity` holds the options of `subprocess.Popen` that set the umask and the user. They take effect before the
    `limits`, and before the child is bound to this process, because a change of the user would undo the binding.
    `again` says that this process has started the command before: it is then started without a fork, where that can be
    done. A program that is gone since then is not found by this function, but ends the child with exit code 127.
    Raises what `subprocess.Popen` raises.
    """
    command, limits, set_limit = list(command), tuple(limits), resource.setrlimit
    is_plain = again and not folder and not limits and identity.keys() <= {"umask"} and "=" not in command[0]
    words = bound_by_programs() if is_plain else []
    bind = die_with_parent() if not words else None

    def before_exec() -> None:  # only makes system calls
        if bind is not None:
            bind()
        for kind, soft_and_hard in limits:
            set_limit(kind, soft_and_hard)

    return subprocess.Popen(
        words + command,
        cwd=folder,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        pass_fds=inherited,
        preexec_fn=before_exec if bind is not None or limits else None,  # noqa: PLW1509 - it is async-signal-safe
        **identity,
    )
