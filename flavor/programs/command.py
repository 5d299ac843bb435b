"""The commands of -m and -p, which are split into words as a shell does it, and run without a shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping

from flavor.errors import CommandNotFound, InvalidSetting
from flavor.say import say

_SHELL = frozenset({">", ">>", "<", "|", "||", "&&", ";", "&", "2>", "2>&1", "&>"})
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "env"})
_RUNS = {".py": "python", ".sh": "sh", ".R": "Rscript", ".r": "Rscript"}
"""The program that runs a script, by the ending of its name."""
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{\w+\})")


def parse_command(text: str, option: str, *, path: str | None = None) -> list[str]:
    """Split a command line into words, and check that its program exists.

    Raises `InvalidSetting` for unbalanced quotes or an empty command, `CommandNotFound` for a missing program.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidSetting(f"{option} {text!r}: {error}") from None
    if not words:
        raise InvalidSetting(f"{option} is empty: give a command such as 'python main.py'")
    if shutil.which(words[0], path=path or search_path(os.environ)) is None:
        if (runs := _RUNS.get(os.path.splitext(words[0])[1])) and os.path.isfile(words[0]):
            raise CommandNotFound(f"{option} {text!r}: {words[0]!r} is a script: write {option} '{runs} {text}'")
        raise CommandNotFound(
            f"{option} {text!r}: no program {words[0]!r} can be executed: check the spelling, PATH and permissions "
            "(the command runs without a shell; for shell syntax use: sh -c '...')"
        )
    unread = [word for word in words[1:] if _VARIABLE.search(word)]
    if unread and os.path.basename(words[0]) not in _SHELLS:
        say(
            f"flavor: {option} {text!r}: {unread[0]!r} is passed on as it is written, because the command runs without "
            "a shell: read the variable in the script (os.environ in Python), or use: sh -c '...'",
        )
    if odd := [word for word in words if word in _SHELL]:
        say(
            f"flavor: {option} {text!r}: {odd[0]!r} is passed on as an argument, because the command runs without a "
            "shell; for shell syntax use: sh -c '...'",
        )
    return words


def search_path(environment: Mapping[str, str]) -> str:
    """PATH for the user's commands.

    When this program runs from a virtual environment that is not activated, that environment comes first, so that
    `python` in a command is the one that has flavor.
    """
    path = environment.get("PATH", os.defpath)
    inside = sys.prefix != sys.base_prefix
    if inside and not environment.get("VIRTUAL_ENV"):
        return os.pathsep.join([os.path.join(sys.prefix, "bin"), path])
    return path
