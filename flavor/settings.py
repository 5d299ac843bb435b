"""The settings of a run that reach its training scripts: extra environment variables, and which may not be set so.

They come from whoever coordinates, and run beside a site's data. So what decides which code a script loads, where its
files lie or whom it talks to is the site's alone; both sides check it, the coordinator for its user and each edge for
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from flavor.errors import InvalidSetting

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
LONGEST_VALUE = 4096
"""Characters of a value."""
MOST = 256
"""Settings of a run."""

PROTECTED = (
    # this project's own, and where a script's files lie
    *("FLAVOR_*", "TOTAL_ROUNDS", "*PATH", "HOME", "TMP", "TEMP", "TMPDIR", "PWD", "XDG_*"),
    # the loader, the C library, compilers that frameworks start
    *("LD_*", "DYLD_*", "GLIBC_*", "MALLOC_*", "CC", "CXX", "CUDA_*", "NVIDIA_*", "NVCC*"),
    # shells and what they start
    *("SHELL", "BASH*", "ENV", "IFS", "PS4", "ZDOTDIR", "PROMPT_COMMAND", "EDITOR", "VISUAL", "PAGER", "BROWSER"),
    # interpreters
    *("PYTHON*", "PIP_*", "CONDA_*", "VIRTUAL_ENV", "R_*", "PERL*", "RUBY*", "GEM_*", "NODE_*", "NPM_*", "JAVA*"),
    *("JDK*", "JULIA_*", "LUA_*", "*OPT", "*_OPTS", "*_OPTIONS"),
    # the network, and who one is there
    *("*_PROXY", "SSL_*", "OPENSSL_*", "CURL_*", "REQUESTS_*", "GIT_*", "SSH_*", "AWS_*", "HOSTALIASES", "LOCALDOMAIN"),
)
"""Names, or patterns of names, that a run may not set at a site."""


def checked_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """`settings` as a plain dict, sorted, if a run may set them; `InvalidSetting` names the first that it may not."""
    if len(settings) > MOST:
        raise InvalidSetting(f"{len(settings)} settings are too many: at most {MOST}")
    for name, value in settings.items():
        if not _NAME.fullmatch(name):
            raise InvalidSetting(
                f"setting {name[:80]!r} cannot be used: a name is 1 to 64 of A-Z, 0-9 and '_', a letter first"
            )
        pattern = next((pattern for pattern in PROTECTED if fnmatchcase(name, pattern)), None)
        if pattern is not None:
            which = "it is" if pattern == name else f"{pattern} is"
            raise InvalidSetting(f"setting {name!r} cannot be used: {which} a site's own; choose another name")
        if len(value) > LONGEST_VALUE or "\0" in value:
            raise InvalidSetting(f"setting {name!r}: its value is longer than {LONGEST_VALUE} characters, or has a NUL")
    return dict(sorted(settings.items()))


def parse_settings(texts: Iterable[str]) -> dict[str, str]:
    """The settings written as `NAME=VALUE`, each name once; `InvalidSetting` quotes what is none."""
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidSetting(f"--set {text[:80]!r} cannot be used: write --set NAME=VALUE")
        if name in settings:
            raise InvalidSetting(f"--set {name} is given twice")
        settings[name] = value
    try:
        return checked_settings(settings)
    except InvalidSetting as error:
        raise InvalidSetting(f"--set: {error}") from None
