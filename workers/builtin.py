"""Aggregate by the rules of `aggregators`, on the files of the store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rq.timeouts import JobTimeoutException

from aggregators import engine
from aggregators.algorithms import Algorithm
from aggregators.computed import Tensor
from aggregators.lora_exact import LoraExact
from aggregators.lora_residual import LoraResidual, lora_residual, residual_factors
from aggregators.protocols import weighs
from aggregators.registry import parse
from aggregators.server import Replace
from aggregators.state import ServerState
from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile, TensorFileWriter, TensorSpec
from flavor.config import DEFAULT_AGGREGATOR
from flavor.errors import AggregatorFailed, NoModelPossible
from flavor.records.counts import LORA_RESIDUAL
from flavor.records.model import GlobalModel
from flavor.records.numbers import finite
from flavor.records.objects import ObjectRef
from flavor.rule_settings import COMMAND
from flavor.store.paths import named
from workers import notes
from workers.blame import MAY_BE_EARLIER, refusal, told
from workers.combiner import RULES, Combined, Work, of_most
from workers.held import Held
from workers.local_steps import steps_of
from workers.reading import Reading
from workers.stale import moved, tensors_of
from workers.start import of_start
from workers.updates import open_global, open_updates
from workers.weights import weights_of

_SMALL_BYTES = 2 * 1024 * 1024
"""Below this size, starting threads and mapping a file cost more than the aggregation."""

_rule = functools.lru_cache(parse)  # looking for third parties' entry points costs milliseconds


@dataclass(frozen=True)
class Engine:
    """A `Combiner` that applies the run's `--aggregator` and `--server-step`."""

    threads: int

    @property
    def made_by(self) -> str:
        """See `Combiner`."""
        return RULES

    def combine(self, work: Work, target: Path) -> Combined:
        """See `Combiner`. Puts the new server state into the store, beside its model."""
        config = work.config
        if not config.kind.has_tensors or config.aggregator == COMMAND:
            what = (
                "carries opaque checkpoints"
                if not config.kind.has_tensors
                else f"was started with --aggregator {COMMAND}"
            )
            raise AggregatorFailed(
                f"run {work.run!r} {what}, and this worker has no aggregator of its own: "
                "start it as `flavor-agg -m 'python aggregate.py'`"
            )
        made = make(work, target, self.threads)
        updates, first, held = made.updates, made.first, made.held
        state = _put_state(work, made.state) if made.state is not None else None
        names, info, chosen = list(updates), work.info, made.chosen
        if chosen is not None:
            positions = [names.index(client) for client in chosen]
            info = {**info, "metadata": {**info["metadata"], "chosen": positions}}
        if made.residual is not None and finite(made.residual.relative) is not None:
            info = {**info, "metrics": {**info["metrics"], LORA_RESIDUAL: made.residual.relative}}
        noticed = (
            *(of_start(updates, held, config.statistics) if work.old is None else ()),
            *notes.of_choice(config.aggregator, chosen, names),
            *notes.of_integers(work.round, first, held, made.differing),
            *notes.of_state(work, first, held, steps=made.steps),
            *(notes.of_statistics(work, first, held) if made.steps else ()),
            *notes.of_rule(work.round, made.warning),
            *notes.of_lora(work.round, made.residual, is_exact=made.factors is not None),
            *notes.of_factors(work, first, made.factors, updates, is_measured=made.residual is not None, chosen=chosen),
            *notes.of_signs(work.round, made.negative),
            *notes.of_constants(work.round, work.constants),
            *(notes.of_sizes(work) if made.weighs else ()),
            *notes.of_steps(steps_of(config.aggregator, work.infos)),
            *notes.of_training(work, updates, made.old, made.digest, target),
        )
        return Combined(made.digest, made.size_bytes, info, state, chosen, noticed)


@dataclass(frozen=True)
class Made:
    """A global model that was written to a file, and what it was made of."""

    digest: str
    size_bytes: int
    state: ServerState | None
    """The server state after the round; None for a server step without one."""
    chosen: tuple[str, ...] | None
    """See `Combined`."""
    updates: Mapping[str, ClientModel]
    """As they were handed in: a stale one is not moved onto the newest global model."""
    first: ClientModel
    """An update with the order and the nesting of tensors that most sites have."""
    held: Mapping[str, Tensor]
    old: TensorFile | None
    """The global model before, where it was read."""
    differing: tuple[str, ...]
    negative: tuple[str, ...]
    warning: str
    """What the rule says is wrong with its decisions; '' for nothing."""
    residual: LoraResidual | None
    """How far its LoRA adapters are from the mean of the sites' products; None for a model without adapters, and for a
    rule that makes no mean."""
    factors: tuple[str, str] | None
    """How the factors of adapters are called that the rule makes of the sites' products; None for another rule."""
    steps: bool
    """Whether the run has a server step."""
    weighs: bool
    """Whether the sites' weights count in the rule."""


def make(work: Work, target: Path, threads: int) -> Made:
    """Write the model that the run's rule makes of the updates of `work` to the file `target`.

    Writes nothing to the store. The same updates give the same bytes, for any number of threads. Raises `FlavorError`.
    """
    config = work.config
    bases = [work.base_of(client) for client in work.updates]
    models = open_updates(work.opened, list(work.updates.values()), work.old, bases=bases)
    handed_in = dict(zip(work.updates, models, strict=True))
    weights = weights_of(config.weights, list(work.infos.values()))
    rule = _rule(config.aggregator or DEFAULT_AGGREGATOR, config.server_step)
    constants = work.constants
    old = open_global(work.opened, work.old) if work.old and _is_needed(work, rule, constants) else None
    updates = moved(handed_in, work.stale, old, opened=work.opened, statistics=config.statistics)
    held = Held(config, updates, constants, old).settle()
    steps = not isinstance(rule.server_step, Replace)
    if work.old is None:
        rule = rule.without_global()
    first = _of_most(list(updates.values()))
    base = tensors_of(old) if old and rule.needs_global else None
    round_ = _Round(rule, updates, weights, held, base, config.statistics)
    round_.steps = steps_of(config.aggregator, work.infos)
    if rule.server_step.slots:
        round_.state = _state(work.opened, work.old)
    with TensorFileWriter(target, first.specs, first.metadata) as writer:
        small = writer.size_bytes * len(updates) < _SMALL_BYTES
        out = None if small else writer.map()
        threads = 1 if small else threads
        sizes = {spec.name: spec.size_bytes for spec in writer.specs}

        def completed(name: str) -> None:
            writer.completed(name)
            work.opened.used(sizes[name])

        result = round_.run(list(updates), out, threads, None if small else completed)
        if result.reach is not None:
            raise round_.refusal(result, out, threads)
        if small:
            for spec in writer.specs:
                writer.write(spec.name, result.model[spec.name])
        state, entered, differing, negative = result.state, result.clients, result.differing, result.negative
        warning = result.warning
        residual = round_.residual(result.model)
        del result, out  # the mapped file is closed with the writer
    chosen = round_.chosen(entered)
    return Made(
        digest=writer.sha256,
        size_bytes=writer.size_bytes,
        state=state,
        chosen=chosen,
        updates=handed_in,
        first=first,
        held=held,
        old=old,
        differing=differing,
        negative=negative,
        warning=warning,
        residual=residual,
        factors=(rule.reducer.a, rule.reducer.b) if isinstance(rule.reducer, LoraExact) else None,
        steps=steps,
        weighs=weighs(rule.reducer),
    )


@dataclass
class _Round:
    """The inputs of the engine, for all contributors or some."""

    rule: Algorithm
    updates: Mapping[str, ClientModel]
    weights: Sequence[float] | None
    held: Mapping[str, Tensor]
    old: Mapping[str, Any] | None
    statistics: Sequence[str] = ()
    state: ServerState | None = None
    steps: Mapping[str, float] | None = None
    """The clients' local steps, for a rule that needs them."""

    def run(
        self, clients: Sequence[str], out: Any, threads: int, completed: Callable[[str], None] | None = None
    ) -> engine.Aggregation:
        """Aggregate the updates of these clients."""
        chosen = set(clients)
        weights = self.weights and [w for name, w in zip(self.updates, self.weights, strict=True) if name in chosen]
        return engine.run(
            [update.tensors for name, update in self.updates.items() if name in chosen],
            weights if weights and any(weights) else None,
            reducer=self.rule.reducer,
            server_step=self.rule.server_step,
            global_model=self.old,
            state=self.state,
            out=out,
            completed=completed,
            threads=threads,
            held=self.held,
            statistics=self.statistics,
            local_steps=None if self.steps is None else [self.steps[name] for name in self.updates if name in chosen],
        )

    def residual(self, made: Mapping[str, Any]) -> LoraResidual | None:
        """Return how far the LoRA adapters of the model `made` are from the mean of the sites' products."""
        factors = residual_factors(self.rule.reducer, self.rule.server_step)
        if factors is None:
            return None
        weights = self.weights if self.weights and any(self.weights) else None
        models = [update.tensors for update in self.updates.values()]
        try:
            return lora_residual(models, weights, made, factors=factors, held=self.held)
        except JobTimeoutException:
            raise
        except Exception as error:  # a figure about a model that is there: no round fails for it
            return LoraResidual.failed(f"{type(error).__name__}: {error}")

    def chosen(self, entered: Sequence[int]) -> tuple[str, ...] | None:
        """Return the clients at the positions `entered`; None where the rule left no client out.

        A client whose weight is 0 in a rule that weighs counts as chosen, because the rule did not leave it out.
        """
        kept = set(entered)
        if self.weights and any(self.weights) and weighs(self.rule.reducer):
            kept.update(index for index, weight in enumerate(self.weights) if not weight)
        return None if len(kept) == len(self.updates) else tuple(c for i, c in enumerate(self.updates) if i in kept)

    def refusal(self, result: engine.Aggregation, out: Any, threads: int) -> AggregatorFailed:
        """Return the error of a result that the next round could not train from; it names who is to blame."""
        assert result.reach is not None
        if self.old is not None and (still := _what_is_wrong(self._of_no_change(self.old, out, threads))):
            return NoModelPossible(
                f"the global model or server state that this round began with is broken: the new global model {still} "
                "also if no site changes anything, so no site is to blame in this round, and no other attempt helps; "
                f"{MAY_BE_EARLIER}"
            )
        return refusal(
            dict(zip(self.updates, map(float, result.reach()), strict=True)),
            _what_is_wrong(result),
            lambda clients: not _what_is_wrong(self.run(clients, out, threads)),
        )

    def _of_no_change(self, old: Mapping[str, Any], out: Any, threads: int) -> engine.Aggregation:
        """Aggregate as if each site had handed in the global model."""
        same = {name: replace(update, tensors=dict(old)) for name, update in self.updates.items()}
        return replace(self, updates=same).run(list(same), out, threads)


def _what_is_wrong(result: engine.Aggregation) -> str:
    """Return why the next round cannot train from a model, as the rest of a sentence about it; '' where it can.

    The same rule as that of an inspection: a site that changed nothing would be refused.
    """
    if result.nonfinite:
        return f"is not finite in {told(result.nonfinite)}"
    if result.huge:
        return f"has values in {told(result.huge)} whose squares have no room in their type"
    return ""


def _of_most(updates: Sequence[ClientModel]) -> ClientModel:
    """Return an update whose order and nesting of tensors most sites have: every site is given the model so."""
    kinds = [(tuple(spec.name for spec in each.specs), tuple(sorted(each.metadata.items()))) for each in updates]
    return updates[kinds.index(of_most(kinds))]


def _is_needed(work: Work, rule: Algorithm, constants: Mapping[str, Sequence[str]]) -> bool:
    """Return whether to read the global model: for the rule, a tensor that is held, or notes where it is at hand."""
    at_hand = work.store.url.startswith("file:")
    is_for_rule = rule.needs_global or bool(work.stale)
    return is_for_rule or bool(work.config.keep or work.config.equal or constants) or at_hand


def _state(opened: Reading, model: GlobalModel | None) -> ServerState | None:
    """Return the server state of the old global model; None before the first step."""
    if model is None or model.state is None:
        return None
    file = opened.open(model.state)
    return ServerState.restore(tensors_of(file), file.metadata)


def _put_state(work: Work, state: ServerState) -> ObjectRef:
    specs = [TensorSpec(key, array.dtype, array.shape) for key, array in state.tensors.items()]
    with work.store.stage() as staged:
        with TensorFileWriter(staged, specs, state.metadata) as writer:
            for spec in writer.specs:
                writer.write(spec.name, state.tensors[spec.name])
        ref = ObjectRef(named(work.prefix, "state", writer.sha256, ".safetensors"), writer.sha256)
        work.store.put(ref, staged)
    return ref
