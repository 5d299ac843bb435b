"""The workers of diloco.py: what they train, on which text, by which schedule."""

from __future__ import annotations

import lzma
import math
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "diloco-char"
sys.path.insert(0, str(EXAMPLE))
from model import ALPHABET, CharModel, batch, encoded, evaluated  # noqa: E402

WORKERS, HELD_OUT = 4, 20
Model = dict[str, np.ndarray]

__all__ = [
    "HELD_OUT",
    "WORKERS",
    "CharModel",
    "Model",
    "Setting",
    "Worker",
    "batch",
    "evaluated",
    "in_step",
    "quarters",
]


@dataclass(frozen=True)
class Setting:
    """The settings of all methods. The inner learning rate matters: benchmarks/README.md has 4e-3 beside this one."""

    steps: int = 600
    batch: int = 16
    lr: float = 1e-3
    warmup: int = 40
    floor: float = 0.1
    """Of the learning rate, reached by a cosine at the end."""
    weight_decay: float = 0.1
    beta2: float = 0.99
    clip: float = 1.0
    outer: str = ""
    """DiLoCo's server step, its own by default."""
    every: int = 20
    inner: str = "adamw"
    """Or sgd, without momentum and without weight decay."""
    width: int = 64
    heads: int = 4
    layers: int = 2

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)

    def model(self) -> CharModel:
        return CharModel(self.width, self.heads, self.layers)


class Worker:
    """One worker: its shard, its own optimizer over all rounds, its batches by its own seed."""

    def __init__(self, number: int, seed: int, text: torch.Tensor, setting: Setting) -> None:
        torch.manual_seed(seed)  # the same initial weights for all
        self.model, self.setting, self.text, self.step = setting.model(), setting, text, 0
        self.optimizer: torch.optim.Optimizer
        if setting.inner == "adamw":
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), betas=(0.9, setting.beta2), weight_decay=setting.weight_decay
            )
        elif setting.inner == "sgd":
            self.optimizer = torch.optim.SGD(self.model.parameters())
        else:
            raise SystemExit(f"the inner optimizer is adamw or sgd, and not {setting.inner!r}")
        self.batches = torch.Generator().manual_seed(1000 * seed + number)

    def gradients(self) -> None:
        self.model.zero_grad()
        self.model(*batch(self.text, self.setting.batch, self.batches)).backward()

    def follow(self) -> None:
        """One step of the optimizer along the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.setting.clip)
        self.optimizer.param_groups[0]["lr"] = self.setting.lr_at(self.step)
        self.optimizer.step()
        self.step += 1

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.gradients()
            self.follow()

    def load(self, model: Model) -> None:
        self.model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in model.items()})

    def parameters(self) -> Model:
        return {name: tensor.numpy().copy() for name, tensor in self.model.state_dict().items()}


def in_step(workers: list[Worker]) -> None:
    """One step of synchronous training: all workers follow the mean of their gradients."""
    lead = workers[0]
    for worker in workers:
        worker.gradients()
    for parameters in zip(*(worker.model.parameters() for worker in workers), strict=True):
        parameters[0].grad = torch.stack([parameter.grad for parameter in parameters]).mean(0)
    lead.follow()
    for worker in workers[1:]:
        worker.model.load_state_dict(lead.model.state_dict())


@cache
def quarters() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each worker the text that it trains on, and the last twentieth of its quarter, which no worker trains on."""
    with lzma.open(EXAMPLE / "data" / "tragedies.txt.xz", "rt") as file:
        text = np.frombuffer(file.read().encode("ascii"), np.uint8)
    number_of = np.zeros(128, np.uint8)  # one look-up for all characters: `encoded` takes a second
    number_of[list(ALPHABET.encode("ascii"))] = encoded(ALPHABET)
    all_of_it = torch.from_numpy(number_of[text]).tensor_split(WORKERS)
    kept = [len(quarter) - len(quarter) // HELD_OUT for quarter in all_of_it]
    return [(quarter[:n], quarter[n:]) for quarter, n in zip(all_of_it, kept, strict=True)]
