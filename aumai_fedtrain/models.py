"""The records of a training: nodes, configuration, updates, states and result. All are frozen except nodes.

The numbers of a parameter may be a list of floats (also nested, for a tensor of several dimensions) or a numpy array.
Lists become immutable lists; arrays are kept without a copy, and are written to JSON as lists. NaN and infinities are
refused.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from aggregators.state import ServerState
from aumai_fedtrain.vectors import Array, Numbers, as_array, like


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, protected_namespaces=())


class _WithNumbers(_Frozen):
    """A model that can hold arrays, for which == returns no bool."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.model_dump(mode="json") == other.model_dump(mode="json")

    __hash__ = None  # type: ignore[assignment]


class Reports(StrEnum):
    """What `LocalUpdate.gradients` holds."""

    WEIGHTS = "weights"
    """The node's own parameters after its local steps, θ_local."""
    PSEUDOGRADIENTS = "pseudogradients"
    """How far the node's local steps moved the global parameters, old minus new: Δ = θ_global − θ_local."""


class FederatedNode(BaseModel):
    """A node: its address, its capabilities and its status. Fields can be assigned to, and are validated."""

    model_config = ConfigDict(validate_assignment=True, allow_inf_nan=False)

    node_id: str = Field(min_length=1)
    """Unique in a run. For a live node on the bus: the `--client` of its `flavor-fl`."""
    address: str
    """HOST:PORT, for providers that call nodes; live nodes on the bus connect by themselves."""
    capabilities: dict[str, Any] = Field(default_factory=dict)
    """Free metadata for scheduling, e.g. {"gpu": True}."""
    status: str = "idle"
    """Free text, e.g. "training"; nothing here reads it."""


class TrainingConfig(_Frozen):
    """What is trained, and for how long. Every field is required."""

    model_name: str = Field(min_length=1)
    """Name of the model, of its session, and by default of its run on the bus."""
    learning_rate: float = Field(gt=0)
    """Learning rate of the nodes' inner optimizer; live nodes get it as $LEARNING_RATE."""
    batch_size: int = Field(ge=1)
    """Number of samples of an inner step; live nodes get it as $BATCH_SIZE."""
    local_steps: int = Field(ge=1)
    """Number of inner steps of a node in a round (DiLoCo's H); live nodes get it as $LOCAL_STEPS."""
    global_rounds: int = Field(ge=1)
    """Number of rounds; all nodes synchronise at the end of each."""
    num_nodes: int = Field(ge=1)
    """Number of nodes to simulate, or of live nodes to wait for."""


class LocalUpdate(_WithNumbers):
    """What a node hands in at the end of a round."""

    node_id: str = Field(min_length=1)
    """The id of the node."""
    round_id: int = Field(ge=0)
    """The number of the round that the update belongs to, from 1 on."""
    gradients: dict[str, Numbers]
    """One vector for each parameter. What the vectors are is said by `GlobalState.expects` of the state that the node
    trained from:

    - without an outer optimizer they are averaged, and the averages become the global weights without a check: so
      they train a model only if they are the node's weights θ_local;
    - with one, and no weights yet, they are the node's weights θ_local, whose average starts the run;
    - with one from then on, they are the pseudogradient Δ = θ_global − θ_local (old minus new, arXiv 2311.08105), or
      again θ_local if the coordinator was made with `reports="weights"`.

    A parameter that is absent or empty counts as zeros; with an outer optimizer an update of weights θ_local must have
    all of them."""
    loss: float | None
    """The node's loss after its local steps; None if the node measured none."""
    samples_used: int = Field(ge=0)
    """Number of samples that the node trained on in this round: its credits, and its weight in a weighted average."""
    gradient_hash: str | None = None
    """SHA-256 of `gradients` as `HashVerifier.compute_hash` returns it; the coordinator checks it if it is set."""


class OuterState(_WithNumbers):
    """The memory of the outer optimizer: part of every state, so that a restored training goes on bit for bit."""

    step: str
    """The name of the server step that the memory belongs to."""
    rounds: int = Field(ge=0)
    """How many steps the optimizer has taken."""
    tensors: dict[str, Numbers]
    """`SLOT/PARAMETER` to float64 numbers, e.g. `momentum/weight`."""

    @classmethod
    def of(cls, state: ServerState, examples: dict[str, Any]) -> Self:
        """Convert the engine's state; each tensor becomes a list or an array, as its parameter in `examples` is."""
        tensors = {key: like(array, [examples[key.partition("/")[2]]]) for key, array in state.tensors.items()}
        return cls(step=state.step, rounds=state.rounds, tensors=tensors)

    def restored(self) -> ServerState:
        """Convert to the engine's state."""
        arrays: dict[str, Array] = {key: as_array(value) for key, value in self.tensors.items()}
        return ServerState(self.step, self.rounds, arrays)


class GlobalState(_WithNumbers):
    """The coordinator's view after a round: all that it needs to go on.

    `model_dump(mode="json")` and `model_validate_json` carry it exactly: floats are written so that they read back as
    the same bits.
    """

    round_id: int = Field(ge=0)
    """The number of the newest closed round; 0 before the first."""
    global_weights: dict[str, Numbers] = Field(default_factory=dict)
    """Parameters by name, sorted. With an outer optimizer the model's weights, float64; without one the averages of
    what the nodes have reported."""
    participating_nodes: list[str] = Field(default_factory=list)
    """The nodes of that round, in the order of their updates; before the first round, the nodes of the training."""
    avg_loss: float | None = None
    """Mean of the losses reported in that round; None when none was reported, 0.0 before the first round."""
    expects: Reports = Reports.WEIGHTS
    """What the nodes are to report in the next round."""
    outer_state: OuterState | None = None
    """The outer optimizer's memory; None without one."""
    credits: dict[str, int] = Field(default_factory=dict)
    """The samples of each node in all rounds so far."""


def _no_number(value: object) -> object:
    return math.nan if value is None else value


class TrainingResult(_WithNumbers):
    """How a training ended."""

    model_config = ConfigDict(allow_inf_nan=True)

    config: TrainingConfig
    """The configuration of the training."""

    rounds_completed: int = Field(ge=0)
    """Number of closed rounds, including those before a restored state."""
    total_samples: int = Field(ge=0)
    """Number of samples of all nodes and rounds, including those before a restored state."""
    final_loss: Annotated[
        float,
        BeforeValidator(_no_number),
        PlainSerializer(lambda value: None if math.isnan(value) else value, when_used="json"),
    ]
    """The last round's average loss: 0.0 without a round, NaN (null in JSON) when no node reported one."""
    duration_seconds: float = Field(ge=0)
    """Wall time of the call in seconds, rounded to four decimals."""
    final_state: GlobalState
    """The state after the last round: save it to go on later."""
