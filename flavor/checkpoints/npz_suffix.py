"""The hint about a checkpoint that np.savez wrote beside the expected file."""

from __future__ import annotations

from pathlib import Path


def npz_hint(path: Path) -> str:
    """Return why the checkpoint at `path` is missing, where `PATH.npz` is there instead; '' where it is not."""
    beside = path.with_name(f"{path.name}.npz")
    return f"{beside.name} is there: np.savez appends .npz, so give it an open file" if beside.is_file() else ""
