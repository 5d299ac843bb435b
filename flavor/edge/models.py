"""Places the run's global models where the trainer reads them, if the site trusts the aggregator that made them."""

from __future__ import annotations

from flavor.edge.exchange import Exchange
from flavor.edge.joining import Site
from flavor.edge.trust import ModelTrust
from flavor.errors import RunRefused
from flavor.ledger.archive import Archive
from flavor.records.evaluation import EvaluationTask
from flavor.records.model import GlobalModel
from flavor.records.run import RunView
from flavor.records.task import Task
from flavor.store.protocol import ObjectStore


class GlobalModels:
    """Checks each global model against the signed manifests (`--trust`), and places it where the trainer reads it."""

    def __init__(self, site: Site, store: ObjectStore, trust: ModelTrust, exchange: Exchange) -> None:
        self._site, self._trust, self._exchange = site, trust, exchange
        self._archive = Archive(store, site.config.run)

    def of_task(self, task: Task) -> GlobalModel | None:
        """The model that a task names, without a seal that the site does not believe; None where there is none."""
        return self._trust.named(task.base)

    def is_quick(self, model: GlobalModel | None) -> bool:
        """Whether placing the model takes no longer than handing the work to another thread."""
        whole = self._site.run.whole
        moved = (model.size_bytes if model else 0) + ((whole.size_bytes or 0) if whole else 0)
        return model is None or self._exchange.is_quick(moved)

    def place(self, round_: int, model: GlobalModel | None) -> None:
        """Place the model that round `round_` starts from.

        Raises `UntrustedModel`, and what `Exchange.place_global` raises; the trainer's file is unchanged after that.
        """
        self._trust.check(self._archive, self._site.run.run_id, round_ - 1, model, digest=self._manifest_digest)
        self._exchange.place_global(model, round_=round_)

    def place_final(self, view: RunView) -> None:
        """Place the model that the run has ended with. Raises as `place`."""
        model = self._trust.named(view.global_model)
        run_id = self._site.run.run_id
        self._trust.check_final(self._archive, run_id, view.round, model, digest=self._manifest_digest)
        self._exchange.place_global(model)

    def judged(self, task: EvaluationTask) -> GlobalModel:
        """The model that an evaluation names, without a seal that the site does not believe."""
        model = self._trust.named(task.model)
        assert model is not None
        return model

    def place_judged(self, round_: int, model: GlobalModel) -> None:
        """Place the model that round `round_` has made, to be judged; 0 for one of no round.

        Raises as `place`, and `RunRefused` where the site declines models of no round.
        """
        if round_ == 0:
            if not self._site.config.outside_models:
                raise RunRefused(
                    "the site is asked to judge a model that no round of the run has made, which it declines: start "
                    "without --no-outside-models if you expect such models, from an operator whom you trust",
                    told="it judges only models that a round of the run has made (--no-outside-models)",
                )
            self._trust.check_asked(model)
            self._exchange.place_global(model)
            return
        self._trust.check(self._archive, self._site.run.run_id, round_, model, digest=self._manifest_digest)
        self._exchange.place_global(model)

    def _manifest_digest(self) -> str:
        """SHA-256 of the manifest of the newest closed round, as Redis names it; '' where Redis names none."""
        view = self._site.runs.find()
        return view.manifest.digest if view is not None and view.manifest is not None else ""
