"""The texts and JSON that the commands print."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aumai_fedtrain.models import FederatedNode, TrainingConfig, TrainingResult
from aumai_fedtrain.session import Session
from flavor.printable import printable


def heading(verb: str, config: TrainingConfig) -> str:
    """Return the first line of `init` and `run`, with the model, its nodes and rounds."""
    return f"{verb} federated training: {config.model_name}  nodes={config.num_nodes}  rounds={config.global_rounds}"


def settings(config: TrainingConfig) -> str:
    """Return the rest of a configuration, a line for each setting."""
    return (
        f"  Learning rate:     {config.learning_rate:g}\n"
        f"  Batch size:        {config.batch_size}\n"
        f"  Local steps:       {config.local_steps}"
    )


def plan(config: TrainingConfig, nodes: Sequence[FederatedNode], most: int = 20) -> str:
    """Return what a session will do: its first `most` nodes, a line each, its rounds and its steps."""
    lines = [f"  Node: {node.node_id}  Address: {node.address}" for node in nodes[:most]]
    if len(nodes) > most:
        lines.append(f"  and {len(nodes) - most} more")
    return "\n".join(
        [
            *lines,
            "",
            f"  Global rounds planned: {config.global_rounds}",
            f"  Local steps per round: {config.local_steps}",
            f"  Learning rate: {config.learning_rate:g}",
            f"  Batch size: {config.batch_size}",
        ]
    )


def round_status(round_id: int, session: Session | None, planned: TrainingConfig | None) -> str:
    """Say whether a round is completed, and where its session is. `planned` is a configuration without a session."""
    completed = session is not None and session.round_id >= round_id
    lines = [f"Round {round_id}: {'completed' if completed else 'pending'}."]
    config = session.config if session is not None else planned
    if config is None:
        return "\n".join(
            [*lines, "  There is no session: start one with `aumai-fedtrain init` or `aumai-fedtrain run`."]
        )
    lines += [
        f"  Current round:  {session.round_id if session else 0}/{config.global_rounds}",
        f"  Nodes:          {config.num_nodes}",
        f"  Avg loss:       {_loss(session.avg_loss if session else None)}",
        credits(session.credits if session else {}),
    ]
    return "\n".join(lines)


def result(config: TrainingConfig, done: TrainingResult) -> str:
    """Return how a training ended, for people."""
    return (
        "Training complete.\n"
        f"  Rounds completed:  {done.rounds_completed}/{config.global_rounds}\n"
        f"  Total samples:     {done.total_samples}\n"
        f"  Final avg loss:    {_loss(done.final_loss)}\n"
        f"  Duration:          {done.duration_seconds:.3f}s\n"
        f"\n{credits(done.final_state.credits)}"
    )


def credits(samples: Mapping[str, int]) -> str:
    """Return the credits, a line for each node."""
    lines = ["Node credits (samples processed):"]
    lines += [f"  {printable(node_id)}: {number} samples" for node_id, number in sorted(samples.items())]
    return "\n".join(lines if samples else [*lines, "  none yet"])


def status(session: Session) -> str:
    """Return a session, for people."""
    config, standing = session.config, session.standing
    kind = "simulation" if session.run is None else f"live nodes, run {session.run}"
    why = f": {printable(session.reason)}" if session.reason else ""
    lines = [
        f"Session: {config.model_name}",
        f"  Status:            {standing.value} ({kind}){why}",
        f"  Rounds completed:  {session.round_id}/{config.global_rounds}",
        f"  Nodes:             {config.num_nodes}",
        f"  Total samples:     {sum(session.credits.values())}",
        f"  Last avg loss:     {_loss(session.avg_loss)}",
        settings(config),
        f"  Updated:           {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(session.updated_at))}",
    ]
    if session.credits:
        lines += ["", credits(session.credits)]
    return "\n".join(lines)


def result_json(config: TrainingConfig, done: TrainingResult, run: str | None) -> dict[str, Any]:
    """Return how a training ended, for programs."""
    return {
        "model_name": config.model_name,
        "run": run,
        "rounds_completed": done.rounds_completed,
        "global_rounds": config.global_rounds,
        "num_nodes": config.num_nodes,
        "total_samples": done.total_samples,
        "final_loss": None if math.isnan(done.final_loss) else done.final_loss,
        "duration_seconds": done.duration_seconds,
        "credits": done.final_state.credits,
    }


def status_json(session: Session) -> dict[str, Any]:
    """Return a session, for programs."""
    return session.model_dump(mode="json") | {
        "status": session.standing.value,
        "total_samples": sum(session.credits.values()),
    }


def _loss(loss: float | None) -> str:
    return "not reported" if loss is None or math.isnan(loss) else f"{loss:.6f}"
