"""Tensors of torch for tests that import torch when they first need it: `Lazy("tests.tensors")` (`tests/lazy.py`)."""

from __future__ import annotations

import torch

T = torch.tensor([1.0, -2.0, 0.5])


class Tagged(torch.Tensor):
    """A subclass as many libraries have one."""


def tagged(**attributes: object) -> torch.Tensor:
    """T as such a tensor, with a state of its own."""
    tensor = T.clone().as_subclass(Tagged)
    tensor.__dict__.update(attributes)
    return tensor
