"""STRIDE: noise along the principal components of what the network itself computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap

GRID: tuple[dict[str, Any], ...] = (
    {"scale": 0.5, "steps": 1},
    {"scale": 1.0, "steps": 1},
    {"scale": 2.0, "steps": 1},
    {"scale": 0.5, "steps": 2},
    {"scale": 1.0, "steps": 2},
    {"scale": 2.0, "steps": 2},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class ComponentNoise(Tap):
    """hₚ ← hₚ + s·Σₖ σₖ·nₖ·vₖ, nₖ ~ N(0, 1) (STRIDE, arXiv 2605.11494).

    vₖ are the first ``components`` principal components over the positions p of a sample's own
    features (channels are the variables), σₖ the deviations along them: the noise stays where the
    features themselves vary. n is one draw a sample and step, added at every position, and does
    not depend on the batch. It is made in the middle block of the conditional branch, at the first
    ``steps`` steps, and costs no evaluation.

    The paper could not be read first-hand. Taken here: the middle block, components of the sample
    at hand rather than of a set of prompts, the same noise at all positions."""

    scale: float = 1.0
    components: int = 4
    steps: int = 1

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components={self.components}: expected one or more")

    @property
    def active(self) -> bool:
        return self.scale != 0 and self.steps > 0

    def features(self, run: Run, h: torch.Tensor) -> torch.Tensor:
        if run.position >= self.steps or self.scale == 0:
            return h
        channels_first = h.ndim == 4
        tokens = (h.flatten(2).mT if channels_first else h.reshape(len(h), -1, h.shape[-1])).float()
        axes = principal_axes(tokens, self.components)
        noise = run.draw(axes[:, :, 0], "stride")
        shift = self.scale * torch.einsum("nk,nkc->nc", noise, axes)
        where = (
            (len(h), -1, *[1] * (h.ndim - 2))
            if channels_first
            else (len(h), *[1] * (h.ndim - 2), -1)
        )
        return h + shift.reshape(where).to(h.dtype)


def principal_axes(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """σₖ·vₖ of each sample's tokens (n, positions, channels): (n, count, channels), zeros beyond
    the rank.

    The sign of an axis is that of its largest entry, so that it is the same on every machine."""
    centred = tokens - tokens.mean(1, keepdim=True)
    positions = tokens.shape[1]
    _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
    spread, axes = spread[:, :count], axes[:, :count]
    largest = axes.gather(2, axes.abs().argmax(2, keepdim=True)).sign()
    scaled = axes * largest * spread[:, :, None] / math.sqrt(max(positions - 1, 1))
    missing = count - scaled.shape[1]
    return torch.nn.functional.pad(scaled, (0, 0, 0, max(missing, 0)))
