"""The formats that a trainer may save its checkpoint in: their names, as they cross the wire, and their extensions.

File extensions are spelled here alone. The module is light, because edges and commands import it when they start.
"""

from __future__ import annotations

from enum import StrEnum


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


_EXTENSIONS = {
    Format.TORCH: ".ckpt",
    Format.PICKLE: ".pkl",
    Format.NPZ: ".npz",
    Format.SAFETENSORS: ".safetensors",
}
ANY_EXTENSION = ".ckpt"
"""The extension of a checkpoint whose format is not known yet, or is the trainer's own affair."""
OBJECT_EXTENSION = ".bin"
"""The extension of an object in the store that nothing here looks into."""
