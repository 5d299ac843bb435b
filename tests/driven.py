"""A run on a real Redis, driven by the test step by step: it is the coordinator, the worker and the clients."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flavor.bus.connection import connect
from flavor.bus.runs import RunStore
from flavor.config import RunConfig
from flavor.evaluation_settings import select_of
from flavor.ledger.canonical import sha256
from flavor.ledger.evaluation import EvaluationManifest, JudgeRecord
from flavor.ledger.keys import SigningKey
from flavor.policy.selection import choose
from flavor.programs.result_file import Written
from flavor.records.evaluated_info import with_report
from flavor.records.evaluation import AUTOMATIC, CENTRAL, EvaluationSummary, Result, ResultVerdict
from flavor.records.info import CONFUSION, Info, checked_info, info_bytes
from flavor.records.measured import Measured
from flavor.records.merging import merge_infos
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.update import Update
from flavor.records.verdict import Verdict
from flavor.results.evaluation_summary import evaluation_summary, first_ruled
from flavor.results.site_measures import first_names, kept_of
from flavor.results.summaries import known_metrics, summary_of
from flavor.store.local import LocalStore
from flavor.store.paths import evaluation_prefix, global_prefix, named, taken_image, taken_report, update_prefix

TOKEN = "coordinator"
NOTHING: Mapping[str, str] = {}


def info(examples: int, metrics: Mapping[str, float | None]) -> Info:
    """A client's information with these metrics, also such as are infinite or NaN."""
    metadata = {"epoch": 1, "datasetSize": examples, "importance": 1.0}
    made: Info = {"metadata": metadata, "metrics": {**dict.fromkeys(CONFUSION, -1), **metrics}}
    numbers = (value for value in metrics.values() if not (value is None or isinstance(value, list)))
    return made if all(map(math.isfinite, numbers)) else checked_info(made)


class Driven:
    """A run whose every move the test makes; `store` may be None, and then it has no objects."""

    def __init__(self, url: str, store: LocalStore | None = None, run: str = "", **settings: Any) -> None:
        self.url, self.store = url, store
        self.runs = RunStore(connect(url), run or f"d-{uuid.uuid4().hex[:8]}", url)
        where = store.url if store is not None else "file:///nowhere"
        self.config = RunConfig.parse({"rounds": 1000, "min_clients": 1, "store": where, **settings})
        assert self.runs.create(rounds=self.config.rounds, config=self.config.model_dump(mode="json"))
        self.runs.redis.set(self.runs.keys.coordinator, TOKEN)
        self.infos: dict[str, Info] = {}
        self.round = 0
        self.key = SigningKey.generate()
        """With which the worker signs records of evaluations."""

    def open(self, clients: Sequence[str], *, timeout_s: float = 600.0, since: Mapping[str, int] | None = None) -> None:
        """Open the next round for these clients; `since` has the earlier tasks of an asynchronous run."""
        self.round += 1
        self.infos = {}
        self.runs.open_round(
            TOKEN, self.round, expected=clients, timeout_s=timeout_s, reason="all are there", since=since
        )

    def _put(self, prefix: str, stem: str, data: bytes, extension: str) -> ObjectRef:
        return self._place(named(prefix, stem, sha256(data), extension), data)

    def _place(self, path: str, data: bytes) -> ObjectRef:
        ref = ObjectRef(path, sha256(data), len(data))
        if self.store is not None:
            with self.store.stage() as staged:
                staged.write_bytes(data)
                self.store.put(ref, staged)
        return ref

    def update(self, client: str, examples: int, metrics: Mapping[str, float | None]) -> Update:
        """An update of this client, whose information is in the store."""
        prefix = update_prefix(self.runs.run, self.round, client)
        self.infos[client] = info(examples, metrics)
        info_ref = self._put(prefix, "info", info_bytes(self.infos[client]), ".json")
        ref = self._put(prefix, "update", f"{client} {self.round}".encode(), ".safetensors")
        return Update(ref, replace(info_ref, size_bytes=None), "torch", examples, try_id=f"{client}-{self.round}")

    def accept(
        self,
        client: str,
        examples: int = 10,
        metrics: Mapping[str, float | None] | None = None,
        measured: Measured | None = Measured(),  # noqa: B008
    ) -> None:
        """The client hands in an update, which is accepted; `measured` is None for a worker of an earlier release."""
        update = self.update(client, examples, metrics or {})
        verdict = Verdict(True, f"{examples} examples", update, try_id=update.try_id)
        if measured is not None:
            measured = measured.with_metrics(self.infos[client]["metrics"], last=CONFUSION)
        assert self.runs.judge(self.round, client, verdict, measured)

    def refuse(self, client: str, reason: str = "NaN", measured: Measured | None = Measured()) -> None:  # noqa: B008
        """The client hands in an update, which is refused."""
        assert self.runs.judge(self.round, client, Verdict(False, reason, try_id=uuid.uuid4().hex), measured)

    def aggregate(self) -> None:
        """Begin the first attempt with all whose updates are accepted."""
        view = self.runs.read_round(self.round)
        assert view is not None
        self.runs.begin_aggregation(TOKEN, self.round, attempt=1, contributors=list(view.accepted), reason="all are in")
        self.runs.claim_round(self.round, attempt=1, token="worker", ttl_s=600)

    def commit(self, *, is_kept: bool = True) -> None:
        """Close the round with a model; a worker of an earlier release keeps no summary of it."""
        prefix = global_prefix(self.runs.run, self.round)
        merged = merge_infos(list(self.infos), list(self.infos.values())) if self.infos else info(0, {})
        about = self._put(prefix, "info", json.dumps(merged).encode(), ".json")
        model = GlobalModel(self._put(prefix, "model", b"weights", ".safetensors"), about, None, "torch")
        view = self.runs.read_round(self.round)
        assert view is not None
        sites = {client: each["metrics"] for client, each in self.infos.items()}
        known = known_metrics(self.runs.summaries(-1))
        summary = summary_of(view, attempt=1, info=merged, sites=sites, known=known) if is_kept else None
        self.runs.commit_round(self.round, attempt=1, token="worker", model=model, reason="closed", summary=summary)

    def judge(
        self,
        sites: Mapping[str, tuple[int, Mapping[str, float]]],
        missing: Mapping[str, str] = NOTHING,
        *,
        number: int = AUTOMATIC,
        skipped: Sequence[str] = (),
        reports: Mapping[str, Written] | None = None,
    ) -> None:
        """Sites judge the model of the newest round: their examples and metrics, or why they have no result.

        `reports` are what some of them have written beside, as an aggregator has taken it.
        """
        opened_ms = self.open_evaluation([*sites, *missing], skipped=skipped, number=number)
        self.runs.begin_merge(TOKEN, self.round, number, attempt=1)
        infos = {site: info(examples, metrics) for site, (examples, metrics) in sites.items()}
        for site, written in (reports or {}).items():
            infos[site] = with_report(infos[site], written.report, self.round, digest=written.digest)
            place = (self.runs.run, self.round, number, site)
            self._place(taken_report(*place, written.digest), written.data)
            for image in written.report.images:
                self._place(taken_image(*place, image.digest, image.extension), written.images[image.digest])
        merged = merge_infos(list(infos), list(infos.values()))
        prefix = evaluation_prefix(self.runs.run, self.round, number)
        examples = sum(of for of, _ in sites.values())
        summary = evaluation_summary(
            self.round,
            number,
            opened_ms=opened_ms,
            expected=len(sites) + len(missing),
            missing=missing,
            examples=examples,
            merged=merged,
            sites={site: each["metrics"] for site, each in infos.items()},
            config=self.config,
        )
        global_model = self.runs.read().global_model
        assert global_model is not None
        model = global_model.model.digest
        results = {
            site: Result(self._put(prefix, f"result-{site}", info_bytes(of), ".json"), sites[site][0], model)
            for site, of in infos.items()
        }
        first = first_names(infos.values(), first_ruled(self.config))
        verdicts = {
            site: ResultVerdict(True, "", result, **kept_of(infos[site], first)._asdict())
            for site, result in results.items()
        }
        refused = {site: ResultVerdict(False, why) for site, why in missing.items()}
        judges = tuple(JudgeRecord.of(site, result) for site, result in results.items())
        self._commit_evaluation(summary, merged, {**verdicts, **refused}, judges=judges, missing=dict(missing))

    def judge_centrally(self, examples: int, metrics: Mapping[str, float], round_: int) -> None:
        """A worker has measured these metrics, `central/…`, of the model of a round, whose evaluation is open."""
        view = self.runs.read_evaluation(round_, CENTRAL)
        assert view is not None
        merged: Info = {"metadata": {"clients": [], "datasetSize": [examples]}, "metrics": dict(metrics)}
        summary = EvaluationSummary(round_, CENTRAL, view.opened_ms, 0, 1, 1, examples, dict(metrics))
        self._commit_evaluation(summary, merged, {}, central=examples)

    def _commit_evaluation(
        self, summary: EvaluationSummary, merged: Info, verdicts: Mapping[str, ResultVerdict], **recorded: Any
    ) -> None:
        view, prefix = self.runs.read(), evaluation_prefix(self.runs.run, summary.round, summary.number)
        evaluation = self.runs.read_evaluation(summary.round, summary.number)
        info_ref = self._put(prefix, "merged", json.dumps(merged).encode(), ".json")
        assert evaluation is not None
        manifest = EvaluationManifest(
            **{
                "run": view.run,
                "run_id": view.run_id,
                "round": summary.round,
                "evaluation": summary.number,
                "model_path": evaluation.model.model.path,
                "model_digest": evaluation.model.model.digest,
                "opened_ms": summary.opened_ms,
                "closed_ms": self.runs.now_ms(),
                "expected": tuple(verdicts),
                "judges": (),
                "missing": {},
                "merged_path": info_ref.path,
                "merged_digest": info_ref.digest,
                **recorded,
            }
        ).signed(self.key)
        choice = choose(view.best, summary, select=select_of(self.config), when=())
        self.runs.commit_evaluation(
            summary.round,
            summary.number,
            attempt=1,
            verdicts=verdicts,
            info=info_ref,
            manifest=self._put(prefix, "manifest", manifest.to_bytes(), ".json"),
            summary=summary,
            reason=f"{summary.sites} results",
            before=view.best,
            best=choice.best,
            best_reason=choice.reason,
        )

    def open_evaluation(
        self,
        sites: Sequence[str],
        *,
        skipped: Sequence[str] = (),
        number: int = AUTOMATIC,
        timeout_s: float = 600.0,
    ) -> int:
        """Have sites judge the model of the newest round; of number `CENTRAL`, a worker on the operator's own data."""
        opened_ms = self.runs.open_evaluation(
            TOKEN, self.round, number, expected=sites, skipped=skipped, timeout_s=timeout_s, reason="judged"
        )
        if number == CENTRAL:
            self.runs.begin_merge(TOKEN, self.round, CENTRAL, attempt=1)
        return opened_ms

    def close(self, *, is_kept: bool = True) -> None:
        """Aggregate and commit."""
        self.aggregate()
        self.commit(is_kept=is_kept)
