"""What a training run is made of: nodes, its configuration, updates, states, the result. All frozen but the nodes.

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
    """A model that may hold arrays, for which == is no yes or no."""

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
    """A participant: where it is, what it can do, and how it is. Its fields can be assigned to, and are validated."""

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
    """Of the nodes' inner optimizer; reaches live nodes as $LEARNING_RATE."""
    batch_size: int = Field(ge=1)
    """Samples of an inner step; reaches live nodes as $BATCH_SIZE."""
    local_steps: int = Field(ge=1)
    """Inner steps of a node in a round (DiLoCo's H); reaches live nodes as $LOCAL_STEPS."""
    global_rounds: int = Field(ge=1)
    """Rounds, at the end of which all nodes synchronise."""
    num_nodes: int = Field(ge=1)
    """Nodes to simulate, or live nodes to wait for."""


class LocalUpdate(_WithNumbers):
    """What a node hands in at the end of a round."""

    node_id: str = Field(min_length=1)
    """Who."""
    round_id: int = Field(ge=0)
    """The round it belongs to."""
    gradients: dict[str, Numbers]
    """One vector for each parameter. What the vectors are is said by `GlobalState.expects` of the state that the node
    trained from:

    - without an outer optimizer they are averaged, and the averages become the global weights, whatever they are: so
      they train a model only if they are the node's weights θ_local;
    - with one, and no weights yet, they are the node's weights θ_local, whose average starts the run;
    - with one from then on, they are the pseudogradient Δ = θ_global − θ_local (old minus new, arXiv 2311.08105), or
      again θ_local if the coordinator was made with `reports="weights"`.

    A parameter that is absent or empty counts as zeros; with an outer optimizer an update of weights θ_local must have
    all of them."""
    loss: float | None
    """The node's loss after its local steps; None if it has measured none."""
    samples_used: int = Field(ge=0)
    """Samples that it has trained on in this round: its credits, and its weight in a weighted average."""
    gradient_hash: str | None = None
    """SHA-256 of `gradients` as `HashVerifier.compute_hash` gives it; checked by the coordinator if it is there."""


class OuterState(_WithNumbers):
    """What the outer optimizer remembers: part of every checkpoint, so that a restored run goes on bit for bit."""

    step: str
    """Name of the server step it belongs to."""
    rounds: int = Field(ge=0)
    """Steps taken."""
    tensors: dict[str, Numbers]
    """`SLOT/PARAMETER` to float64 numbers, e.g. `momentum/weight`."""

    @classmethod
    def of(cls, state: ServerState, examples: dict[str, Any]) -> Self:
        """From the engine's state; each tensor becomes a list or an array as its parameter in `examples` is."""
        tensors = {key: like(array, [examples[key.partition("/")[2]]]) for key, array in state.tensors.items()}
        return cls(step=state.step, rounds=state.rounds, tensors=tensors)

    def restored(self) -> ServerState:
        """As the engine takes it."""
        arrays: dict[str, Array] = {key: as_array(value) for key, value in self.tensors.items()}
        return ServerState(self.step, self.rounds, arrays)


class GlobalState(_WithNumbers):
    """The coordinator's view after a round: all that it needs to go on.

    `model_dump(mode="json")` and `model_validate_json` carry it exactly: floats are written so that they read back as
    the same bits.
    """

    round_id: int = Field(ge=0)
    """The newest round that is closed; 0 before the first."""
    global_weights: dict[str, Numbers] = Field(default_factory=dict)
    """Parameters by name, sorted. With an outer optimizer the model's weights, float64; without one the averages of
    what the nodes have reported."""
    participating_nodes: list[str] = Field(default_factory=list)
    """Who took part in that round, in the order of their updates; before the first round, the nodes of the training."""
    avg_loss: float | None = None
    """Mean of the losses that were reported in it; None when none was, 0.0 before the first round."""
    expects: Reports = Reports.WEIGHTS
    """What the nodes are to report in the next round."""
    outer_state: OuterState | None = None
    """The outer optimizer's memory, for one that has some."""
    credits: dict[str, int] = Field(default_factory=dict)
    """Samples by node, over all rounds so far."""


def _no_number(value: object) -> object:
    return math.nan if value is None else value


class TrainingResult(_WithNumbers):
    """How a training ended."""

    model_config = ConfigDict(allow_inf_nan=True)

    config: TrainingConfig
    """What was trained."""

    rounds_completed: int = Field(ge=0)
    """Rounds that are closed, those before a restored state included."""
    total_samples: int = Field(ge=0)
    """Samples of all nodes and rounds, likewise."""
    final_loss: Annotated[
        float,
        BeforeValidator(_no_number),
        PlainSerializer(lambda value: None if math.isnan(value) else value, when_used="json"),
    ]
    """The last round's average loss: 0.0 without a round, NaN (null in JSON) when no node reported one."""
    duration_seconds: float = Field(ge=0)
    """Wall time of this call, to four decimals."""
    final_state: GlobalState
    """Where it stands: save it to go on later."""
