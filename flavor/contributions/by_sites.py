"""Leave sites out, and have the sites of the run judge the models, each on its own data.

A model that lacks one site's update says what that update is, beside the global model that all sites read. So a site is
left out only if it allows others to judge its updates (`flavor-fl --allow-cross`), only those sites judge that say the
same, and no site is left out of a round whose other updates could be computed from that (`flavor.policy.exposure`).
Who was left out before counts as known (`flavor.ledger.disclosures`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from flavor.config import DEFAULT_AGGREGATOR
from flavor.contributions.kept import KeptRound
from flavor.contributions.reading import RoundUpdates
from flavor.contributions.result import OfRound, Part, mean
from flavor.contributions.trial import ONE_SITE, why_not_again
from flavor.coordinator.asked_evaluation import Asked
from flavor.errors import AggregationError, AggregatorFailed, InvalidSetting, RunError, StoreError
from flavor.ledger.disclosures import Disclosures
from flavor.policy.advice import some
from flavor.policy.exposure import NOT_ALLOWED, Mixed, keeping, why_exposed, why_kept
from flavor.policy.near_names import there_are
from flavor.policy.selection import Select
from flavor.records.model import GlobalModel
from flavor.records.objects import ObjectRef
from flavor.records.subject import Subject, SubjectKind
from flavor.results.evaluated import Evaluated
from flavor.store.paths import global_prefix, named
from flavor.store.protocol import ObjectStore
from flavor.store.trouble import StoreHealth

_COMMAND = "flavor contributions --by-sites"


class Sites(Protocol):
    """The sites of a run that judge models when they are asked."""

    def judge_all(self, asked: Sequence[Asked], ended: Callable[[int, Evaluated | str], None]) -> list[Evaluated | str]:
        """Have them judge models in one go; the reason stands in place of an evaluation that has no result.

        `ended` is called with the place in `asked` of each evaluation that is over. Raises `RunError` where no site can
        judge.
        """

    def allowing(self) -> Collection[str]:
        """Return the sites that allow others to judge their updates now."""

    def note_placed(self, path: str) -> None:
        """Record that this object is to be removed, for the case that this process is killed."""

    def forget_placed(self, paths: Sequence[str]) -> None:
        """Record that these objects were removed."""


@dataclass
class BySites:
    """A `Trial` whose judges are the sites that allow it. All models of a round are in the store while it is judged."""

    sites: Sites
    store: ObjectStore
    select: Select
    """A metric that single sites measure."""
    timeout_s: float
    """For each model."""
    folder: Path
    """A folder with room for one model."""
    tell: Callable[[str], None]
    total: int = 0
    """Number of all evaluations of this call, for those who wait."""
    _done: int = 0

    @property
    def by_sites(self) -> bool:
        """See `Trial`."""
        return True

    def models(self, kept: KeptRound) -> int:
        """See `Trial`."""
        allowing = self.sites.allowing()
        return 0 if self._refused(kept, list(kept.updates), allowing) else 1 + len(_owners(kept, allowing))

    def left_out(self, updates: RoundUpdates, found: OfRound, step: Callable[[], None]) -> OfRound:
        """See `Trial`. Raises `InvalidSetting` where no site measures the metric.

        Who allows it is asked anew before a model is put into the store, and again before the sites are given it.
        """
        kept, allowing = updates.kept, self.sites.allowing()
        sites = dict(found.sites)
        for client in keeping(kept.updates, allowing):
            sites[client] = replace(sites[client], why_not=NOT_ALLOWED)
        found = replace(found, sites=sites)
        model = self.folder / "model.safetensors"
        counting = updates.counting()
        if why := self._refused(kept, counting, allowing) or why_not_again(updates, model):
            return replace(found, why_not=why)
        model.unlink()
        asked, placed, owners = [self._asked(kept)], list[str](), _owners(kept, allowing)
        try:
            for client in owners:
                try:
                    if isinstance(left := self._placed(updates, counting, client, placed), Asked):
                        asked.append(left)
                    elif left:
                        sites[client] = replace(sites[client], why_not=left)
                except (AggregationError, AggregatorFailed) as error:
                    sites[client] = replace(sites[client], why_not=" ".join(str(error).split()))
            for each in asked[1:]:
                if why := self._kept(kept, counting, each.subject.site):
                    sites[each.subject.site] = replace(sites[each.subject.site], why_not=why)
                    asked.remove(each)
            judged_too = {each.model.model.path for each in asked}
            self._remove(kept, placed, [path for path in placed if path not in judged_too])
            judged = self._judged(asked, step)
        except RunError as error:
            return replace(found, why_not=str(error))
        finally:
            self._remove(kept, placed, list(placed))
        full = judged.pop("")
        if isinstance(full, str):
            return replace(found, why_not=f"its model has no result: {full}")
        with_it = self._values(full)
        for client in owners:
            if not sites[client].why_not:
                sites[client] = self._compared(client, sites[client], with_it, full, judged.get(client, full))
        return replace(found, value=mean(with_it.values()))

    def _refused(self, kept: KeptRound, counting: Sequence[str], allowing: Collection[str]) -> str:
        """Return why no site is left out of a round, before any model is made; '' where some are.

        `counting` are the sites whose updates count in a mean, and `allowing` those that allow it.
        """
        if kept.not_ours:
            return kept.not_ours
        if len(kept.updates) == 1:
            return ONE_SITE
        if not _owners(kept, allowing):
            return "none of its sites runs with --allow-cross (flavor-fl), which lets others judge its update"
        return why_exposed(self._mixed(kept, counting), allowing)

    def _kept(self, kept: KeptRound, counting: Sequence[str], client: str) -> str:
        """Return why no site may be given the model without `client` now; '' where they may."""
        return why_kept(client, self._mixed(kept, counting), self.sites.allowing())

    def _mixed(self, kept: KeptRound, counting: Sequence[str]) -> Mixed:
        rule = kept.config.aggregator or DEFAULT_AGGREGATOR  # `why_not_again` finds out whether it was another one
        return Mixed(rule, list(kept.updates), counting, self._disclosures(kept).of_round(kept.round))

    def _disclosures(self, kept: KeptRound) -> Disclosures:
        return Disclosures(self.store, kept.manifest.run, kept.manifest.run_id)

    def _asked(self, kept: KeptRound) -> Asked:
        """Ask for the round's own model. Only the sites that allow it judge it, so it does not count for the run."""
        model = replace(kept.manifest.global_model.to_global(""), state=None)
        return Asked(
            Subject(SubjectKind.WHOLE, kept.round), model, timeout_s=self.timeout_s, crossing=True, command=_COMMAND
        )

    def _placed(self, updates: RoundUpdates, counting: Sequence[str], client: str, placed: list[str]) -> Asked | str:
        """Put the model without one site into the store, where sites read it.

        Returns '' where it is the round's model, and why it is not put there where it may not be.
        """
        kept = updates.kept
        with self.store.stage() as staged:
            digest = updates.make(staged, without=client)
            if digest == kept.manifest.global_model.digest:
                return ""
            if why := self._kept(kept, counting, client):
                return why
            self._disclosures(kept).add(kept.round, client)
            path = named(global_prefix(kept.manifest.run, 0), "model", digest, kept.config.kind.object_extension)
            ref = ObjectRef(path, digest, staged.stat().st_size)
            if not self.store.exists(path):  # another one is somebody's: the initial model, or one of `flavor evaluate`
                placed.append(path)
                self.sites.note_placed(path)
            with self._health(kept).mounted(whose=True):
                self.store.put(ref, staged)
        model = GlobalModel(ref.sealed(self.store.seal(path)), format=kept.manifest.global_model.format)
        subject = Subject(SubjectKind.WITHOUT, kept.round, client)
        return Asked(subject, model, timeout_s=self.timeout_s, crossing=True, command=_COMMAND)

    def _health(self, kept: KeptRound) -> StoreHealth:
        return StoreHealth(self.store, kept.manifest.run, kept.manifest.run_id)

    def _remove(self, kept: KeptRound, placed: list[str], gone: Sequence[str]) -> None:
        """Remove those of the `placed` models from the store that are to be `gone`."""
        if not gone:
            return
        try:
            with self._health(kept).mounted(whose=True):  # what is not there cannot be removed
                self.store.delete(gone)
            self.sites.forget_placed(gone)
            placed[:] = [path for path in placed if path not in gone]
        except StoreError as error:
            self.tell(f"models without a site stay in the store, which sites read ({', '.join(gone)}): {error}")

    def _judged(self, asked: Sequence[Asked], step: Callable[[], None]) -> dict[str, Evaluated | str]:
        """Return what came of each evaluation, by the site that its model lacks; '' for the round's own model."""

        def ended(place: int, found: Evaluated | str) -> None:
            self._done += 1
            self.tell(f"evaluation {self._done} of {self.total}: {asked[place].what}: {_told(found)}")
            if not asked[place].subject.site and isinstance(found, Evaluated) and not self._values(found):
                there = there_are(self.select.name, (name for site in found.sites.values() for name in site.metrics))
                raise InvalidSetting(f"--metric {self.select}: no site has measured it: {there}")
            step()

        results = self.sites.judge_all(asked, ended)
        return {each.subject.site: result for each, result in zip(asked, results, strict=True)}

    def _values(self, found: Evaluated) -> dict[str, float]:
        """Return the metric by site."""
        name = self.select.name
        return {site: of.metrics[name] for site, of in found.sites.items() if name in of.metrics}

    def _compared(
        self, client: str, part: Part, with_it: Mapping[str, float], full: Evaluated, left: Evaluated | str
    ) -> Part:
        """Compare the values of the sites that have judged both models."""
        if isinstance(left, str):
            return replace(part, why_not=left)
        without = self._values(left)
        both = {site: (value, without[site]) for site, value in with_it.items() if site in without}
        lacking = {**left.missing, **full.missing}
        for site in (with_it.keys() | without.keys()) - both.keys():
            lacking.setdefault(site, f"it has not measured {self.select.name}")
        return part.by_sites(client, both, lacking, self.select)


def _owners(kept: KeptRound, allowing: Collection[str]) -> list[str]:
    return [client for client in kept.updates if client in allowing]


def _told(found: Evaluated | str) -> str:
    if isinstance(found, str):
        return found
    lacking = "".join(f"; without {site}: {why}" for site, why in found.missing.items())
    return f"judged by {some(list(found.sites))}{lacking}"
