"""Particle guidance: the samples of a prompt push each other apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap

GRID: tuple[dict[str, Any], ...] = (
    {"coefficient": 1.0},
    {"coefficient": 2.0},
    {"coefficient": 4.0},
    {"coefficient": 8.0},
    {"coefficient": 16.0},
    {"coefficient": 32.0},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class ParticleGuidance(Tap):
    """A fixed repulsive potential between a prompt's samples in a batch (Corso et al., arXiv
    2310.13102, Sec. 4–5).

    The score of sample i is added ∇ᵢ log Φ, log Φ = −(c/2)·Σᵢⱼ k(xᵢ, xⱼ), k = exp(−‖xᵢ − xⱼ‖²/hᵢ),
    hᵢ = medianⱼ‖xᵢ − xⱼ‖²/log n: ε̂ᵢ falls by √(1−ᾱ)·gᵢ with gᵢ = c·Σⱼ (2/hᵢ)·k·(xᵢ − xⱼ), and x̂₀
    grows by (1−ᾱ)/√ᾱ·gᵢ. Latents are in VP; the authors' code does the same in σ-space, where ε̂
    falls by σ·g, and takes log(n − 1) for log n. It acts while σ ≥ ``sigma_stop``, 1 as in that
    code.

    Samples that are drawn together belong together: the same seed in another batch gives another
    picture. A call in which no prompt has a second sample is refused."""

    coefficient: float = 8.0
    sigma_stop: float = 1.0

    @property
    def active(self) -> bool:
        return self.coefficient != 0

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        level = run.entry.level
        if level.sigma < self.sigma_stop or self.coefficient == 0 or level.alpha_bar == 0:
            return x0
        scale = self.coefficient * (1 - level.alpha_bar) / math.sqrt(level.alpha_bar)
        pushed = x0.clone()
        for members in run.groups:
            if len(members) > 1:
                pushed[members] += scale * repulsion(x_t[members].to(x0.dtype))
        return pushed


def repulsion(x: torch.Tensor) -> torch.Tensor:
    """−∇ᵢ Σⱼ k(xᵢ, xⱼ) with bandwidths held fixed: Σⱼ (2/hᵢ)·k(xᵢ, xⱼ)·(xᵢ − xⱼ), shaped like x,
    for n ≥ 2 samples.

    hᵢ = medianⱼ‖xᵢ − xⱼ‖²/log n.
    """
    flat = x.flatten(1)
    differences = flat[:, None] - flat[None]
    distances = differences.norm(dim=-1)
    others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    medians = distances[others].reshape(len(x), -1).median(1).values
    bandwidth = (medians**2 / math.log(len(x))).clamp_min(torch.finfo(x.dtype).tiny)
    kernel = (-(distances**2) / bandwidth[:, None]).exp() * others
    weights = 2 * kernel / bandwidth[:, None]
    return (weights[:, :, None] * differences).sum(1).reshape(x.shape)
