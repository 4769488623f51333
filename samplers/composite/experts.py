"""A model of two networks: one for high noise, one for low (Wan 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from xhat.samplers.composite.facade import Facade
from xhat.samplers.plans.timing import boundary_of

SECOND = "transformer_2"


class Experts(Facade):
    """The two denoisers of a pipeline as one network.

    ``boundary``: the timestep from which on the first is asked, as the pipeline does. ``now``: the
    timestep under way, which says who answers for both."""

    def __init__(
        self, first: nn.Module, second: nn.Module, boundary: float, now: Callable[[], float]
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.boundary, self.now = boundary, now

    def front(self) -> nn.Module:
        return self.of(self.now())

    def networks(self) -> Sequence[nn.Module]:
        return self.first, self.second

    def of(self, timestep: float) -> nn.Module:
        """The network that denoises at a timestep."""
        return self.first if timestep >= self.boundary else self.second

    def forward(self, *args: Any, **inputs: Any) -> Any:
        t = torch.as_tensor(inputs["timestep"]).flatten()[0].item()
        return self.of(t)(*args, **inputs)


def has_two(pipe: Any) -> bool:
    """Whether a pipeline denoises with two networks in turn."""
    return isinstance(getattr(pipe, SECOND, None), nn.Module)


def denoiser_for_plan(pipe: Any, slot: str, now: Callable[[], float]) -> nn.Module:
    """The network of a pipeline, or both as one."""
    boundary = boundary_of(pipe)
    if boundary is None:
        return getattr(pipe, slot)
    return Experts(getattr(pipe, slot), getattr(pipe, SECOND), boundary, now)


def expert(network: nn.Module, model: str, name: str) -> nn.Module:
    """One of the two by the pipeline's name for it. Raises ValueError for a model of one."""
    if not isinstance(network, Experts):
        raise ValueError(
            f"expert={name!r} of {model!r}, which has one network: leave it out. It is for models "
            "of two (Wan 2.2)"
        )
    return network.second if name == SECOND else network.first
