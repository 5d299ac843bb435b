"""The settings of one edge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flavor.records.client import Role
from flavor.records.names import MOST_LOG_LINES
from flavor.store.settings import DEFAULTS, StoreSettings


class EdgeConfig(BaseModel):
    """The settings of `flavor-fl`, or of `flavor-fv`. Frozen."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    run: str
    """The run to join."""
    client: str
    """This site's name in it."""
    redis_url: str = Field(repr=False)
    """The whole address of the bus, which is never shown, because it may hold a password."""
    store: str | None = None
    """The URL of the object store; None for the bucket that the run names. A folder has to be named here."""
    names_store: bool = False
    """Whether this site itself names `store`, and not its token: its own credentials count then, and no signed URLs."""
    store_settings: StoreSettings = DEFAULTS
    """How long to wait for the store, and where to keep the files of a remote one."""
    command: tuple[str, ...] = ()
    """The trainer's command; empty for a site that trains nothing."""
    evaluator: tuple[str, ...] | None = None
    """The command that judges models; None for a site that judges none."""
    allow_cross: bool = False
    """Whether this site's updates may be sent to other sites that allow the same, to be judged there."""
    outside_models: bool = True
    """Whether this site judges models that no round of the run has made."""
    preprocess: tuple[str, ...] | None = None
    """The command that runs once before the trainer, or before the first evaluation at a site that trains nothing."""
    until_end: bool = False
    """Whether a site that trains nothing ends with the run; else it stays, as a run that is over can be evaluated."""
    workspace: Path
    """Where this client's folders lie, unless the environment names them."""
    key: Path | None = None
    """The file of the private key that signs this client's updates; None for `client.key` in the workspace.

    The edge makes the file where there is none, and never sends it anywhere.
    """
    trust: tuple[str, ...] = ()
    """The values of `--trust`: the keys of the aggregators whose global models the site accepts; empty for all."""
    input: Path | None = None
    """The trainer's INPUT_PATH; None for the environment's, or else the current folder."""
    format: str | None = None
    """One of `SITE_FORMATS`, needed only when the trainer loads a model before it has saved one."""
    opaque: bool = False
    """Whether this site takes part in runs whose checkpoints are not inspected."""
    checkpoint: str | None = None
    """The kind of checkpoints of an installed package that this site takes; None for the built-in kinds alone."""
    allow_set: tuple[str, ...] = ()
    """Patterns of the settings that this site takes from a run, beside `flavor.script_settings.ALLOWED`."""
    relays: bool = False
    """Whether the trainer's events go through files, for a trainer on a machine without a way to Redis."""
    own_settings: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """The variables that this site gives to its scripts in place of the run's. Their values do not leave the site."""
    strip_prefix: bool = False
    """Whether to take `module.` and `_orig_mod.` off the names of tensors, and to put them back on the global model."""
    report_output: bool = False
    """Whether to send the trainer's last lines to the run's operator when the trainer fails."""
    report: bool = True
    """Whether what the script reports of its progress, and the load of this machine, leave the site."""
    share_log: int = Field(default=0, ge=0, le=MOST_LOG_LINES)
    """How many of the last lines of the trainer's output the run's operator may see while it runs; 0 for none."""
    patience_s: float | None = Field(default=None, ge=0)
    """How long to wait for a Redis or a store that cannot be reached; None for `flavor.outage.site_patience_s`."""
    join_timeout_s: float | None = Field(default=None, gt=0)
    """How long to wait for the run to exist; None for as long as it takes."""
    grace_s: float = Field(default=10.0, gt=0)
    """How long the trainer may go on once the run has ended, before the edge stops it."""

    journal: Path | None = None
    """The file of `flavor.edge.acknowledged`."""

    @property
    def role(self) -> Role:
        """What this site does in the run."""
        return Role.TRAINER if self.command else Role.EVALUATOR

    @property
    def stays(self) -> bool:
        """Whether this site takes part in a run that is over, too."""
        return self.role is Role.EVALUATOR and not self.until_end

    @property
    def key_path(self) -> Path:
        """Where the private key lies."""
        return self.key or self.workspace / "client.key"


def default_key(client: str, workspace: Path | None, fallback: Path, environment: Mapping[str, str]) -> Path:
    """The file of a client's key where no option names one: the same file for each folder in which the edge is started.

    It lies in the `workspace` that was named, or in the `fallback` where an earlier release has put one. Otherwise it
    lies with the user's configuration, one for all runs in which this machine's user is that client.
    """
    before = (workspace or fallback) / "client.key"
    if workspace is not None or before.exists():
        return before
    try:
        home = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:  # a user without a home
        return before
    return Path(home) / "flavor" / "keys" / f"{client}.key"
