"""A node that trains when it is asked to: POST /train with the global weights, and back comes its update.

    NODE_ID=young AGES=0-50 uvicorn node:app --port 5001

Linear regression of how far diabetes has progressed, on the patients of one age group: they stay in this process.
"""

from __future__ import annotations

import os

import numpy as np
from pydantic import BaseModel
from sklearn.datasets import load_diabetes
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from aumai_fedtrain import HashVerifier, LocalUpdate

NODE_ID = os.environ.get("NODE_ID", "node-0")
YOUNGEST, OLDEST = (int(age) for age in os.environ.get("AGES", "0-120").split("-"))
LEARNING_RATE = float(os.environ.get("LEARNING_RATE", "0.01"))
BATCH_SIZE = int(os.environ.get("BATCH_SIZE", "32"))
LOCAL_STEPS = int(os.environ.get("LOCAL_STEPS", "20"))
MEAN, DEVIATION = 152.0, 77.0  # of the target over all patients, as published: no node could know them

Weights = dict[str, list[float]]
random = np.random.default_rng(NODE_ID.encode()[0])


class Task(BaseModel):
    """What a coordinator sends."""

    round_id: int
    global_weights: Weights


def patients() -> tuple[np.ndarray, np.ndarray]:
    """This node's patients: `[n, 10]` inputs of unit variance and `[n]` targets."""
    inputs, target = load_diabetes(return_X_y=True)
    ages = load_diabetes(return_X_y=True, scaled=False)[0][:, 0]
    own = (ages >= YOUNGEST) & (ages < OLDEST)
    return inputs[own] * np.sqrt(len(inputs)), (target[own] - MEAN) / DEVIATION


INPUTS, TARGETS = patients()


def train(task: Task) -> LocalUpdate:
    """A round: LOCAL_STEPS steps of SGD from the global weights."""
    start = {"weight": np.zeros(INPUTS.shape[1]), "bias": np.zeros(1)}
    start |= {name: np.array(values) for name, values in task.global_weights.items()}
    if start.keys() != {"weight", "bias"} or start["weight"].shape != (INPUTS.shape[1],) or start["bias"].shape != (1,):
        raise ValueError(f"global_weights must be a weight of {INPUTS.shape[1]} numbers and a bias of one")
    weight, bias = start["weight"].copy(), start["bias"].copy()
    for _ in range(LOCAL_STEPS):
        batch = random.integers(len(INPUTS), size=BATCH_SIZE)
        error = INPUTS[batch] @ weight + bias - TARGETS[batch]
        weight -= LEARNING_RATE * (INPUTS[batch].T @ error) / BATCH_SIZE
        bias -= LEARNING_RATE * error.mean()
    local = {"weight": weight, "bias": bias}
    # The first report is the weights themselves; from then on it is how far they were moved, old minus new.
    report = {name: start[name] - local[name] for name in local} if task.global_weights else local
    gradients = {name: values.tolist() for name, values in report.items()}
    return LocalUpdate(
        node_id=NODE_ID,
        round_id=task.round_id,
        gradients=gradients,
        loss=float(np.mean((INPUTS @ weight + bias - TARGETS) ** 2)),
        samples_used=LOCAL_STEPS * BATCH_SIZE,
        gradient_hash=HashVerifier.compute_hash(gradients),
    )


async def answer(request: Request) -> JSONResponse:
    """POST /train."""
    try:
        update = await run_in_threadpool(train, Task.model_validate_json(await request.body()))
    except ValueError as error:  # pydantic's is one, too
        return JSONResponse({"error": str(error)}, status_code=400)
    return JSONResponse(update.model_dump(mode="json"))


app = Starlette(routes=[Route("/train", answer, methods=["POST"])])
