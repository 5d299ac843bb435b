"""An aggregator without a queue: what a worker does about a run, for a coordinator in the same process.

It is the `flavor.coordinator.round_server.Aggregator` of `aumai_fedtrain`, which computes its models by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from flavor.bus.claim import Attempt
from flavor.bus.runs import RunStore
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.round import RoundView
from flavor.records.run import RunView
from workers.context import WorkerContext
from workers.evaluation import merge_results
from workers.inspection import inspect_updates
from workers.manifests import publish_manifest, refuse_if_recorded, stage_manifest


class InProcessAggregator:
    """Inspects updates, claims attempts and leaves signed manifests, as a worker does."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def inspect(self, run: str, round_: int, clients: Sequence[str]) -> None:
        """Judge the updates of these clients."""
        inspect_updates(self._context, run, round_, clients)

    def evaluate(self, run: str, round_: int, number: int, attempt: int) -> None:
        """Inspect and merge the results of an evaluation."""
        merge_results(self._context, run, round_, number, attempt=attempt)

    def attempt(self, runs: RunStore, round_: int, number: int, lease_s: float) -> Attempt:
        """Return one attempt to aggregate a round, not claimed yet."""
        return Attempt.of(runs, round_, number, lease_s, worker=self._context.name)

    def refuse_if_recorded(self, run: str, round_: int) -> None:
        """Raise `StateLost` where the store has the manifest of the round already."""
        refuse_if_recorded(self._context, run, round_)

    def stage_manifest(
        self,
        run: RunView,
        round_: RoundView,
        attempt: int,
        *,
        model: GlobalModel,
        now_ms: int,
    ) -> ObjectRef:
        """Put the signed manifest of this attempt beside its model."""
        return stage_manifest(self._context, run, round_, attempt, model=model, chosen=None, now_ms=now_ms)

    def publish_manifest(self, run: str, round_: int, manifest: ObjectRef) -> None:
        """Put the manifest of a committed round in its place."""
        publish_manifest(self._context, run, round_, manifest)
