"""A site's side of tensors of which only a part is shared: it keeps the others, and gives the trainer whole files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flavor.checkpoints.checkpoint import Checkpoint, read
from flavor.checkpoints.convert import Outgoing, WireInfo
from flavor.checkpoints.format import Format
from flavor.checkpoints.own_tensors import Kept, OwnTensors
from flavor.checkpoints.site import SiteOptions, Wire
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.tensors_site import TensorsSite
from flavor.checkpoints.tied import IF_TIED, alike
from flavor.counted import counted
from flavor.errors import NotDivided
from flavor.patterns import CONTROL_VARIATE
from flavor.records.remarks import Remark


class PartSite(TensorsSite):
    """The `Site` of tensors of which this site keeps those that are not shared, `SiteOptions.own`."""

    def __init__(self, options: SiteOptions) -> None:
        super().__init__(options)
        assert options.own is not None
        self._own = OwnTensors(options.own, options.parts)
        self._told: set[Remark] = set()

    def may_share(self, source: Path) -> bool:
        """See `Site`."""
        return False

    def taken(self, path: Path) -> Wire | None:
        """See `Site`."""
        return None

    def is_placed_as_it_is(self, format_: str) -> bool:
        """See `Site`."""
        return False

    def learn(self, source: Path) -> None:
        """Keep the own tensors of a checkpoint that is not sent, where this site has none yet."""
        if self._own.known() is None:
            outgoing = Outgoing.of(source, bare=self._options.bare, parts=self._options.parts)
            self._saved_as(source, outgoing.format)
            self._learned(outgoing.info())

    def own_variates(self) -> list[str]:
        """Return the script's names of the control variates that are not shared."""
        known = self._own.known()
        names = [name for name in known.tensors if CONTROL_VARIATE in name] if known is not None else []
        return [self._own_names.get(name, name) for name in names]

    def _learned(self, info: WireInfo) -> Wire:
        """Keep the own tensors as well, and tell this site's user what may not be meant."""
        kept = self._own.keep(info.all_names, info.own_tensors, info.twins)
        for remark, line in self._remarks(info, kept):
            if remark not in self._told:
                self._told.add(remark)
                self._options.tell(f"warning: {line}")
                self._options.remark(remark)
        return super()._learned(info)

    def _remarks(self, info: WireInfo, kept: Kept) -> Iterator[tuple[Remark, str]]:
        """Yield what may not be meant: its class, and a line."""
        parts, own, trained = self._options.parts, info.own_tensors, kept.trained
        shapes = {name: own[name].shape if name in own else () for name in info.all_names}
        if forgotten := parts.forgotten(shapes):
            yield (
                Remark.FORGOTTEN,
                f"the run keeps the normalisation of some layers at the site ({parts.options}), and shares the "
                f"statistics {', '.join(forgotten[:5])}{', …' if len(forgotten) > 5 else ''}",
            )
        if parts.share and trained:
            yield (
                Remark.TRAINED,
                f"the script has trained {counted(len(trained), 'tensor')} that stay{'s' * (len(trained) == 1)} at "
                f"this site ({trained[0]}{', …' if len(trained) > 1 else ''}): the run's operator has the initial "
                "model's in their place. If adapters are trained on a frozen base, freeze it",
            )
        if line := alike(kept.alike):
            yield Remark.TIED, f"{line}: {IF_TIED}"

    def _known_structure(self) -> Structure | None:
        """Return how this trainer nests; of a trainer that has saved nothing yet, how the initial model does."""
        found = super()._known_structure()
        if found is None and (known := self._own.known()) is not None:
            return known.structure
        return found

    def _whole(self, source: Path) -> Checkpoint:
        """Return the shared tensors of the global model with this site's own ones.

        Raises `CheckpointError` for a global model with other tensors than those that are shared.
        """
        given, known, options = read(source, Format.SAFETENSORS), self._own.known(), self._options.parts.options
        if known is None:
            raise NotDivided(
                f"the run shares only a part of the model ({options}), and this site has none of the other tensors: "
                "have the script save its initial model to $LOCAL_MODEL_PATH before SetEvent('TrainInitDone'), or ask "
                "the run's operator for a run with --init-model",
                told="it has none of the tensors that are not shared: begin the run with --init-model, or let the "
                "site's script save its initial model before TrainInitDone",
            )
        for name in given.tensors:
            if name in known.tensors or name not in known.names:
                raise NotDivided(
                    f"the global model has the tensor {name!r}, which this site does not share",
                    told="the global model has a tensor that the site does not share",
                )
        for name in known.names:
            if name not in known.tensors and name not in given.tensors:
                raise NotDivided(
                    f"the global model lacks the tensor {name!r}, which this site shares ({options})",
                    told="the global model lacks a tensor that the site shares",
                )
        tensors = {name: known.tensors[name] if name in known.tensors else given.tensors[name] for name in known.names}
        return replace(given, tensors=tensors, structure=None)
