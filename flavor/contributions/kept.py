"""The rounds of a run whose updates are still in the store, as their signed manifests name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flavor.config import RunConfig
from flavor.counted import counted
from flavor.errors import InvalidRecord, RunError
from flavor.ledger.archive import Archive
from flavor.ledger.base_model import BASE_PRUNED, base_of, is_pruned
from flavor.ledger.chain import Chain, read_chain
from flavor.ledger.manifest import Manifest
from flavor.ledger.trust import Trust
from flavor.records.model import GlobalModel
from flavor.records.update import Update
from flavor.resume import averages_itself
from flavor.rule_settings import COMMAND
from flavor.store.protocol import ObjectStore
from workers.stale import Stale

MOST_ROUNDS = 10
"""The rounds that are looked at where a run keeps the updates of more, and no number is given."""


@dataclass(frozen=True)
class KeptRound:
    """A closed round with what it was made of."""

    manifest: Manifest
    config: RunConfig
    """The settings of the run in this round."""
    old: GlobalModel | None
    """The global model before it, from which all sites trained but those in `stale`; None in a first round without
    pre-trained weights."""
    stale: Mapping[str, Stale] = field(default_factory=dict)
    """The contributors that did the task of an earlier round; empty in a synchronous run."""

    def base_of(self, client: str) -> GlobalModel | None:
        """Return the global model that a contributor trained from."""
        return self.stale[client].base if client in self.stale else self.old

    @property
    def round(self) -> int:
        """Its number."""
        return self.manifest.round

    @property
    def updates(self) -> Mapping[str, Update]:
        """The update of each contributor, in the order of aggregation."""
        return {each.client: each.to_update() for each in self.manifest.contributors}

    @property
    def not_ours(self) -> str:
        """Why the run's rule cannot aggregate the round here; '' where it can."""
        state = self.manifest.global_model.state
        if averages_itself(self.manifest.config, has_state=state is not None):
            return "aumai_fedtrain has averaged it, by an outer step of its own"
        if self.config.aggregator == COMMAND:
            return "your own aggregator has made its model (--aggregator command)"
        return ""


@dataclass(frozen=True)
class Kept:
    """The rounds that can be looked at, and those that cannot."""

    run: str
    run_id: str
    rounds: Sequence[KeptRound]
    """Oldest first."""
    lacking: Mapping[int, str]
    """Round to why it cannot be looked at."""
    signed_by: Sequence[str]
    """The keys with which the manifests of these rounds are signed."""


def read_kept(archive: Archive, trust: Trust, most: int | None, *, run_id: str = "") -> Kept:
    """Return the newest `most` closed rounds; by default as many as --keep-rounds keeps, and `MOST_ROUNDS` at most.

    Raises `RunNotFound`, `InvalidRecord` where a manifest that counts here is not as it was signed, and `RunError`
    where no closed round has its updates.
    """
    chain = read_chain(archive, trust, run_id=run_id)
    if not chain.manifests:
        raise RunError(f"run {archive.run!r} has no closed round yet: no update to look at")
    newest = chain.manifests[-1]
    if most is None:
        keep = newest.config.get("keep_rounds")
        most = min(keep, MOST_ROUNDS) if isinstance(keep, int) and keep > 0 else MOST_ROUNDS
    wanted = [each for each in chain.manifests if each.round > newest.round - most]
    _refuse_wrong(chain, wanted)
    if not RunConfig.of_run(archive.run, newest.config).kind.has_tensors:
        raise RunError(
            f"run {archive.run!r} has checkpoints of the kind {newest.config.get('checkpoint')!r}, which have no "
            "tensors that flavor could compare, or aggregate without a site"
        )
    rounds, lacking = [], {}
    for manifest in wanted:
        config, old = RunConfig.of_run(archive.run, manifest.config), _base(chain, manifest.round)
        kept = KeptRound(manifest, config, old, _stale(chain, manifest, config))
        if why := gone(archive.store, kept):
            lacking[manifest.round] = why
        else:
            rounds.append(kept)
    if not rounds:
        raise RunError(
            f"run {archive.run!r}: {_listed(lacking)}; --keep-rounds says of how many rounds a run keeps the updates, "
            "and `flavor resume` can raise it for rounds to come"
        )
    keys = list(dict.fromkeys(each.manifest.public_key for each in rounds))
    return Kept(archive.run, newest.run_id, rounds, lacking, keys)


def _refuse_wrong(chain: Chain, wanted: Sequence[Manifest]) -> None:
    """Raise `InvalidRecord` where a problem of the records touches these rounds, or the round before them."""
    first = min(manifest.round for manifest in wanted)
    problems = [each for each in chain.problems if each.round == 0 or each.round >= first - 1]
    if problems:
        more = f"; {counted(len(problems) - 1, 'further problem')}" if len(problems) > 1 else ""
        raise InvalidRecord(f"{problems[0]}{more}: `flavor verify {chain.run}` shows all")


def _stale(chain: Chain, manifest: Manifest, config: RunConfig) -> dict[str, Stale]:
    """Return the contributors that did the task of an earlier round, with the model of that task."""
    found, mode = dict[str, Stale](), config.buffered
    for each in manifest.contributors:
        if each.task_round is not None and mode is not None and (base := _base(chain, each.task_round)) is not None:
            scale = mode.rule.factor(manifest.round - each.task_round)
            found[each.client] = Stale(each.task_round, base, scale)
    return found


def _base(chain: Chain, round_: int) -> GlobalModel | None:
    """Return the global model before a round, which the chain has been checked to name."""
    models = {each.round: each.global_model for each in chain.manifests}
    return base_of(round_, chain.record, lambda number: models[number].to_global(""))


def gone(store: ObjectStore, kept: KeptRound) -> str:
    """Return which objects of a round are no longer in the store; '' where all are."""
    for client, update in kept.updates.items():
        if not store.exists(update.object.path):
            keep = kept.config.keep_rounds
            return f"the update of {client} is pruned (--keep-rounds {keep})" if keep else f"{client}'s update is gone"
        if not store.exists(update.info.path):
            return f"the information of {client} is gone"
    bases = (kept.old, *(each.base for each in kept.stale.values()))
    return BASE_PRUNED if any(is_pruned(store, base) for base in bases) else ""


def _listed(lacking: Mapping[int, str]) -> str:
    (first, why), *others = lacking.items()
    more = f", and {counted(len(others), 'further round')} likewise" if others else ""
    return f"round {first} cannot be looked at: {why}{more}"
