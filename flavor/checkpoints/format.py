"""The formats that a trainer may save its checkpoint in: their names, as they cross the wire, and their extensions.

Only this module spells file extensions. It is light, because edges and commands import it when they start.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath

from flavor.saved import SHARDED


class Format(StrEnum):
    """A format that a trainer may save its checkpoint in."""

    TORCH = "torch"
    PICKLE = "pickle"
    NPZ = "npz"
    SAFETENSORS = "safetensors"

    @property
    def extension(self) -> str:
        """The usual file extension, with its dot."""
        return _EXTENSIONS[self]


def format_of_ending(name: str) -> Format | None:
    """Return the format that has the ending of the file `name`; None for .ckpt, .pth and endings of no format."""
    found = {extension: each for each, extension in _EXTENSIONS.items() if extension != ANY_EXTENSION}
    return found.get(PurePath(name).suffix.lower())


def is_misleading(name: str, format_: str) -> bool:
    """Return whether the file `name` ends like one of torch, and has another format, which `torch.load` cannot read."""
    return PurePath(name).suffix.lower() in _TORCH_ENDINGS and format_ in FORMATS and format_ != Format.TORCH


FORMATS = tuple(each.value for each in Format)
"""The names, as options take them."""
SITE_FORMATS = (*FORMATS, SHARDED)
"""The names, as the options of a site take them: its script may read and save folders."""
_EXTENSIONS = {
    Format.TORCH: ".ckpt",
    Format.PICKLE: ".pkl",
    Format.NPZ: ".npz",
    Format.SAFETENSORS: ".safetensors",
}
_TORCH_ENDINGS = (".pt", ".pth", ".ckpt")
ANY_EXTENSION = ".ckpt"
"""The extension of a checkpoint whose format is unknown, or is the trainer's own."""
OBJECT_EXTENSION = ".bin"
"""The extension of an object in the store that is not inspected."""
