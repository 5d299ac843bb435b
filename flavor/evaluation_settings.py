"""The settings of a run about the evaluation of its models, which are fields of `flavor.config.RunConfig`."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator

from flavor.option_groups import Group
from flavor.setting import LONGEST_S, evaluate_of, setting

EvaluateMode: TypeAlias = Annotated[str, BeforeValidator(evaluate_of)]
EVALUATE: Any = setting(
    "Have the sites that have an evaluator (flavor-fl -e) judge the global model: of every round, of every N "
    "rounds, only the last one (final), or none (off). The last one is always judged, unless it is off.",
    Group.EVALUATION,
    default="final",
    may_change=True,
    metavar="every|N|final|off",
)
EVALUATION_TIMEOUT_S: Any = setting(
    "Seconds that an evaluation waits for its sites. Training goes on without the results that are late.",
    Group.EVALUATION,
    default=3600.0,
    may_change=True,
    gt=0,
    le=LONGEST_S,
)
