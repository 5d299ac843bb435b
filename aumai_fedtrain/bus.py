"""A provider of live nodes: `flavor-fl` edges of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aumai_fedtrain.checkpoints import put_initial, put_round, read_parameters, read_state, read_updates
from aumai_fedtrain.models import FederatedNode, GlobalState, LocalUpdate, TrainingConfig
from aumai_fedtrain.provider import UpdateProvider
from aumai_fedtrain.session import HOME
from flavor.bus.connection import Redis, connect, wait_for_server
from flavor.bus.runs import RunStore
from flavor.checkpoints.tensors import Tensors
from flavor.config import RunConfig
from flavor.coordinator.beginning import standing
from flavor.coordinator.initial_model import check_beginning, store_initial
from flavor.coordinator.round_server import RoundServer
from flavor.errors import MisuseError, RunExists, UpdatesRefused
from flavor.ledger.archive import Archive
from flavor.ledger.keys import SigningKey
from flavor.records.model import GlobalModel
from flavor.records.names import checked_name
from flavor.records.round import RoundView
from flavor.records.run import RunView
from flavor.resume import FEDTRAIN
from flavor.script_settings import checked_settings
from flavor.store.open import open_store
from flavor.view.observer import Lines
from workers.context import WorkerContext
from workers.in_process import InProcessAggregator


def _silent(_: str) -> None:
    return None


_MEANS = {"equal": " (the mean over nodes, each of which counts once)", "datasetSize": " (weighted by examples)"}
"""Which mean of the nodes' losses is told, by the rule's `weights`."""


class BusUpdateProvider(UpdateProvider):
    """Provides the updates of `flavor-fl` edges of one run.

    A site starts `flavor-fl --run RUN --client NODE --store STORE -m "python main.py"`, and its script finds the global
    model at $GLOBAL_MODEL_PATH, hands in its checkpoint at $LOCAL_MODEL_PATH, and finds $LEARNING_RATE, $BATCH_SIZE and
    $LOCAL_STEPS of the configuration in its environment. `get_updates` opens a round, waits for its updates, checks
    each as an aggregator does (SHA-256, header, shapes, finite values, info) and returns those that were accepted;
    `distribute_state` commits the new state as the round's global checkpoint. `flavor status`, `flavor log`,
    `flavor stop` and `flavor credits` work as for any run.

    What `gradients` hold is what `state.expects` says: the node's weights, or the difference of the checkpoint that it
    started from to its own. `loss` is the metric `loss` of its info (None if it reports none), `samples_used` its
    `datasetSize`. A training that was interrupted goes on from the newest closed round, exactly.
    """

    def __init__(
        self,
        run: str,
        *,
        redis_url: str,
        store: str | None = None,
        key: Path | None = None,
        initial_model: Path | None = None,
        loss_metric: str = "loss",
        quorum: int | None = None,
        round_timeout_s: float = RunConfig.default("round_timeout_s"),
        heartbeat_timeout_s: float = RunConfig.default("heartbeat_timeout_s"),
        keep_rounds: int = 2,
        settings: Mapping[str, str] | None = None,
        patience_s: float = 60.0,
        tell: Callable[[str], None] = _silent,
    ) -> None:
        """Make a provider. It connects when the training begins.

        Args:
            run: name of the run.
            redis_url: the bus.
            store: the object store, a folder that the edges reach too; made if it is not there. By default
                `.aumai-fedtrain/store` in the current folder, beside the sessions.
            key: this coordinator's private key (Ed25519, PEM), which signs each round's manifest; made if it is not
                there. By default `.aumai-fedtrain/aggregator.key` in the current folder.
            initial_model: pre-trained weights to start from, in any checkpoint format.
            loss_metric: the metric of the nodes' info that is their loss.
            quorum: accepted updates with which a round may close; by default those of all nodes.
            round_timeout_s: deadline of a round, from its opening.
            heartbeat_timeout_s: silence after which a node counts as gone.
            keep_rounds: rounds whose updates stay in the store; 0 keeps all.
            settings: further environment variables for the nodes' scripts.
            patience_s: how long an unreachable Redis is waited for.
            tell: called with a line for the user whenever something happens.

        Raises `InvalidSetting`.

        """
        self._run, self._url = checked_name(run, "run"), redis_url
        self._store_url = store or str(HOME / "store")
        self._key = key
        self._initial_model, self._loss_metric = initial_model, loss_metric
        self._quorum, self._round_timeout_s, self._keep_rounds = quorum, round_timeout_s, keep_rounds
        self._heartbeat_timeout_s, self._patience_s, self._tell = heartbeat_timeout_s, patience_s, tell
        self._settings = checked_settings(settings or {})
        self._rule: Mapping[str, Any] = {"aggregator": FEDTRAIN}
        self._standing: RunConfig | None = None  # the settings of the run that was found, some of which may be resumed
        self._inside = False
        self._server: RoundServer | None = None
        self._round: RoundView | None = None

    def take_rule(self, rule: Mapping[str, Any]) -> None:
        """Note the rule, which the run's record gets: the run then goes on under this rule alone.

        `run_training` calls it. Without it, the record says only that aumai_fedtrain averages the rounds.
        """
        self._rule = {**rule, "aggregator": FEDTRAIN}

    @contextmanager
    def training(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> Iterator[None]:
        """Hold the run during a training: end it afterwards, or after an error leave it so that a later one goes on."""
        self.config = config
        self._store = open_store(self._store_url, create=True)
        self._inside = True
        try:
            yield
        except BaseException as error:
            self._close(error)
            raise
        else:
            self._close(None)
        finally:
            self._inside = False

    def _close(self, error: BaseException | None) -> None:
        if self._server is not None:
            self._server.close(error)
        self._server = self._round = None

    def restore(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> GlobalState | None:
        """Return the state of the newest closed round of a run that exists, else that of the pre-trained weights.

        Raises `RunExists` when the run exists with other settings.
        """
        self._standing = None
        redis = connect(self._url, patience_s=self._patience_s)
        try:
            wait_for_server(redis, self._url)
            runs = RunStore(redis, self._run, self._url)
            view = runs.read_own() if runs.find() is not None else None
        finally:
            redis.close()
        if view is not None:
            self._standing = self._found(view, config, nodes)
            if self._initial_model is not None:
                check_beginning(Archive(self._store, self._run), self._stored_initial(), what="initial_model")
            if view.state.ended:
                self._tell(f"run {self._run!r} is over already ({view.state}: {view.reason})")
            if view.global_model is None:
                return None
            state = read_state(self._store, view.global_model)
            if self._inside and state.round_id == view.rounds and not view.state.ended:
                self._serving(state, nodes)  # who closed the last round did not live to end the run
            return state
        if self._initial_model is None:
            return None
        return GlobalState(round_id=0, global_weights=read_parameters(self._store, self._stored_initial()))

    def get_updates(self, round_id: int, state: GlobalState, nodes: list[FederatedNode]) -> list[LocalUpdate]:
        """Open round `round_id`, wait for its updates, and return those that were accepted.

        Returns an empty list when the run has finished early because its training scripts have ended. With `nodes`,
        only these nodes take part, each under its `node_id`, and the first round waits for all of them. Without
        `nodes`, any client that joins takes part, and the first round waits for `config.num_nodes` clients.

        Raises `RunError` when the run has failed or was stopped, `RunExists` when a run of this name exists with other
        settings, `LeaseHeld` when another process coordinates the run, and `BusUnavailable` when Redis cannot be
        reached.
        """
        server = self._serving(state, nodes)
        while (round_ := server.wait(round_id)) is not None:
            self._round = round_
            base = server.runs.read().global_model
            try:
                return read_updates(self._store, round_, base, state.expects, loss_metric=self._loss_metric)
            except UpdatesRefused as error:
                server.refuse(round_id, error)
        return []

    def distribute_state(self, state: GlobalState, nodes: Sequence[FederatedNode]) -> None:
        """Commit `state` as the global checkpoint of its round; the next round opens with it.

        Raises `MisuseError` when the last updates were not those of this round, and `IllegalMove` when the run was
        stopped in between. Nothing is committed then.
        """
        round_ = self._round
        if self._server is None or round_ is None or round_.round != state.round_id:
            raise MisuseError(f"there are no updates of round {state.round_id}: call get_updates first")
        model = put_round(self._store, self._run, round_, state)
        samples = sum(round_.inspected(client).num_examples for client in round_.contributors)
        mean = _MEANS.get(str(self._rule.get("weights")), "")  # `flavor status` has the one that is weighted
        loss = "" if state.avg_loss is None else f", loss {state.avg_loss:.6g}{mean}"
        reason = f"{len(round_.contributors)} updates, {samples} examples, {model.size_bytes} bytes{loss}"
        self._tell(f"round {state.round_id}: {reason}")
        self._server.commit(state.round_id, model, reason)

    def _serving(self, state: GlobalState, nodes: Sequence[FederatedNode]) -> RoundServer:
        if self._server is not None:
            return self._server
        if not self._inside or self.config is None:
            raise MisuseError(
                "live nodes are there during a training only: use run_training, or `with provider.training(config, "
                "nodes):` around your own rounds"
            )
        config, store = self._standing or self._config(self.config, nodes), self._store
        key = SigningKey.kept(self._key, HOME / "aggregator.key", self._tell, "BusUpdateProvider(key=…)")

        def aggregator(redis: Redis) -> InProcessAggregator:
            return InProcessAggregator(
                WorkerContext(redis, self._url, store, observer=Lines(self._tell, name_runs=True), key=key)
            )

        self._server = RoundServer(
            self._run,
            config,
            redis_url=self._url,
            store=store,
            observer=Lines(self._tell),
            aggregator=aggregator,
            initial=self._initial(state),
            patience_s=self._patience_s,
            only=frozenset(checked_name(node.node_id, "node") for node in nodes) if nodes else None,
        )
        return self._server

    def _found(self, view: RunView, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> RunConfig:
        """Return the settings with which to go on with a run that exists. Raises `RunExists`."""
        if view.config.get("aggregator") == "mean" and view.config.get("server_step") is None:
            self._rule = {"aggregator": "mean"}  # recorded before a run's record had the rule
        found = standing(view, self._config(config, nodes), self._tell)
        if found.rounds > config.global_rounds:
            raise RunExists(
                f"run {self._run!r} was resumed with rounds {found.rounds}: go on with it with global_rounds "
                f"{found.rounds} in the configuration of the training"
            )
        return found

    def _config(self, config: TrainingConfig, nodes: Sequence[FederatedNode]) -> RunConfig:
        """Return the settings of the run."""
        settings = {
            "LEARNING_RATE": repr(config.learning_rate),
            "BATCH_SIZE": str(config.batch_size),
            "LOCAL_STEPS": str(config.local_steps),
        }
        return RunConfig.parse(
            {
                "rounds": config.global_rounds,
                "min_clients": len(nodes) or config.num_nodes,
                "quorum": self._quorum,
                "round_timeout_s": self._round_timeout_s,
                "heartbeat_timeout_s": self._heartbeat_timeout_s,
                "keep_rounds": self._keep_rounds,
                **self._rule,
                "settings": {**settings, **self._settings},
                "store": self._store.url,
            }
        )

    def _stored_initial(self) -> GlobalModel:
        assert self._initial_model is not None
        return store_initial(self._store, self._run, self._initial_model, Tensors(), what="initial_model")

    def _initial(self, state: GlobalState) -> GlobalModel | None:
        """Return the model that the first round starts from; it has no effect on a run that exists."""
        if state.round_id or not state.global_weights:
            return None
        if self._initial_model is not None:
            return self._stored_initial()
        return put_initial(self._store, self._run, state.global_weights)
