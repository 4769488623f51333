"""Particle guidance in a feature space: pictures, not latents, push each other apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import avg_pool2d

from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap
from xhat.samplers.rivals.particles import repulsion

Features = Callable[[torch.Tensor], torch.Tensor]

GRID: tuple[dict[str, Any], ...] = (
    {"weight": 0.05},
    {"weight": 0.1},
    {"weight": 0.2},
    {"weight": 0.4},
    {"weight": 0.1, "steps": 1},
    {"weight": 0.2, "steps": 1},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class FeatureParticles(Tap):
    """x̂₀ ← x̂₀ + w·‖x̂₀‖·g/maxⱼ‖gⱼ‖, g = ∇ log Φ(φ(x̂₀)): the potential of
    :class:`~xhat.samplers.rivals.particles.ParticleGuidance` between features φ of the pictures
    that x̂₀ decodes to (Corso et al., arXiv 2310.13102, whose text-to-image samples use DINO's).

    ``embed``: φ, latents (n, …) → (n, d), differentiable. The gradient goes through φ and the
    decoder, and not through the denoiser; its length is counted in that of x̂₀, free of units: both
    are choices of this project. It acts at the first ``steps`` steps, by default at all but the
    last, and costs no evaluation of the network, but a decoding and its gradient.

    Samples that are drawn together belong together; a call in which no prompt has a second sample
    is refused."""

    embed: Features
    weight: float = 0.1
    steps: int | None = None

    @property
    def active(self) -> bool:
        return self.weight != 0 and self.steps != 0

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        last = len(run.entries) - 1 if self.steps is None else self.steps
        if run.position >= last or self.weight == 0:
            return x0
        pushed = x0.clone()
        for members in run.groups:
            if len(members) > 1:
                pushed[members] += self._push(x0[members]).to(x0.dtype)
        return pushed

    def _push(self, x0: torch.Tensor) -> torch.Tensor:
        push = feature_push(x0.float(), self.embed).flatten(1)
        longest = push.norm(dim=1).max().clamp_min(torch.finfo(push.dtype).tiny)
        norm = x0.float().flatten(1).norm(dim=1, keepdim=True)
        return (self.weight * norm * push / longest).reshape(x0.shape)


def feature_push(x0: torch.Tensor, features: Features) -> torch.Tensor:
    """Jᵀ·r, shaped like x̂₀ (n, …): r the repulsion between features, J their Jacobian."""
    with torch.enable_grad():
        x = x0.detach().requires_grad_()
        seen = features(x).flatten(1)
        (push,) = torch.autograd.grad(seen, x, grad_outputs=repulsion(seen.detach()))
    return push


@dataclass(frozen=True)
class DecodedPixels:
    """φ of latents: the pictures that ``vae`` decodes, averaged down to some ``side`` pixels."""

    vae: Any = field(repr=False)
    side: int = 16

    def __call__(self, x0: torch.Tensor) -> torch.Tensor:
        scale = getattr(self.vae.config, "scaling_factor", None) or 1.0
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        pictures = self.vae.decode((x0 / scale + shift).to(self.vae.dtype)).sample.float()
        return avg_pool2d(pictures, max(1, pictures.shape[-1] // self.side)).flatten(1)
