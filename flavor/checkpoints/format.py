"""The formats that a trainer may save its checkpoint in: their names, as they cross the wire, and their extensions.

Only this module spells file extensions. It is light, because edges and commands import it when they start.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath


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


FORMATS = tuple(each.value for each in Format)
"""The names, as options take them."""
_EXTENSIONS = {
    Format.TORCH: ".ckpt",
    Format.PICKLE: ".pkl",
    Format.NPZ: ".npz",
    Format.SAFETENSORS: ".safetensors",
}
ANY_EXTENSION = ".ckpt"
"""The extension of a checkpoint whose format is unknown, or is the trainer's own."""
OBJECT_EXTENSION = ".bin"
"""The extension of an object in the store that is not inspected."""
