"""Feature dispersal: the features of a prompt's samples are pushed apart inside the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap

GRID: tuple[dict[str, Any], ...] = (
    {"weight": 0.1},
    {"weight": 0.2},
    {"weight": 0.4},
    {"weight": 0.8},
    {"weight": 0.2, "steps": 2},
    {"weight": 0.4, "steps": 2},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class FeatureDispersal(Tap):
    """hᵢ ← hᵢ + λ·‖hᵢ‖·dᵢ/‖dᵢ‖, d = −∇ of the dispersive loss (arXiv 2606.27371; the loss: Wang
    & He, arXiv 2506.09027).

    L = log meanᵢⱼ exp(−Dᵢⱼ/τ), Dᵢⱼ = ‖hᵢ − hⱼ‖²/mean D, over the samples of one prompt, so
    that dᵢ ∝ Σⱼ exp(−Dᵢⱼ/τ)·(hᵢ − hⱼ). It is made in the middle block of the conditional
    branch, at the first ``steps`` steps, and costs no evaluation.

    2606.27371 could not be read first-hand. Taken here: the middle block, the gradient's direction
    alone, its length as the share ``weight`` of the features' own norm, τ = 1.

    Samples that are drawn together belong together: the same seed in another batch gives another
    picture. A call in which no prompt has a second sample is refused."""

    weight: float = 0.3
    steps: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: expected a number above 0")

    @property
    def active(self) -> bool:
        return self.weight != 0 and self.steps > 0

    def features(self, run: Run, h: torch.Tensor) -> torch.Tensor:
        if run.position >= self.steps or self.weight == 0:
            return h
        pushed = h.clone()
        for members in run.groups:
            if len(members) > 1:
                pushed[members] = self._dispersed(h[members])
        return pushed

    def _dispersed(self, h: torch.Tensor) -> torch.Tensor:
        push = dispersal(h.float(), self.temperature).flatten(1)
        length = push.norm(dim=1, keepdim=True)
        unit = push / length.clamp_min(torch.finfo(push.dtype).tiny)
        norm = h.float().flatten(1).norm(dim=1, keepdim=True)
        return h + (self.weight * norm * unit).reshape(h.shape).to(h.dtype)


def dispersal(h: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Σⱼ exp(−Dᵢⱼ/τ)·(hᵢ − hⱼ), shaped like h (n, …), D divided by its mean over pairs; zeros
    where all are one.
    """
    flat = h.flatten(1)
    apart = flat[:, None] - flat[None]
    squared = apart.square().sum(-1)
    mean = squared.sum() / (len(h) * (len(h) - 1))
    weights = (-squared / (temperature * mean.clamp_min(torch.finfo(h.dtype).tiny))).exp()
    return (weights[:, :, None] * apart).sum(1).reshape(h.shape)
