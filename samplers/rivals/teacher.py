"""Distillation++: the teacher corrects the student's x̂₀ while sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from xhat.hooks.noise.levels import NoiseLevel
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap

GRID: tuple[dict[str, Any], ...] = (
    {"weight": 0.1, "steps": 1},
    {"weight": 0.2, "steps": 1},
    {"weight": 0.4, "steps": 1},
    {"weight": 0.1, "steps": 2},
    {"weight": 0.2, "steps": 2},
    {"weight": 0.4, "steps": 2},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class TeacherGuidance(Tap):
    """x̂₀ ← (1−λ)·x̂₀ + λ·x̂₀ᵗᵉᵃᶜʰᵉʳ(x_s), x_s = √ᾱ_s·x̂₀ + √(1−ᾱ_s)·ε (Park et al., arXiv
    2412.08871, Eq. 9, Alg. 1).

    s is the noise level the step goes to (s = t − Δt, which the paper finds better than s = t or a
    random one), ε new noise that belongs to each sample. The first ``steps`` steps of the run are
    corrected; each costs one evaluation of the teacher, two where its guidance is above 1. λ = 0.2
    is this project's choice. A run of one step has no level to go to, and is refused."""

    weight: float = 0.2
    steps: int = 1
    guidance_scale: float = 1.0
    teacher: str = "base"

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight={self.weight}: expected a share between 0 and 1")

    @property
    def active(self) -> bool:
        return self.weight != 0 and self.steps > 0

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        target = run.entry.target
        if run.position >= self.steps or self.weight == 0 or target.sigma == 0:
            return x0
        assert run.models is not None, "the denoiser is called before the scheduler"
        x_s = renoised(x0, run.draw(x0, "teacher"), target)
        taught = run.models.x0_of(
            self.teacher, x_s.to(x_t.dtype), target.sigma, self.guidance_scale
        )
        return torch.lerp(x0, taught.to(x0.dtype), self.weight)


def renoised(x0: torch.Tensor, eps: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """√ᾱ·x₀ + √(1−ᾱ)·ε."""
    return level.alpha_bar**0.5 * x0 + (1 - level.alpha_bar) ** 0.5 * eps
