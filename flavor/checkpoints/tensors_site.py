"""A site's side of tensors: conversion to and from the trainer's format, prefixes, texts, and the data beside them.

Only safetensors crosses the wire, without the texts of a state_dict, which the site puts back into the global model.
The file of a trainer that saves safetensors is sent as it is, and such a trainer reads the global model as it comes.
Any other format is converted in one pass. Where the run compresses, the edge sends the change to the global model that
the trainer was given, in each format of a trainer.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from flavor.checkpoints.checkpoint import Checkpoint, read, write
from flavor.checkpoints.convert import WireInfo, as_own, check_given, take_safetensors, to_safetensors
from flavor.checkpoints.detection import detect
from flavor.checkpoints.encoding import Encoding, encode
from flavor.checkpoints.format import Format
from flavor.checkpoints.own_folder import OwnFolder
from flavor.checkpoints.safetensors.folder import read_folder
from flavor.checkpoints.safetensors.reader import TensorFile
from flavor.checkpoints.site import Given, SiteOptions, Wire
from flavor.checkpoints.state_dict.beside import read_beside
from flavor.checkpoints.state_dict.structure import Structure
from flavor.checkpoints.torch.writer import write_beside
from flavor.errors import CheckpointError
from flavor.patterns import no_parameters
from flavor.saved import SHARDED


class TensorsSite:
    """The `Site` of tensors."""

    def __init__(self, options: SiteOptions) -> None:
        self._options = options
        self.habits = options.habits
        self._format = options.format or self.habits.format
        self._structure: Structure | None = None  # how this trainer nests its state_dict; None as long as none was seen
        self._left_out: tuple[str, ...] = ()  # what was told about already
        self._told_texts = False
        self._folder = OwnFolder(options.own_folder)

    @property
    def needs_given(self) -> bool:
        """See `Site`."""
        return self._options.compress != "none"

    def may_share(self, source: Path) -> bool:
        """See `Site`."""
        plain = not (self.needs_given or self._options.bare or source.is_dir())
        return plain and detect(source) is Format.SAFETENSORS

    def taken(self, path: Path) -> Wire | None:
        """See `Site`. Returns None when the metadata holds something that should stay on its site."""
        info = take_safetensors(path)
        if info is None:
            return None
        self._saved_as(path, info.format)
        return self._learned(info)

    def to_wire(self, source: Path, target: Path, given: Given | None) -> Wire:
        """See `Site`."""
        options, format_ = self._options, detect(source)
        self._saved_as(source, format_)
        if options.compress == "none" or given is None:
            return self._learned(to_safetensors(source, target, format_, bare=options.bare, parts=options.parts))
        base = TensorFile.open(given.path)
        patterns = no_parameters(options.statistics)
        plain = [name for name in base.names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        encoding = Encoding.sparing(options.compress, given.digest, base.specs, plain)
        return self._learned(encode(source, target, base, encoding, format_, bare=options.bare, parts=options.parts))

    def is_placed_as_it_is(self, format_: str) -> bool:
        """See `Site`."""
        is_file = self._format_for(format_) is Format.SAFETENSORS and self._format != SHARDED
        return is_file and not self._own_names

    def check(self, path: Path) -> None:
        """See `Site`. A trainer may read a file in a way that runs the content of another format."""
        check_given(path)

    def from_wire(self, source: Path, target: Path, format_: str) -> None:
        """See `Site`."""
        own = self._known_structure()
        whole, format_of_file = self._whole(source), self._format_for(format_)
        made = as_own(whole, own, beside=read_beside(self._options.beside), own_names=self._own_names)
        placed = made.structure
        if self._format == SHARDED:
            self._folder.write(target, made.tensors, made.metadata)
        else:
            write(target, made, format_of_file)
        if own is None and placed is not None and (texts := placed.texts) and not self._told_texts:
            self._told_texts = True
            self._options.tell(
                f"the model has a text at {', '.join(texts[:5])}{', …' if len(texts) > 5 else ''}: texts never leave "
                "their site, and the trainer finds an empty one there until it has saved its own"
            )

    def _whole(self, source: Path) -> Checkpoint:
        """Return all tensors of the model that the trainer is given."""
        return read(source, Format.SAFETENSORS)

    @property
    def _own_names(self) -> dict[str, str]:
        return dict(self.habits.names) if self._options.bare else {}

    def _format_for(self, most: str) -> Format:
        """Return the format in which this trainer reads the global model; `most` is that of most sites."""
        format_ = self._format or most or Format.SAFETENSORS
        if format_ == SHARDED:
            return Format.SAFETENSORS
        if format_ not in tuple(Format):
            raise CheckpointError(f"the run's checkpoints are in the format {format_[:40]!r}, which there is not")
        return Format(format_)

    def _known_structure(self) -> Structure | None:
        """Return how this trainer nests, as seen by this process or an earlier one; None when none has seen it."""
        if self._structure is None and self.habits.structure:
            self._structure = Structure.from_json(self.habits.structure, str(self._options.beside.parent))
        return self._structure

    def _saved_as(self, source: Path, format_: Format) -> None:
        """Note the form of what the trainer has saved, in which it wants the global model."""
        if source.is_dir():
            self._format = SHARDED
            self._folder.keep(source, read_folder(source))
        else:
            self._format = format_.value
            self._folder.forget()

    def _learned(self, info: WireInfo) -> Wire:
        """Record how the trainer saves, and keep the data beside its state_dict."""
        structure = info.structure or Structure()  # a flat one, also if other sites' are nested
        if structure != self._structure or self._format != self.habits.format or self.habits.names != info.own_names:
            self._structure = structure
            self.habits = replace(
                self.habits, format=self._format, structure=structure.to_json(), names=dict(info.own_names)
            )
        self._keep_beside(info)
        return Wire(info.sha256, info.size_bytes, info.format)

    def _keep_beside(self, info: WireInfo) -> None:
        """Keep the data that the trainer saved beside its state_dict; it finds them beside the global model's."""
        if info.beside:
            write_beside(self._options.beside, info.beside)
        else:
            self._options.beside.unlink(missing_ok=True)
        if info.left_out and info.left_out != self._left_out:
            self._left_out = info.left_out
            self._options.tell(
                f"the checkpoint's {', '.join(info.left_out[:10])} will not stand beside the global model: "
                "of what is beside state_dict, numbers, texts, tensors, dicts and lists are kept"
            )
