"""The settings of one edge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flavor.checkpoints.format import Format
from flavor.store.settings import DEFAULTS, StoreSettings


class EdgeConfig(BaseModel):
    """What `flavor-fl` was told. Frozen."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    run: str
    """The run to join."""
    client: str
    """This site's name in it."""
    redis_url: str = Field(repr=False)
    """The bus's whole address; not shown, because it may hold a password."""
    store: str | None = None
    """The object store; the bucket that the run names when None. A folder has to be named."""
    store_settings: StoreSettings = DEFAULTS
    """How long the store is waited for, and where the files of a remote one are kept."""
    command: tuple[str, ...]
    """The trainer."""
    preprocess: tuple[str, ...] | None = None
    """What runs once before the trainer."""
    workspace: Path
    """Where this client's folders lie, unless the environment names them."""
    key: Path | None = None
    """The private key that its updates are signed with; `client.key` in the workspace when None. Made where there is
    none, and never sent anywhere."""
    trust: tuple[str, ...] = ()
    """What `--trust` was given: the keys of the aggregators whose global models are trained from; any when empty."""
    input: Path | None = None
    """The trainer's INPUT_PATH; the environment's, or the current folder, when None."""
    format: Format | None = None
    """The trainer's checkpoint format, needed only when it loads a global model before it has saved one."""
    opaque: bool = False
    """Whether this site takes part in runs whose checkpoints nothing looks into."""
    allow_set: tuple[str, ...] = ()
    """Patterns of the settings that this site takes from a run, beside the listed ones."""
    strip_prefix: bool = False
    """Whether `module.` and `_orig_mod.` are taken off the names of tensors, and put back on the global model."""
    report_output: bool = False
    """Whether the run's operator is told the trainer's last lines when it fails."""
    patience_s: float = Field(default=180.0, ge=0)
    """How long an unreachable Redis is waited for."""
    join_timeout_s: float | None = Field(default=None, gt=0)
    """How long to wait for the run to exist; as long as it takes when None."""
    grace_s: float = Field(default=10.0, gt=0)
    """How long a trainer may take to end once the run has ended, before it is stopped."""

    journal: Path | None = None
    """A file in which each update that Redis has taken is noted, for a checker (`flavor.edge.acknowledged`)."""

    @property
    def key_path(self) -> Path:
        """Where the private key lies."""
        return self.key or self.workspace / "client.key"


def default_key(client: str, workspace: Path | None, fallback: Path, environment: Mapping[str, str]) -> Path:
    """Where the key of a client lies that names none: the same place in whatever folder its edge is started.

    In the `workspace` that was named, or in the `fallback` where an earlier release has put one; else with the user's
    configuration, one for all runs in which this machine's user is that client.
    """
    before = (workspace or fallback) / "client.key"
    if workspace is not None or before.exists():
        return before
    try:
        home = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:  # a user without a home
        return before
    return Path(home) / "flavor" / "keys" / f"{client}.key"
