"""The settings of a run that name tensors by patterns, which are fields of `flavor.config.RunConfig`."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator

from flavor import patterns
from flavor.option_groups import Group
from flavor.setting import setting


def _match_something(given: tuple[str, ...]) -> tuple[str, ...]:
    if not all(pattern.strip() for pattern in given):
        raise ValueError("an empty pattern matches no tensor: name one, or a pattern like '*.labels'")
    return given


Patterns: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_match_something)]
_METAVAR = "PATTERN"

SHARE: Any = setting(
    "Share only the tensors that match this pattern, e.g. '*lora_*' or 'head.*': the others never leave their site, "
    "whose edge keeps them and gives the script whole files. May be repeated.",
    Group.MODEL,
    default=(),
    metavar=_METAVAR,
)
LOCAL: Any = setting(
    "Share all tensors except those that match this pattern, e.g. '*bn*': these never leave their site. With --share, "
    "exclude them from the tensors that are shared. May be repeated.",
    Group.MODEL,
    default=(),
    metavar=_METAVAR,
)
KEEP: Any = setting(
    "Keep the tensors that match this pattern unchanged in all rounds, e.g. '*._extra_state'. Kept tensors come "
    "from the global model, or in a first round without a global model from the first site by name. May be "
    "repeated.",
    Group.MODEL,
    default=(),
    metavar=_METAVAR,
)
EQUAL: Any = setting(
    "Require the tensors that match this pattern to be the same at all sites, e.g. '*.labels'; an update with "
    "other values is refused. May be repeated.",
    Group.MODEL,
    default=(),
    metavar=_METAVAR,
)
STATISTICS: Any = setting(
    "Exclude the float tensors that match this pattern from the server step, because they are statistics, e.g. a "
    "running variance, and no parameters. '*running_mean', '*running_var' and similar patterns are always "
    "included, unless a pattern is `none`. May be repeated.",
    Group.MODEL,
    default=patterns.STATISTICS,
    metavar=_METAVAR,
)
