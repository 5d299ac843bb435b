"""Warnings about a run in which nothing bounds what one site can do to the model."""

from __future__ import annotations

from aggregators.mean import Mean
from aggregators.normalised import FedNova
from aggregators.protocols import Prefix, weighs
from aggregators.registry import parse
from flavor.config import DEFAULT_AGGREGATOR, RunConfig
from flavor.rule_settings import COMMAND


def bound_warnings(config: RunConfig, *, has_model: bool = True) -> list[str]:
    """Return a warning for each way in which one site could decide a round: by what it claims, or by how far it moves.

    `has_model` says whether the first round begins from a model.
    """
    name = config.aggregator or DEFAULT_AGGREGATOR
    if not config.kind.has_tensors or name == COMMAND:
        return []
    reducer, lines = parse(name).reducer, []
    clipped = has_steps = steps_bounded = False
    while isinstance(reducer, Prefix):
        is_of_steps = isinstance(reducer, FedNova)
        has_steps, clipped = has_steps or is_of_steps, clipped or not is_of_steps
        steps_bounded = steps_bounded or (has_steps and not is_of_steps)
        reducer = reducer.then
    claimed = config.weights in ("importance", "product") or (
        config.weights == "datasetSize" and config.max_dataset_size is None
    )
    if claimed and weighs(reducer):
        lines.append(
            "warning: nothing bounds a site's share: one that claims a thousand times the others' examples or "
            "importance has nearly all of the model; where sites are not trusted bound it (--max-dataset-size N) or "
            "end it (--weights equal)"
        )
    if has_steps and not steps_bounded:
        lines.append(
            "warning: nothing bounds what a site's localSteps do: one that claims a thousand times the others' steps "
            "makes all of their changes larger, and one that claims a thousandth its own; where sites are not trusted "
            f"have the changes clipped behind the division ({_with_clip(name)})"
        )
    if isinstance(reducer, Mean) and not clipped and config.max_update_norm is None:
        lines.append(
            "warning: nothing bounds how far one update moves the model; where sites are not trusted bound it "
            "(--max-update-norm NUMBER) or choose a rule that does (`flavor aggregators`: norm_clip, median, krum, ...)"
        )
    elif isinstance(reducer, Mean) and not has_model:
        lines.append(
            "warning: nothing bounds how far an update moves the model of round 1, which begins from no model: "
            "--max-update-norm and norm_clip measure from round 2 on; where sites are not trusted begin from a model "
            "(--init-model FILE) or choose a rule that needs none to withstand them (median, krum, ...)"
        )
    return lines


def _with_clip(name: str) -> str:
    """Return how to write this rule with norm_clip behind fednova."""
    head, fednova, behind = name.partition("fednova")
    return f"{head}{fednova}/norm_clip{behind}"
