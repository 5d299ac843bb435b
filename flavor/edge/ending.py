"""What an edge does once the run is over: place the final global model, let the trainer end, and say how it ended."""

from __future__ import annotations

from flavor.edge.arrival import ended_early
from flavor.edge.joining import Site
from flavor.edge.models import GlobalModels
from flavor.edge.standing import Standing
from flavor.edge.trainer import Trainer
from flavor.edge.transfers import Transfers
from flavor.errors import InvalidUpdate, RunError, RunFinishedEarly, RunStopped, StoreError
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.view.site_events import RunOver


class Ending:
    """Ends this site's part in a run that is over."""

    def __init__(
        self, site: Site, standing: Standing, trainer: Trainer, *, transfers: Transfers, models: GlobalModels
    ) -> None:
        self._site, self._standing, self._trainer = site, standing, trainer
        self._transfers, self._models = transfers, models

    def follow(self, view: RunView) -> None:
        """Place the final global model if there is one, let the trainer end, and tell how the run has ended.

        Raises `RunStopped`, `RunFinishedEarly` or `RunError` after such an end, `Died` when the trainer fails after the
        last round, and `StoreError` or `InvalidUpdate` when the final global model could not be placed.
        """
        is_finished, missed = view.state is RunState.FINISHED, None
        if is_finished:
            try:
                self._transfers.carry(lambda: self._models.place_final(view))
            except (InvalidUpdate, StoreError) as error:
                missed = error
        else:
            self._trainer.stop_unless_ended()
        code = self._trainer.end_with_run()
        if code and is_finished and not self._standing.part.has_left:
            raise self._trainer.died(code, "after the last round")
        self._tell_end(view, missed)

    def _tell_end(self, view: RunView, missed: InvalidUpdate | StoreError | None) -> None:
        run, target = self._site.config.run, self._site.workspace.global_model
        if view.state is RunState.STOPPED:
            raise RunStopped(f"run {run!r} {view.state.is_now}: {view.reason}")
        if view.state is not RunState.FINISHED:
            raise RunError(f"run {run!r} {view.state.is_now}: {view.reason}")
        if missed is not None:
            raise missed.reworded(
                f"run {run!r} is finished, and its final global model could not be placed at {target}, which holds the "
                f"one before, if any: {missed}"
            )
        where = f"the final global model is at {target}"
        if ended_early(view):
            raise RunFinishedEarly(f"run {run!r} is finished: {view.reason}; {where}")
        self._site.observer.hear(RunOver(where, run=run))
