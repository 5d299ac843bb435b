"""Start every child process of flavor that is not forked: in its own session, without input.

Ctrl-C in the terminal does not reach the child, and the kernel kills the child when this process ends.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

from flavor.parent_death import die_with_parent

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
    **identity: Any,
) -> subprocess.Popen[bytes]:
    """Start `command`; it inherits only the descriptors in `inherited`.

    `identity` holds the options of `subprocess.Popen` that set the umask and the user. They take effect before the
    `limits`, and before the child is bound to this process, because a change of the user would undo the binding.
    Raises what `subprocess.Popen` raises.
    """
    bind, set_limit, limits = die_with_parent(), resource.setrlimit, tuple(limits)

    def before_exec() -> None:  # only makes system calls
        if bind is not None:
            bind()
        for kind, soft_and_hard in limits:
            set_limit(kind, soft_and_hard)

    return subprocess.Popen(
        list(command),
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
