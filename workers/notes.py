"""Notes on a round's aggregation for the operator: facts that only the aggregation can see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aggregators.computed import Tensor
from aggregators.dtypes import Kind, kind_of
from aggregators.lora_exact import is_plain
from aggregators.lora_pairs import lookalikes, on_factors_apart, pairs_of
from aggregators.lora_residual import LoraResidual
from aggregators.normalised import MOST_ENLARGED
from aggregators.quantities import is_counter, matching, suspicious_integers, training_state, turned_negative
from aggregators.updates import ClientModel
from flavor.checkpoints import TensorFile
from flavor.config import DEFAULT_AGGREGATOR
from flavor.counted import counted
from flavor.patterns import no_parameters
from flavor.printable import printable, shown_name
from flavor.records.counts import LORA_RESIDUAL, SAME, is_count
from flavor.records.info import CONFUSION, Info
from flavor.records.merging import WEIGHTED, not_merged
from flavor.records.model import GlobalModel
from flavor.records.rival_counts import label_of, rivals_in
from flavor.records.round import RoundView
from flavor.records.sound_counts import left_out_of
from flavor.sizes import shown_bytes
from workers.combiner import Work
from workers.once import Once
from workers.unchanged import is_unchanged, unchanged_updates

_MOST_TOLD = 5
_LONGEST_WHY = 160
_MOST_APART = 100
"""How many times the local steps of one site may be those of another before it is told."""
_ADVICE = "if they are no quantities, --keep PATTERN keeps them, or --equal PATTERN demands that they are equal"


def of_choice(aggregator: str | None, chosen: Sequence[str] | None, names: Sequence[str]) -> Iterator[str]:
    """Name the clients that the rule kept and those that it left out; nothing where it left none out."""
    if chosen is not None:
        left = [name for name in names if name not in chosen]
        yield f"{aggregator} kept {_some(chosen)}, and left out {_some(left)}"


def of_parts(work: Work, model: GlobalModel) -> Iterator[str]:
    """Tell how much of the model is shared; in round 1 alone."""
    if work.round == 1 and model.tensors is not None:
        shared = f"{counted(model.tensors, 'tensor')} of the model, {shown_bytes(model.size_bytes)}"
        yield f"shared: {shared} ({work.config.parts.options}); the others stay at the sites"


def of_integers(round_: int, first: ClientModel, held: Mapping[str, Tensor], differing: Sequence[str]) -> Iterator[str]:
    """Name integers that may be no quantities; in round 1 alone."""
    if round_ > 1:
        return
    specs = {spec.name: spec for spec in first.specs if spec.name not in held}
    suspicious = suspicious_integers(specs.values())
    if suspicious:
        told = [f"{name!r} ({reason})" for name, reason in suspicious.items()]
        yield f"warning: integers are averaged that look like no quantities: {_some(told)}; {_ADVICE}"
    unequal = [repr(n) for n in differing if n in specs and n not in suspicious and not is_counter(specs[n])]
    if unequal:
        yield f"warning: integers that are no counters differ between sites: {_some(unequal)}; {_ADVICE}"


def of_statistics(work: Work, first: ClientModel, held: Mapping[str, Tensor]) -> Iterator[str]:
    """Name the float tensors that the server step leaves alone: statistics and single numbers; in round 1 alone."""
    if work.round > 1:
        return
    floats = [spec.name for spec in first.specs if spec.name not in held and kind_of(spec.dtype) is Kind.FLOAT]
    named = matching(floats, no_parameters(work.config.statistics))
    if named:
        yield (
            f"statistics, and no parameters, are {_some(list(map(repr, named)))}: no server step is taken with them, "
            "they become the mean, or what the rule makes of the sites' (--statistics)"
        )
    single = {spec.name for spec in first.specs if not spec.shape}
    if scalars := [repr(name) for name in floats if name in single and name not in named]:
        yield (
            f"no server step is taken with single numbers, of no dimensions: {_some(scalars)} become the mean, or what "
            "the rule makes of the sites'"
        )


def of_state(work: Work, first: ClientModel, held: Mapping[str, Tensor], *, steps: bool) -> Iterator[str]:
    """Warn of tensors that look like the state of an optimizer or a schedule; in round 1 alone."""
    if work.round > 1:
        return
    if found := training_state(spec for spec in first.specs if spec.name not in held):
        parameters = {spec.name for spec in first.specs if spec.shape and kind_of(spec.dtype) is Kind.FLOAT}
        stepped = ", and takes part in the server step" if steps and not parameters.isdisjoint(found) else ""
        yield (
            "warning: state_dict has what looks like the state of an optimizer or a schedule, which is averaged with "
            f"the weights{stepped}: {_some([repr(name) for name in found])}; save such state beside state_dict, where "
            "it stays at the site"
        )


def of_rule(round_: int, warning: str) -> Iterator[str]:
    """Pass on what the rule says is wrong with its decisions."""
    if warning:
        yield f"warning: round {round_}: {warning}"


def of_lora(round_: int, residual: LoraResidual | None, *, is_exact: bool) -> Iterator[str]:
    """Say how far LoRA adapters are from the mean of the sites' products; in round 1 alone, as each has the metric.

    Where a round lacks the metric, say why.
    """
    if residual is not None and residual.failure:
        yield f"warning: {LORA_RESIDUAL} of round {round_} is left out: {printable(residual.failure)[:_LONGEST_WHY]}"
        return
    if residual is not None and residual.pairs and not math.isfinite(residual.relative):
        yield (
            f"warning: {LORA_RESIDUAL} of round {round_} is left out, because it is no finite number: the products BA "
            "of the sites' LoRA adapters, or their sum, may be too large; look for a site whose adapters are"
        )
        return
    if residual is None or round_ > 1:
        return
    if not residual.pairs:
        of = counted(residual.left_out, "LoRA adapter")
        yield f"{LORA_RESIDUAL} is left out: the products of so many sites, of {of}, would take too long to compare"
        return
    most = "" if residual.pairs == 1 else f", most in {residual.worst!r} ({residual.most:.2%})"
    more = f" ({residual.left_out} more would take too long to compare, and are left out)" if residual.left_out else ""
    yield (
        f"the product BA of {counted(residual.pairs, 'LoRA adapter')}{more} is {residual.relative:.2%} from the mean "
        f"of the sites' products{most}"
        + ("" if is_exact else ": A and B are averaged apart; --aggregator lora-exact makes the nearest product")
    )


def of_factors(
    work: Work,
    first: ClientModel,
    factors: tuple[str, str] | None,
    updates: Mapping[str, ClientModel],
    *,
    is_measured: bool,
    chosen: Sequence[str] | None = None,
) -> Iterator[str]:
    """Warn of LoRA factors that the rule takes apart, where nothing else tells; in round 1 alone.

    `factors` are those whose products the rule computes, and `is_measured` says whether the residual is known. The
    factors of one `chosen` site fit each other, and so do those of all sites where A or B is the same in all `updates`.
    """
    if work.round > 1:
        return
    if factors is not None and (apart := lookalikes(first.tensors, factors)):
        yield (
            f"warning: {_some([repr(name) for name in apart])} may be LoRA factors by other names, and are averaged "
            f"apart: lora-exact multiplies those alone that are called {factors[0]} and {factors[1]} between dots"
        )
    if factors is None and not is_measured and len(chosen or ()) != 1:
        models = [update.tensors for update in updates.values()]
        pairs = [
            pair
            for pair in pairs_of(first.tensors)
            if not is_plain([each[pair.b] for each in models], [each[pair.a] for each in models])
        ]
        if pairs:
            yield (
                f"warning: {on_factors_apart(work.config.aggregator or DEFAULT_AGGREGATOR)} "
                f"({counted(len(pairs), 'adapter')}, such as {pairs[0].b!r})"
            )


def of_signs(round_: int, negative: Sequence[str]) -> Iterator[str]:
    """Name the tensors that only the server step made negative."""
    if negative:
        yield f"warning: round {round_}: {turned_negative(negative)}"


def of_sizes(work: Work) -> Iterator[str]:
    """Warn of a rule that weighs by examples where every site reports 0 examples."""
    if work.config.weights == "datasetSize" and not any(each.num_examples for each in work.updates.values()):
        yield (
            f"warning: datasetSize is 0 at all sites ({len(work.updates)}), so they count alike; if that is meant, "
            "--weights equal says so"
        )


def of_steps(steps: Mapping[str, float] | None) -> Iterator[str]:
    """Warn of a site whose local steps are of another size than the others': perhaps it counts something else.

    The cause is the site that is farthest from the middle, and on which side, for all numbers of steps. Each other site
    that is far from the middle has a line of its own, for a few sites.
    """
    if not steps:
        return
    fewest, most = min(steps, key=lambda client: steps[client]), max(steps, key=lambda client: steps[client])
    if steps[most] > _MOST_APART * steps[fewest]:
        middle = sorted(steps.values())[(len(steps) - 1) // 2]
        is_most = steps[most] * steps[fewest] >= middle**2
        yield Once(
            f"warning: localSteps is {steps[most]:g} at {most} and {steps[fewest]:g} at {fewest}, and {middle:g} in "
            "the middle of the sites: a site with many steps counts with that much less of its change, and one with "
            f"few with more of it, {MOST_ENLARGED:g} times at most; if they count different things (steps, epochs, "
            "examples), let all sites report optimizer steps",
            f"more steps: {most}" if is_most else f"fewer steps: {fewest}",
        )
        others = sorted(steps.keys() - {most if is_most else fewest})
        apart = {client: max(steps[client], middle) / min(steps[client], middle) for client in others}
        far = sorted((client for client in apart if apart[client] > _MOST_APART), key=lambda client: -apart[client])
        for client in far[:_MOST_TOLD]:
            yield Once(
                f"warning: localSteps is {steps[client]:g} at {client}, and {middle:g} in the middle of the sites: "
                "does it count optimizer steps, as the others do?",
                f"{'more' if steps[client] > middle else 'fewer'} steps: {client}",
            )


def of_constants(round_: int, constants: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Name the buffers that hold infinities by design; in round 1 alone."""
    if round_ > 1:
        return
    if names := list(dict.fromkeys(repr(name) for found in constants.values() for name in found)):
        yield f"infinite or huge values, the same at every site, stay as they are: {_some(names)}"


def of_reading(work: Work) -> Iterator[str]:
    """Warn of sites that did not read the global model."""
    if unread := [client for client, verdict in work.updates.items() if verdict.unread]:
        yield (
            f"warning: {_some(unread)} did not read the global model ($GLOBAL_MODEL_PATH), so what {_its(unread)} "
            "trained is no part of one model: check-fl shows what a script does"
        )


def of_counts(info: Info, infos: Mapping[str, Info]) -> Iterator[str]:
    """Warn of counts of the sites that do not go together, and of those of single sites that are left out.

    `infos` are those of the sites. Only the operator is told which of them differ: all sites read what is merged.
    """
    if reasons := not_merged(info):
        name, why = next(iter(reasons.items()))
        more = f"; {len(reasons) - 1} more: see notMerged in the merged information" if len(reasons) > 1 else ""
        yield f"warning: the metric {shown_name(name)} is not merged: {printable(why)}{_whose(name, infos)}{more}"
    if left_out := left_out_of(info):
        told = [f"{site}'s {_left_out(why)}" for site, why in list(left_out.items())[:_MOST_TOLD]]
        more = f" and of {len(left_out) - _MOST_TOLD} more sites" if len(left_out) > _MOST_TOLD else ""
        yield f"warning: counts are left out of what is merged: {'; '.join(told)}{more}"


def of_own_counts(merged: Info) -> Iterator[str]:
    """Warn of what an evaluator has measured on the operator's own data, and nothing is computed of."""
    for why in left_out_of(merged).values():
        yield f"warning: left out is {_left_out(why)}"


def of_weighted_means(merged: Info, infos: Mapping[str, Info]) -> Iterator[str]:
    """Warn of means that are called weighted, and are of sites whose `datasetSize` is 0."""
    names = [name.removesuffix(WEIGHTED) for name in merged["metrics"] if name.endswith(WEIGHTED)]
    sizes = {
        name: [each["metadata"]["datasetSize"] for each in infos.values() if each["metrics"].get(name) is not None]
        for name in names
    }
    if plain := [name for name, those in sizes.items() if len(those) > 1 and not any(those)]:
        yield (
            f"warning: datasetSize is 0 at all sites that report {_some([shown_name(name) for name in plain])}, "
            "so what is called weighted there is the plain mean: report the number of examples"
        )


def _left_out(reasons: Mapping[str, str]) -> str:
    name, why = next(iter(reasons.items()), ("counts", "no reason is known"))
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{shown_name(name)} ({printable(why)[:_LONGEST_WHY]}){more}"


def _whose(name: str, infos: Mapping[str, Info]) -> str:
    """Name the sites that report another form of a count than most, or the metric at all where it is no count."""
    given = {site: info["metrics"] for site, info in infos.items() if info["metrics"].get(name) is not None}
    if not is_count(name):
        return f" ({_some(list(given))})" if given else _of_kinds(name, infos)
    forms = _grouped({site: _form(metrics[name]) for site, metrics in given.items()})
    if len(forms) == 1:  # then it is the setting of the count, or the value of the setting, that differs
        setting = name if name.endswith(SAME) else name + SAME
        forms = _grouped({site: f"{setting} {metrics.get(setting)}" for site, metrics in given.items()})
    if len(forms) < 2:
        return f" ({_some(list(given))})" if 2 * len(given) < len(infos) else ""
    most = max(map(len, forms.values()))
    usual = [form for form, sites in forms.items() if len(sites) == most]
    told = [each for each in forms.items() if [each[0]] != usual]
    return f" ({_by_form(told)})"


def _of_kinds(name: str, infos: Mapping[str, Info]) -> str:
    """Name the sites that report each of several kinds of counts, which give the same pooled metric."""
    label = label_of(name)
    kinds = {site: " and ".join(rivals_in(info["metrics"], label, CONFUSION)) for site, info in infos.items()}
    forms = _grouped({site: names for site, names in kinds.items() if names})
    return f" ({_by_form(forms.items())})" if forms else ""


def _by_form(forms: Iterable[tuple[str, Sequence[str]]]) -> str:
    return "; ".join(f"{_some(sites)}: {printable(form)[:80]}" for form, sites in forms)


def _form(value: object) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else "a number"


def _grouped(forms: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for site, form in forms.items():
        found.setdefault(form, []).append(site)
    return found


def of_repetition(work: Work, read: Callable[[int], RoundView | None]) -> Iterator[str]:
    """Warn of sites that handed in the file of the last round again; once, where they begin to.

    `read` returns a round with its verdicts, many in a large run, so none is read without need.
    Compressed updates are not compared: they are differences to another global model in each round.
    """
    if work.round == 1:
        return
    handed_in = _digests(read(work.round - 1))
    old = work.old.model.digest if work.old else ""
    digests = {client: update.object.digest for client, update in work.updates.items()}
    repeated = [client for client, digest in digests.items() if digest == handed_in.get(client) and digest != old]
    earlier = _digests(read(work.round - 2)) if repeated and work.round > 2 else {}
    if again := [client for client in repeated if digests[client] != earlier.get(client)]:
        yield (
            f"warning: {_some(again)} handed in the same update as in round {work.round - 1}, although the global "
            "model is another: does it save the model of an earlier round, such as the best so far, in place of the "
            "one that it has trained in this round?"
        )


def _digests(view: RoundView | None) -> dict[str, str]:
    """Return what each contributor of a round handed in."""
    return {} if view is None else {client: view.inspected(client).object.digest for client in view.contributors}


def of_training(
    work: Work, updates: Mapping[str, ClientModel], old: TensorFile | None, digest: str, target: Path
) -> Iterator[str]:
    """Warn of updates, and of a result, that equal the global model."""
    if work.old is None:
        return
    idle = unchanged_updates(work, updates, work.old, old)
    if empty := [client for client in idle if not work.updates[client].num_examples]:
        yield (
            f"warning: {_some(empty)} had no examples (datasetSize 0) and handed in the global model, unchanged: is "
            "the data there where the script looks for it ($INPUT_PATH)?"
        )
    if idle := [client for client in idle if client not in empty]:
        yield (
            f"warning: {_some(idle)} handed in the global model, unchanged: is it loaded before the training, and "
            "saved after it?"
        )
    is_same = digest == work.old.model.digest
    if old is not None and not is_same:
        is_same = is_unchanged(ClientModel.of(TensorFile.open(target), None).tensors, old)
    if is_same:
        yield f"warning: the model did not change in round {work.round}"


def _its(clients: Sequence[str]) -> str:
    return "it" if len(clients) == 1 else "they"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_TOLD]) + (f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else "")
