"""The environment variables that a run sets for its training scripts, and which of them a site accepts.

The coordinator chooses them, and they reach a program that runs beside a site's data. Thousands of variables decide
which code a library loads or which host it talks to. So a site accepts those of a short list, `ALLOWED`, and others
only if its own user has named them (`flavor-fl --allow-set PATTERN`). No run may set a variable of `PROTECTED`, and no
site can allow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from flavor.errors import InvalidSetting

ALLOWED = (
    *("LEARNING_RATE", "LR", "LR_DECAY", "LR_SCHEDULE", "WARMUP_STEPS", "MIN_LEARNING_RATE"),
    *("BATCH_SIZE", "MICRO_BATCH_SIZE", "ACCUMULATION_STEPS", "LOCAL_STEPS", "LOCAL_EPOCHS", "EPOCHS", "STEPS"),
    *("OPTIMIZER", "MOMENTUM", "WEIGHT_DECAY", "BETA1", "BETA2", "EPSILON", "GRADIENT_CLIP", "PROXIMAL_MU"),
    *("DROPOUT", "LABEL_SMOOTHING", "TEMPERATURE", "SEED", "PRECISION"),
    *("HIDDEN_SIZE", "NUM_LAYERS", "NUM_HEADS", "SEQUENCE_LENGTH", "IMAGE_SIZE", "NUM_CLASSES"),
    *("HP_*",),
)
"""Names, or patterns of names, that every site accepts, with a number, a word or a list of them as value."""
_WORDS = re.compile(r"[A-Za-z0-9_.,:+\- ]{0,256}")
"""Pattern of the value of such a name: no characters of shells, paths and URLs, and no hyphen at the beginning."""

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
LONGEST_VALUE = 4096
"""Longest value, in characters."""
MOST = 256
"""Most variables that a run sets."""

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
    # the network, and credentials
    *("*_PROXY", "SSL_*", "OPENSSL_*", "CURL_*", "REQUESTS_*", "GIT_*", "SSH_*", "AWS_*", "HOSTALIASES", "LOCALDOMAIN"),
)
"""Names, or patterns of names, that a run may not set at a site."""


def checked_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return `settings` as a sorted dict if a run may set them. `InvalidSetting` names the first that it may not."""
    if len(settings) > MOST:
        raise InvalidSetting(f"{len(settings)} settings are too many: at most {MOST}")
    for name, value in settings.items():
        if not _NAME.fullmatch(name):
            raise InvalidSetting(
                f"setting {name[:80]!r} cannot be used: a name is 1 to 64 of A-Z, 0-9 and '_', a letter first"
            )
        if (pattern := _protecting(name)) is not None:
            which = "it is" if pattern == name else f"{pattern} is"
            raise InvalidSetting(f"setting {name!r} cannot be used: {which} a site's own; choose another name")
        if len(value) > LONGEST_VALUE or "\0" in value:
            raise InvalidSetting(f"setting {name!r}: its value is longer than {LONGEST_VALUE} characters, or has a NUL")
    return dict(sorted(settings.items()))


def _protecting(name: str) -> str | None:
    return next((pattern for pattern in PROTECTED if fnmatchcase(name, pattern)), None)


def settings_not_taken(settings: Mapping[str, str], also: Iterable[str] = ()) -> list[str]:
    """Return the names, sorted, of the settings that a site refuses that has also allowed the patterns `also`."""
    patterns = tuple(also)
    return sorted(
        name
        for name, value in settings.items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
        and not (any(fnmatchcase(name, pattern) for pattern in ALLOWED) and _is_plain(value))
    )


def _is_plain(value: str) -> bool:
    return bool(_WORDS.fullmatch(value)) and not re.match(r"-(?![0-9.])", value)


def checked_pattern(pattern: str) -> str:
    """Return a pattern of --allow-set. Raises `InvalidSetting` for a pattern that matches no name."""
    if not re.fullmatch(r"[A-Z0-9_*?\[\]]{1,64}", pattern):
        raise InvalidSetting(f"--allow-set {pattern[:80]!r} cannot match any setting: names are of A-Z, 0-9 and '_'")
    return pattern


def parse_settings(texts: Iterable[str]) -> dict[str, str]:
    """Read settings written as `NAME=VALUE`, each name once. `InvalidSetting` quotes any other text."""
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


def parse_own_settings(texts: Iterable[str]) -> dict[str, str]:
    """Read the settings that a site gives to its script itself, in place of the run's, written as `NAME=VALUE`.

    Raises `InvalidSetting` for other texts, and for names that no run may set: those need no place of their own here.
    """
    texts = tuple(texts)
    for text in texts:
        name = text.partition("=")[0]
        if _NAME.fullmatch(name) and _protecting(name) is not None:
            raise InvalidSetting(
                f"--set {name}: no run can set this variable, so nothing is to be replaced: set it in the environment "
                "of this program, which the script inherits"
            )
    return parse_settings(texts)
