"""Starts Python scripts of `check-fl` and `check-agg` by fork from a process that has imported what they import.

A check starts an aggregator up to ten times, and all but a few hundredths of a second of each are the imports of numpy
and of flavor's client. The tests that ask what the checks find in a script need no start by `exec`; those that ask how
a script is started and ended have one. See `tests/warm.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warm import SESSION, TestServer, cold_is_wanted

from flavor.local.forked import ForkedProcess, ForkServer
from flavor.spawn import spawn
from tests import starts
from tests.warmchild import READ_AT_THE_START

PATH = "PYTHONPATH"

_SLOW = {"torch": "torch._dynamo", "sklearn": "sklearn.datasets"}
_PLAIN = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "inherited": (), "limits": (), "umask": -1}
"""What the script of a check is started with."""


class ScriptServer(TestServer):
    """A fork server for `python SCRIPT.py WORDS`."""

    def __init__(self, *libraries: str) -> None:
        super().__init__(*libraries, programs=())

    def can_fork(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a fork is what a start of this command would be."""
        changed, removed = self._differences(environment)
        return (
            command[0] == sys.executable
            and command[1:2] != []
            and command[1].endswith(".py")
            and not any(READ_AT_THE_START.fullmatch(name) for name in (*changed, *removed) if name != PATH)
            and PATH not in changed
        )

    def why_cold(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        changed, removed = self._differences(environment)
        differ = [name for name in (*changed, *removed) if READ_AT_THE_START.fullmatch(name) and name != PATH]
        differ += [PATH] if PATH in changed else []
        return starts.of_variables(differ, SESSION) if differ else "no plain script"

    def spawn(self, command: Sequence[str], **options: Any) -> Any:
        """What `flavor.spawn.spawn` starts; that does it where a fork could differ."""
        environment = options["environment"]
        if any(options.get(name) != value for name, value in _PLAIN.items()) or not self.can_fork(command, environment):
            if command[0] == sys.executable:
                starts.cold(self.why_cold(command, environment))
            return spawn(command, **options)
        starts.forked()
        out, err = os.pipe(), os.pipe()
        try:
            pid = self.fork(command, environment, os.getcwd(), out[1], err[1], bound=True)
        finally:
            os.close(out[1])
            os.close(err[1])
        return ForkedProcess(self, pid, command, os.fdopen(out[0], "rb", 0), os.fdopen(err[0], "rb", 0))


class ScriptServers:
    """One for each set of libraries, made when a script first needs it: to import a library takes a second or more."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, ...], ScriptServer] = {}

    def spawn(self, command: Sequence[str], **options: Any) -> Any:
        """What `flavor.spawn.spawn` starts."""
        script = Path(command[1]) if command[1:] and command[1].endswith(".py") else None
        libraries = libraries_of(script.read_text()) if script is not None and script.is_file() else ()
        if libraries not in self._servers:
            self._servers[libraries] = ScriptServer(*libraries)
        return self._servers[libraries].spawn(command, **options)

    def close(self) -> None:
        """End them."""
        for server in self._servers.values():
            server.close()


def libraries_of(text: str) -> tuple[str, ...]:
    """What a script imports that takes long, and what an optimizer of torch imports where it is made."""
    return tuple(
        slow for name, slow in _SLOW.items() if re.search(rf"^\s*(from|import)\b.*\b{name}\b", text, re.MULTILINE)
    )


def possible() -> bool:
    """Whether scripts can be forked here, and are to be."""
    return ForkServer.is_possible() and not cold_is_wanted()
