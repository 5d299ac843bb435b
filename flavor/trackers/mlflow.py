"""Exports a run to MLflow: a run with the merged metrics, and below it a run for each site.

A step is a round. MLflow draws one metric of several runs into one chart, so that a metric has the same name in the run
and in those of the sites. The runs are found again by their tags, and each has its newest round as a metric, which is
written together with the round's other values: an export that is repeated, or was interrupted, goes on after it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from flavor.errors import InvalidSetting, RunError
from flavor.printable import printable
from flavor.records.run import RunView
from flavor.records.states import RunState
from flavor.results.evaluated import Evaluated
from flavor.results.evaluation_tables import values_of
from flavor.results.rounds import for_charts
from flavor.trackers.mlflow_client import OPTION, calling, connected, shown
from flavor.trackers.mlflow_names import OWN, judged_name, mlflow_name
from flavor.trackers.tracker import JUDGED, ClosedRound, Held, by_round, settings_of

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Metric, Run, RunTag

RUN_ID, SITE, MANIFEST, HEAD = "flavor.run_id", "flavor.site", "flavor.manifests", "flavor.manifest"
"""Tags: which run of flavor, which site of it, the digests of the rounds' manifests, that of the newest."""
_ROUND = f"{OWN}round"
_JUDGED_ROUND = f"{JUDGED}{OWN}round"
_CENTRAL = f"{JUDGED}{OWN}central/"
_Judged: TypeAlias = "tuple[Evaluated, dict[str, float]]"
_AT_ONCE, _PARAMS_AT_ONCE = 900, 100
"""MLflow takes 1000 metrics, 100 parameters and 100 tags in one request."""
_LONGEST = 5000
"""Longest value of a tag or a parameter, in characters, that all servers of MLflow 3 take."""
_A_TAG = 50
"""How many rounds' digests one tag has."""
_STATUS = {RunState.FINISHED: "FINISHED", RunState.FAILED: "FAILED", RunState.STOPPED: "KILLED"}


@dataclass
class _Place:
    """A run of MLflow."""

    id: str
    newest: int
    """The newest round that it has; 0 for none."""
    judged: int = 0
    """The newest round of whose model it has the evaluation by sites; 0 for none."""
    centrally: set[int] = field(default_factory=set)
    """The rounds of whose models it has the evaluation on the operator's own data, which come in any order."""
    tags: dict[str, str] = field(default_factory=dict)
    waiting: list[Metric] = field(default_factory=list)
    """Metrics that are not sent yet: those of whole rounds."""


class MlflowTracker:
    """One run of flavor on an MLflow server."""

    def __init__(
        self, uri: str, experiment: str, *, model: str | None, has_model: bool, tell: Callable[[str], None]
    ) -> None:
        """Write to the server at `uri`, into the `experiment` of this name, which is made if it is not there.

        `model` is the name under which the final model is registered (None for the run's), unless not `has_model`.
        """
        self._client, self._uri = connected(uri), uri
        self._experiment, self._model, self._has_model, self._tell = experiment, model, has_model, tell
        self.where = shown(uri)
        self._sites: dict[str, _Place] = {}
        self._renamed: dict[str, str] = {}

    # -- the runs

    def begin(self, view: RunView) -> Held:
        """See `Tracker`."""
        self._view = view
        with calling(self._uri):
            experiment = self._opened_experiment()
            self._experiment_id = str(experiment.experiment_id)
            self._sites, parents = {}, []
            for run in self._found(f"tags.`{RUN_ID}` = '{view.run_id}'"):
                place = _place_of(run)
                if site := run.data.tags.get(SITE):
                    self._sites[site] = place
                else:
                    parents.append((place, run))
            if len(parents) > 1:
                raise InvalidSetting(
                    f"{OPTION} {self.where}: experiment {self._experiment!r} has run {view.run!r} twice, from two "
                    f"exports at the same time: delete the run {parents[-1][0].id} there"
                )
            if parents:
                self._run, known = parents[0][0], dict(parents[0][1].data.params)
                if (name := f"{_CENTRAL}round") in parents[0][1].data.metrics:
                    history = self._client.get_metric_history(self._run.id, name)
                    self._run.centrally = {int(each.step) for each in history}
            else:
                self._check_unused(view)
                self._run, known = self._made(view.run, {}), {}
            self._write_settings(view, known)
            if not view.state.ended:  # also a run that `flavor resume` has resumed
                self._client.update_run(self._run.id, status="RUNNING")
        self.where = self._address()
        return Held(self._run.newest, self._run.tags.get(HEAD, ""))

    def _opened_experiment(self) -> Experiment:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            self._client.create_experiment(self._experiment)
            found = self._client.get_experiment_by_name(self._experiment)
        if found is None or found.lifecycle_stage != "active":
            raise InvalidSetting(
                f"{OPTION} {self.where}: experiment {self._experiment!r} is deleted there: restore it, or name another "
                "by --experiment"
            )
        return found

    def _found(self, words: str) -> Iterable[Run]:
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], words, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _check_unused(self, view: RunView) -> None:
        """Raise `InvalidSetting` where another run has the name of this one."""
        for run in self._found(f"attributes.run_name = '{view.run}'"):
            if SITE not in run.data.tags:
                raise InvalidSetting(
                    f"{OPTION} {self.where}: experiment {self._experiment!r} holds another run {view.run!r} "
                    f"({run.info.run_id}): name another experiment by --experiment, or rename that run"
                )

    def _made(self, name: str, tags: Mapping[str, str]) -> _Place:
        """Make a run; its tags are written with it, so that an interruption leaves none without them."""
        every = {RUN_ID: self._view.run_id, "flavor.run": self._view.run, **tags}
        began_ms = self._view.created_ms
        made = self._client.create_run(self._experiment_id, start_time=began_ms, tags=every, run_name=name)
        return _place_of(made)

    def _address(self) -> str:
        if self._uri.startswith(("http:", "https:")):
            base = self._uri.rstrip("/")
            return f"{shown(base)}/#/experiments/{self._experiment_id}/runs/{self._run.id}"
        return f"{shown(self._uri)} (experiment {self._experiment!r}, run {self._run.id})"

    def _write_settings(self, view: RunView, known: Mapping[str, str]) -> None:
        """Write the run's settings as parameters. MLflow changes none: what `flavor resume` changed is a tag."""
        from mlflow.entities import Param, RunTag

        settings = {name: value[:_LONGEST] or "''" for name, value in settings_of(view).items()}
        new = [Param(name, value) for name, value in settings.items() if name not in known]
        for first in range(0, len(new), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run.id, params=new[first : first + _PARAMS_AT_ONCE])
        other = [name for name, value in settings.items() if known.get(name, value) != value]
        if other:
            tags = [RunTag(f"flavor.now.{name}", settings[name]) for name in other[:_PARAMS_AT_ONCE]]
            self._client.log_batch(self._run.id, tags=tags)

    # -- the rounds

    def write(self, rounds: Sequence[ClosedRound]) -> int:
        """See `Tracker`. The run itself comes last: its newest round says that those of the sites are complete."""
        with calling(self._uri):
            by_site: dict[str, list[tuple[ClosedRound, dict[str, float]]]] = {}
            for each in rounds:
                for site in each.result.sites:
                    numbers: dict[str, float] = {f"{OWN}examples": site.examples, f"{OWN}bytes": site.bytes}
                    by_site.setdefault(site.site, []).append(
                        (each, {**self._named(for_charts(site.metrics)), **numbers})
                    )
            for name, of in by_site.items():
                self._send(self._site(name), of)
            merged = []
            for each in rounds:
                result = each.result
                numbers = {
                    f"{OWN}seconds": result.seconds,
                    f"{OWN}sites": len(result.clients),
                    f"{OWN}examples": result.examples,
                    f"{OWN}bytes": result.bytes,
                }
                merged.append((each, {**self._named(result.metrics_and_sites), **numbers}))
            self._send(self._run, merged, tags=self._tags(rounds))
        return len(rounds)

    def _site(self, name: str) -> _Place:
        if name not in self._sites:
            self._sites[name] = self._made(name, {SITE: name, "mlflow.parentRunId": self._run.id})
        return self._sites[name]

    def _send(
        self,
        place: _Place,
        rounds: Iterable[tuple[ClosedRound, dict[str, float]]],
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Write rounds, as many in a request as fit; the number of a round is in the last request with its values."""
        from mlflow.entities import Metric

        waiting: list[Metric] = []
        newest = place.newest
        for each, values in rounds:
            if each.round <= place.newest:
                continue
            whole = {**values, _ROUND: each.round}
            made = [Metric(name, float(value), each.closed_ms, each.round) for name, value in whole.items()]
            if waiting and len(waiting) + len(made) > _AT_ONCE:
                self._client.log_batch(place.id, metrics=waiting)
                place.newest, waiting = newest, []
            while len(made) > _AT_ONCE:
                self._client.log_batch(place.id, metrics=made[:_AT_ONCE])
                made = made[_AT_ONCE:]
            waiting += made
            newest = each.round
        if waiting or tags:
            self._client.log_batch(place.id, metrics=waiting, tags=tags)
            place.tags |= {tag.key: tag.value for tag in tags}
            place.newest = newest

    def _tags(self, rounds: Sequence[ClosedRound]) -> list[RunTag]:
        """Return the digests of the rounds' manifests, and who was in the newest."""
        from mlflow.entities import RunTag

        found: dict[str, str] = {}
        for each in rounds:
            first = (each.round - 1) // _A_TAG * _A_TAG + 1
            name = f"{MANIFEST}.{first:04d}-{first + _A_TAG - 1:04d}"
            lines = dict(line.split(" ", 1) for line in found.get(name, self._run.tags.get(name, "")).splitlines())
            lines[str(each.round)] = each.manifest or "unknown"
            found[name] = "\n".join(f"{number} {lines[number]}" for number in sorted(lines, key=int))
        for each in rounds[-1:]:
            found[HEAD] = each.manifest
            found["flavor.round"] = str(each.round)
            found["flavor.contributors"] = ", ".join(each.result.clients)[:_LONGEST]
        return [RunTag(name, value) for name, value in found.items()]

    def _named(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return metrics by their names in MLflow; say once of each that has another."""
        found = {}
        for metric, value in metrics.items():
            name = mlflow_name(metric)
            found[name] = value
            if name != metric and metric not in self._renamed and not name.startswith("weighted/"):
                self._renamed[metric] = name
                self._tell(f"MLflow does not take the metric name {printable(metric)!r}: it is {name!r} there")
        return found

    def write_evaluations(self, every: Sequence[Evaluated]) -> int:
        """See `Tracker`: metrics `evaluation/…` of the same runs, by round. The run itself comes last."""
        judged, before = by_round(every), self._run.judged
        with calling(self._uri):
            by_site: dict[str, list[_Judged]] = {}
            for each in judged:
                for site, of in each.sites.items():
                    values = {judged_name(name): value for name, value in of.metrics.items()}
                    by_site.setdefault(site, []).append((each, {**values, f"{JUDGED}{OWN}examples": of.examples}))
            for name, of_site in by_site.items():
                self._send_judged(self._site(name), of_site)
            numbers = [
                {f"{JUDGED}{OWN}sites": len(each.sites), f"{JUDGED}{OWN}examples": each.examples} for each in judged
            ]
            named = [{judged_name(name): value for name, value in values_of(each).items()} for each in judged]
            merged = [(each, {**one, **other}) for each, one, other in zip(judged, named, numbers, strict=True)]
            self._send_judged(self._run, merged)
            new = [each for each in by_round(every, is_central=True) if each.round not in self._run.centrally]
            for each in new:
                values = {judged_name(name): value for name, value in values_of(each).items()}
                marks = {f"{_CENTRAL}examples": each.examples, f"{_CENTRAL}round": each.round}
                self._log(self._run, each, {**values, **marks})
                self._run.centrally.add(each.round)
        return sum(each.round > before for each in judged) + len(new)

    def _send_judged(self, place: _Place, judged: Iterable[_Judged]) -> None:
        """Write the evaluations that a place lacks."""
        for each, values in judged:
            if each.round > place.judged:
                self._log(place, each, {**values, _JUDGED_ROUND: each.round})
                place.judged = each.round

    def _log(self, place: _Place, each: Evaluated, values: Mapping[str, float]) -> None:
        """Write an evaluation; the last of its values is in the last request, and says that all of it is there."""
        from mlflow.entities import Metric

        made = [Metric(name, float(value), each.closed_ms, each.round) for name, value in values.items()]
        for first in range(0, len(made), _AT_ONCE):
            self._client.log_batch(place.id, metrics=made[first : first + _AT_ONCE])

    # -- the end

    def end(self, view: RunView, reason: str, model: Callable[[Path], Path]) -> None:
        """See `Tracker`: ends the runs in MLflow, and registers the global model of a run that has finished."""
        with calling(self._uri):
            self._client.set_tag(self._run.id, "flavor.reason", printable(reason)[:_LONGEST] or "-")
            if self._has_model and view.state is RunState.FINISHED and view.global_model is not None:
                self._register(view, model)
            for place in (*self._sites.values(), self._run):
                self._client.set_terminated(place.id, _STATUS[view.state], view.ended_ms)

    def _register(self, view: RunView, model: Callable[[Path], Path]) -> None:
        """Upload the final model, and register it, unless that was done."""
        from mlflow.exceptions import MlflowException

        assert view.global_model is not None
        name, digest = self._model or view.run, view.global_model.model.digest
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in self._client.search_model_versions(f"name='{name}'"):
            if version.tags.get(RUN_ID) == view.run_id and version.tags.get("flavor.sha256") == digest:
                return
        round_ = self._run.newest
        folder = f"model/round-{round_:04d}"
        with tempfile.TemporaryDirectory(prefix="flavor-export-") as temporary:
            file = model(Path(temporary))
            self._upload(file, folder)
        tags = {
            RUN_ID: view.run_id,
            "flavor.run": view.run,
            "flavor.round": str(round_),
            "flavor.sha256": digest,
            "flavor.manifest": view.manifest.digest if view.manifest else "",
        }
        version = self._client.create_model_version(
            name,
            source=f"{self._client.get_run(self._run.id).info.artifact_uri}/{folder}",
            run_id=self._run.id,
            tags=tags,
            description=f"Global model of round {round_} of run {view.run}, as the training scripts save it. "
            f"mlflow.artifacts.download_artifacts('models:/{name}/VERSION') gives the folder with {file.name}.",
        )
        self._tell(f"registered the final model as version {version.version} of {name!r}")

    def _upload(self, file: Path, folder: str) -> None:
        """Upload a file to the run. Raises `RunError` for a place of files that the library of its kind refuses."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            self._client.log_artifact(self._run.id, str(file), folder)
        except (MlflowException, RequestException, ImportError):  # see `calling`
            raise
        except Exception as error:  # of a bucket's library
            why = printable(" ".join(f"{type(error).__name__}: {error}".split())[:300])
            raise RunError(
                f"MLflow at {shown(self._uri)} has all rounds, and its store does not take the final model: {why}; "
                "--no-model leaves it out"
            ) from None


def _place_of(run: Run) -> _Place:
    newest, judged = (int(run.data.metrics.get(name, 0)) for name in (_ROUND, _JUDGED_ROUND))
    return _Place(str(run.info.run_id), newest, judged, tags=dict(run.data.tags))
