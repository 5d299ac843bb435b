"""Leave sites out, and judge the models by one judge on this machine: a command of the operator's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flavor.contributions.judge import ModelJudge
from flavor.contributions.kept import KeptRound
from flavor.contributions.reading import RoundUpdates
from flavor.contributions.result import OfRound
from flavor.contributions.trial import why_not_again
from flavor.errors import AggregationError, AggregatorFailed, EvaluatorFailed
from flavor.policy.selection import Select


@dataclass(frozen=True)
class ByCommand:
    """A `Trial` with one judge: by which metric, and where its models lie for that time."""

    judge: ModelJudge
    select: Select
    folder: Path
    """A folder with room for two models."""

    @property
    def by_sites(self) -> bool:
        """See `Trial`."""
        return False

    def models(self, kept: KeptRound) -> int:
        """See `Trial`."""
        return 0 if kept.not_ours else 1 + len(kept.updates)

    def left_out(self, updates: RoundUpdates, found: OfRound, step: Callable[[], None]) -> OfRound:
        """See `Trial`. Raises `EvaluatorFailed` where the recorded model itself cannot be judged."""
        kept, model = updates.kept, self.folder / "model.safetensors"
        if why := why_not_again(updates, model):
            return replace(found, why_not=why)
        digest, format_ = kept.manifest.global_model.digest, kept.manifest.global_model.format
        value = self.judge.value(model, round_=kept.round, format_=format_)
        step()
        sites = dict(found.sites)
        for client in kept.updates:
            try:
                is_same = updates.make(model, without=client) == digest
                without = value if is_same else self.judge.value(model, round_=kept.round, format_=format_)
                sites[client] = sites[client].compared(value, without, self.select)
            except (AggregationError, AggregatorFailed, EvaluatorFailed) as error:
                sites[client] = replace(sites[client], why_not=" ".join(str(error).split()))
            step()
        model.unlink(missing_ok=True)
        return replace(found, sites=sites, value=value)
