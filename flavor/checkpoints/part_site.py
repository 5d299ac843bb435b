"""A site's side of tensors of which only a part is shared: it keeps the others, and gives the trainer whole files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flavor.checkpoints.checkpoint import Checkpoint, read
from flavor.checkpoints.convert import Outgoing, WireInfo
from flavor.checkpoints.format import Format
from flavor.checkpoints.own_tensors import OwnTensors
from flavor.checkpoints.site import SiteOptions, Wire
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.tensors_site import TensorsSite
from flavor.errors import NotDivided


class PartSite(TensorsSite):
    """The `Site` of tensors of which this site keeps those that are not shared, `SiteOptions.own`."""

    def __init__(self, options: SiteOptions) -> None:
        super().__init__(options)
        assert options.own is not None
        self._own = OwnTensors(options.own, options.parts)

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

    def _learned(self, info: WireInfo) -> Wire:
        """Keep the own tensors as well."""
        self._own.keep(info.all_names, info.own_tensors)
        return super()._learned(info)

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
