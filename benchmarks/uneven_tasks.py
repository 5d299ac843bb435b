"""What the sites of `uneven.py` train: the demo's network on scikit-learn's digits, and the transformer of diloco-char.

Both have equal random shares of data of one kind at each site, so that no site has data that the others lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from held_out import fifth_of_each

from flavor.demo import model as demo
from flavor.demo.data import digits

SITES = 4
Model = dict[str, Any]


class Site(Protocol):
    """One site's data, and what it keeps from round to round."""

    num_examples: int

    def trained(self, model: Model) -> Model:
        """Return this global model after one round of training."""
        ...


class DigitsSite:
    """A quarter of four fifths of the digits; 15 steps of SGD with momentum a round, and nothing kept."""

    def __init__(self, number: int, seed: int) -> None:
        shares, _ = _digits(seed)
        self.images, self.labels = shares[number]
        self.num_examples, self.rounds, self.seed = len(self.labels), 0, 10 * seed + number

    def trained(self, model: Model) -> Model:
        """See `Site`."""
        self.rounds += 1
        return demo.trained(model, self.images, self.labels, round_=self.rounds, seed=self.seed)


def _digits(seed: int) -> tuple[list[tuple[Any, Any]], tuple[Any, Any]]:
    """The share of each site, and a fifth of each digit to test on."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    held_out = fifth_of_each(labels, rng)
    rows = rng.permutation(np.flatnonzero(~held_out))
    rows = rows[: len(rows) // SITES * SITES].reshape(SITES, -1)  # equal shares: equal weights
    return [(images[own], labels[own]) for own in rows], (images[held_out], labels[held_out])


def _digits_loss(seed: int) -> Callable[[Model], float]:
    _, (images, labels) = _digits(seed)
    return lambda model: demo.evaluated(model, images, labels)[1]


class CharSite:
    """A quarter of the pieces of the tragedies; 20 steps a round of an AdamW that lives on at the site."""

    def __init__(self, number: int, seed: int) -> None:
        from diloco_workers import Worker

        _, mine = _pieces(seed)
        self.worker = Worker(number, seed, mine[number], _setting())
        self.num_examples = len(mine[number])

    def trained(self, model: Model) -> Model:
        """See `Site`."""
        self.worker.load(model)
        self.worker.train(_setting().every)
        return dict(self.worker.parameters())


def _setting() -> Any:
    from diloco_workers import Setting

    # the learning rate stays what it is after the warm-up: sites of different speed are at different steps
    return Setting(every=20, batch=8, lr=4e-3, warmup=20, floor=1.0, width=32, heads=2, layers=1)


def _pieces(seed: int) -> tuple[Any, list[Any]]:
    """The text to test on, and each site's text: pieces of 2,000 characters, dealt at random."""
    import torch
    from diloco_workers import quarters

    torch.set_num_threads(1)
    text = torch.cat([kept for kept, _ in quarters()])
    pieces = text[: len(text) // (2000 * SITES) * 2000 * SITES].view(-1, 2000)
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))
    mine = [pieces[rows].flatten() for rows in order.view(SITES, -1)]
    return torch.cat([held_out for _, held_out in quarters()]), mine


def _char_initial(seed: int) -> Model:
    import torch

    torch.manual_seed(seed)
    return {name: tensor.numpy().copy() for name, tensor in _setting().model().state_dict().items()}


def _char_loss(seed: int) -> Callable[[Model], float]:
    import torch
    from diloco_workers import evaluated

    judged, (text, _) = _setting().model(), _pieces(seed)

    def loss(model: Model) -> float:
        judged.load_state_dict({name: torch.from_numpy(np.asarray(array).copy()) for name, array in model.items()})
        return float(evaluated(judged, text, 128))

    return loss


@dataclass(frozen=True)
class Task:
    """What is trained, and for how long."""

    initial: Callable[[int], Model]
    """The first global model, of a seed."""
    site: Callable[[int, int], Site]
    """One site, by its number and the seed."""
    loss: Callable[[int], Callable[[Model], float]]
    """The mean cross-entropy of a model on held-out data, in nats, with the split of this seed."""
    target: float
    """The loss that is to be reached."""
    updates: int
    """In all rounds of a run: a multiple of 3 and of 4."""


TASKS = {
    "digits": Task(demo.initial, DigitsSite, _digits_loss, target=0.25, updates=96),
    "char": Task(_char_initial, CharSite, _char_loss, target=2.3, updates=96),
}
