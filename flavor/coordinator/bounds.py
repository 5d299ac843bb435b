"""Warnings about a run in which nothing bounds what one site can do to the model."""

from __future__ import annotations

from aggregators.clip import NormClip
from aggregators.krum import Krum
from aggregators.lora_pairs import may_match_both, on_factors_apart
from aggregators.mean import Mean
from aggregators.normalised import MOST_ENLARGED, FedNova
from aggregators.protocols import Prefix, weighs
from aggregators.registry import parse
from flavor.config import DEFAULT_AGGREGATOR, RunConfig
from flavor.coordinator.url_counts import MOST_HANDED_IN
from flavor.counted import counted
from flavor.rule_settings import COMMAND


def bound_warnings(config: RunConfig, *, has_model: bool = True) -> list[str]:
    """Return a warning for each way in which one site could decide a round: by what it claims, or by how far it moves.

    `has_model` says whether the first round begins from a model.
    """
    name = config.aggregator or DEFAULT_AGGREGATOR
    if not config.kind.has_tensors or name == COMMAND:
        return _of_any_kind(config)
    reducer, lines = parse(name).reducer, []
    clipped = enlarged = False
    while isinstance(reducer, Prefix):
        is_clip = isinstance(reducer, NormClip)
        clipped, enlarged = clipped or is_clip, (enlarged and not is_clip) or isinstance(reducer, FedNova)
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
    if enlarged and isinstance(reducer, Mean):
        lines.append(
            f"warning: a site that reports few localSteps has its change made up to {MOST_ENLARGED:g} times larger, "
            "beyond --max-update-norm and a norm_clip before fednova, which bound it before that; where sites are not "
            f"trusted have the changes clipped behind the division ({_with_clip(name)})"
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
    is_apart = not isinstance(reducer, Mean | Krum) or clipped or enlarged
    if is_apart and may_match_both(config.share):
        lines.append(f"warning: {on_factors_apart(name)}")
    return lines + _of_any_kind(config)


def _of_any_kind(config: RunConfig) -> list[str]:
    """Return the warnings that do not depend on the rule, or on what a checkpoint is."""
    lines = _of_small_buffers(config)
    if config.signed_urls and config.max_update_bytes is None:
        lines.append(
            "warning: nothing bounds the room that a site takes in the bucket: --signed-urls lets it write up to "
            f"{MOST_HANDED_IN} updates of any size in each round; where sites are not trusted bound it "
            "(--max-update-bytes N)"
        )
    return lines


def _of_small_buffers(config: RunConfig) -> list[str]:
    """Warn of a buffer that a single site can fill to a half or more, round after round, by handing in first."""
    mode = config.buffered
    if mode is None or mode.buffer is None or mode.buffer > min(2, config.min_clients // 2) or config.min_clients < 3:
        return []
    share = "the whole model" if mode.buffer == 1 else "half of the model"
    return [
        f"warning: a round closes with {counted(mode.buffer, 'update')}: a site that hands in sooner than the others, "
        f"also because it trains less, can have {share} in each round, and what slower sites train gets too old; where "
        f"sites are not trusted choose a buffer of more than half of the sites ({config.min_clients // 2 + 1} of "
        f"{config.min_clients}), or --mode sync:slow=async"
    ]


def _with_clip(name: str) -> str:
    """Return how to write this rule with norm_clip behind its last fednova."""
    head, fednova, behind = name.rpartition("fednova")
    return f"{head}{fednova}/norm_clip{behind}"
