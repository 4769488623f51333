"""SPARKE: samples of a prompt are guided to a higher kernel entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap

GRID: tuple[dict[str, Any], ...] = (
    {"weight": 0.05, "steps": 1},
    {"weight": 0.2, "steps": 1},
    {"weight": 0.8, "steps": 1},
    {"weight": 0.05, "steps": 2},
    {"weight": 0.2, "steps": 2},
    {"weight": 0.8, "steps": 2},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class EntropyGuidance(Tap):
    """x̂₀ ← x̂₀ + η·n·h²·∇ log RKE, RKE = n²/Σᵢⱼ k(xᵢ, xⱼ)²: the order-2 Rényi kernel entropy, whose
    gradient needs no eigenvalues (SPARKE, Jalali et al., arXiv 2506.10173).

    k = exp(−‖xᵢ − xⱼ‖²/2h²), so that ∇ᵢ log RKE = (4/h²)·Σⱼ kᵢⱼ²·(xᵢ − xⱼ)/Σₐₕ kₐₕ². The paper
    weighs a pair by a kernel of its prompts too, and guides the noisy latents, also against
    pictures made before; it could not be read first-hand. Taken here: the weight is 1 within a
    prompt and 0 between prompts, so that a set does not depend on the other prompts of its batch;
    x̂₀ is guided; h is the median distance of the set; the step is counted in it, free of units.

    It acts at the first ``steps`` steps and costs no evaluation. Samples that are drawn together
    belong together; a call in which no prompt has a second sample is refused."""

    weight: float = 0.1
    steps: int = 2

    @property
    def active(self) -> bool:
        return self.weight != 0 and self.steps > 0

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        if run.position >= self.steps or self.weight == 0:
            return x0
        guided = x0.clone()
        for members in run.groups:
            if len(members) > 1:
                guided[members] += (self.weight * len(members) * entropy_push(x0[members])).to(x0)
        return guided


def entropy_push(x: torch.Tensor, bandwidth: float | None = None) -> torch.Tensor:
    """h²·∇ log RKE of x (n, …), shaped like x; ``bandwidth``: h, by default the median distance."""
    flat = x.flatten(1).float() if x.dtype in (torch.float16, torch.bfloat16) else x.flatten(1)
    apart = flat[:, None] - flat[None]
    squared = apart.square().sum(-1)
    others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    h2 = squared[others].median() if bandwidth is None else squared.new_tensor(bandwidth**2)
    kernel2 = (-squared / h2.clamp_min(torch.finfo(flat.dtype).tiny)).exp()
    return (4 * (kernel2[:, :, None] * apart).sum(1) / kernel2.sum()).reshape(x.shape)
