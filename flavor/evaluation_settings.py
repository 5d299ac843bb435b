"""The settings of a run about the evaluation of its models, which are fields of `flavor.config.RunConfig`."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Protocol, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from flavor.option_groups import Group
from flavor.policy.rule_names import why_no_value
from flavor.policy.selection import Select, StopAfterNoGain, StopWhen
from flavor.records.counts import CENTRAL_PREFIX
from flavor.setting import LONGEST_S, setting

OFF, EVERY, FINAL = "off", "every", "final"


def _checked_mode(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value).strip()
    if text in (EVERY, FINAL, OFF):
        return text
    if text.isdigit() and 1 <= int(text) <= 1_000_000:
        return EVERY if int(text) == 1 else str(int(text))
    raise ValueError("every, final, off or a number of rounds is needed, e.g. 5")


def _checked_select(text: str | None) -> str | None:
    return None if text is None else str(Select.parse(text))


def _checked_goals(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(StopWhen.parse(text).text for text in texts)


def _checked_patience(value: Any) -> str | None:
    if value is not None:
        StopAfterNoGain.parse(str(value))
    return None if value is None else str(value).strip()


EvaluateMode: TypeAlias = Annotated[str | None, BeforeValidator(_checked_mode)]
SelectRule: TypeAlias = Annotated[str | None, AfterValidator(_checked_select)]
Goals: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_checked_goals)]
Patience: TypeAlias = Annotated[str | None, BeforeValidator(_checked_patience)]

EVALUATE: Any = setting(
    "Have the sites and aggregators that have an evaluator (-e) judge the global model: of every round, of every N "
    "rounds, only the last one (final), or none (off). The last one is always judged, unless it is off.",
    Group.EVALUATION,
    default=None,
    may_change=True,
    metavar="every|N|final|off",
    absent="final; every with --select, --stop-when or --stop-after-no-gain",
)
EVALUATION_TIMEOUT_S: Any = setting(
    "Seconds that an evaluation waits for its sites. Training goes on without the results that are late.",
    Group.EVALUATION,
    default=3600.0,
    may_change=True,
    gt=0,
    le=LONGEST_S,
)
SELECT: Any = setting(
    "Keep the model of the best round, by a metric of the evaluations and which of its values are better, e.g. "
    "accuracy:max, pooled/auc:max, worst/loss:min (the worst site's) or central/auc:max (the operator's own data).",
    Group.EVALUATION,
    default=None,
    metavar="NAME:max|min",
    absent="no round is kept as the best",
    is_single=True,
)
STOP_WHEN: Any = setting(
    'Finish the run once a metric of an evaluation is good enough, e.g. "pooled/accuracy>=0.95". May be repeated.',
    Group.EVALUATION,
    default=(),
    may_change=True,
    metavar="RULE",
)
STOP_AFTER_NO_GAIN: Any = setting(
    "Finish the run once the metric of --select has not got better in N evaluations in a row, by more than GAIN.",
    Group.EVALUATION,
    default=None,
    may_change=True,
    metavar="N[:GAIN]",
    absent="no limit",
    is_single=True,
)


class _Evaluated(Protocol):
    """The settings of a run that are about evaluation."""

    @property
    def evaluate(self) -> str | None: ...

    @property
    def select(self) -> str | None: ...

    @property
    def stop_when(self) -> tuple[str, ...]: ...

    @property
    def stop_after_no_gain(self) -> str | None: ...


def mode_of(config: _Evaluated) -> str:
    """Return when models are judged: `off`, `every`, `final`, or a number of rounds."""
    if config.evaluate is not None:
        return config.evaluate
    return EVERY if config.select or config.stop_when or config.stop_after_no_gain else FINAL


def conflict_of(config: _Evaluated) -> str:
    """Return why settings about evaluation exclude each other; '' where they do not."""
    if config.stop_after_no_gain and not config.select:
        return "--stop-after-no-gain needs --select: name the metric that is to get better, e.g. --select accuracy:max"
    ruled = (("--select", config.select), ("--stop-when", config.stop_when))
    for option, value in ruled:
        if value and mode_of(config) == OFF:
            return f"{option} needs evaluations, and --evaluate is off: leave --evaluate out, or pass --evaluate every"
    for option, value in (("--stop-when", config.stop_when), ("--stop-after-no-gain", config.stop_after_no_gain)):
        if value and mode_of(config) == FINAL:
            return f"{option} never ends a run of which only the last model is judged: pass --evaluate every"
    return ""


def conflict_of_names(config: _Evaluated, before: _Evaluated | None = None) -> str:
    """Return which rule names a metric that no evaluation can have, and why; '' where none does.

    `before` are the settings of a run that is resumed: it keeps its rules.
    """
    had = _named(before) if before is not None else []
    new = [each for each in _named(config) if each not in had]
    return next((f"{option} {value}: {why}" for option, value, name in new if (why := why_no_value(name))), "")


def _named(config: _Evaluated) -> list[tuple[str, str, str]]:
    """Return the option, the value and the metric of each rule that names one."""
    found = [("--select", str(rule), rule.name) for rule in [select_of(config)] if rule]
    return found + [("--stop-when", repr(rule.text), rule.name) for rule in goals_of(config)]


def ruled_by_sites(config: _Evaluated) -> list[str]:
    """Return the rules on metrics that sites measure, each as its option and value: `--select accuracy:max`."""
    select, when, after = rules_of(config, central=False)
    found = [f"--select {select}"] if select else []
    found += [f"--stop-when {rule.text!r}" for rule in when]
    return found + ([f"--stop-after-no-gain {config.stop_after_no_gain}"] if after else [])


def lacking_evaluator(config: _Evaluated, *, sites: bool, central: bool) -> str:
    """Return which setting needs an evaluator that a run does not have; '' where none does.

    `sites` says whether its sites have an evaluator, `central` whether its aggregators have one.
    """
    of_sites, of_own = "-e CMD", "--central-evaluate CMD with --evaluate-input DIR"
    for option, value, name in _named(config):
        is_central = name.startswith(CENTRAL_PREFIX)
        if central if is_central else sites:
            continue
        other = f"; names of metrics of -e have no {CENTRAL_PREFIX}" if sites else ""
        other += f"; names of metrics of --central-evaluate begin with {CENTRAL_PREFIX}" if central else ""
        needed = of_own if is_central else of_sites
        return f"{option} {value}: this run has no evaluator that measures {name}: pass {needed}{other}"
    if config.evaluate not in (None, OFF) and not (sites or central):
        return f"--evaluate {config.evaluate}: this run has no evaluator: pass {of_sites}, or {of_own}"
    return ""


def select_of(config: _Evaluated) -> Select | None:
    """Return the rule of `--select`; None without it."""
    return Select.parse(config.select) if config.select else None


def goals_of(config: _Evaluated) -> list[StopWhen]:
    """Return the rules of `--stop-when`."""
    return [StopWhen.parse(text) for text in config.stop_when]


def patience_of(config: _Evaluated) -> StopAfterNoGain | None:
    """Return the rule of `--stop-after-no-gain`; None without it."""
    return StopAfterNoGain.parse(config.stop_after_no_gain) if config.stop_after_no_gain else None


class Rules(NamedTuple):
    """The rules of a run that depend on the metrics of one kind of evaluation."""

    select: Select | None
    when: list[StopWhen]
    after: StopAfterNoGain | None


def rules_of(config: _Evaluated, *, central: bool) -> Rules:
    """Return the rules on metrics of evaluations on the operator's own data (`central/…`), or those on all others."""
    select = select_of(config)
    if select is not None and select.name.startswith(CENTRAL_PREFIX) != central:
        select = None
    when = [rule for rule in goals_of(config) if rule.name.startswith(CENTRAL_PREFIX) == central]
    return Rules(select, when, patience_of(config) if select is not None else None)
