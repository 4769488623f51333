"""CADS: the condition begins as noise and is annealed to the prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from xhat.hooks.families import CONDITIONS
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap


@dataclass(frozen=True)
class CADS(Tap):
    """Condition-annealed sampling (Sadat et al., arXiv 2310.17347, Sec. 3).

    ŷ = √γ(t)·y + s·√(1−γ(t))·n, rescaled to the mean and deviation of y and mixed with weight ψ,
    where γ is 1 for t ≤ τ₁, 0 for t ≥ τ₂, and linear between; t is the timestep as a share of the
    training steps. n is new at every step and belongs to each sample, whatever its batch. Token and
    pooled embeddings of the conditional branch are noised; the unconditional branch is not. The
    defaults are the paper's for Stable Diffusion. Raises ValueError where the network is given no
    prompt that could be noised."""

    tau1: float = 0.6
    tau2: float = 0.9
    scale: float = 0.25
    mixing: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.tau1 < self.tau2:
            raise ValueError(f"tau1={self.tau1}, tau2={self.tau2}: expected 0 <= tau1 < tau2")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing={self.mixing}: expected a share between 0 and 1")

    def gamma(self, t: float) -> float:
        """γ(t), how much of the condition is left."""
        return min(1.0, max(0.0, (self.tau2 - t) / (self.tau2 - self.tau1)))

    def condition(self, run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        gamma = self.gamma(run.share)
        if gamma == 1 or self.scale == 0:
            return inputs
        changed = self._noised(run, inputs, gamma)
        if all(_same(changed[name], value) for name, value in inputs.items()):
            raise ValueError(
                "CADS anneals the prompt, and among the network's arguments "
                f"({', '.join(inputs)}) there is none that it knows as a tensor. Known: "
                f"{', '.join(sorted(CONDITIONS))}"
            )
        return changed

    def _noised(self, run: Run, inputs: dict[str, Any], gamma: float) -> dict[str, Any]:
        changed = dict(inputs)
        for name, value in inputs.items():
            if isinstance(value, dict):
                changed[name] = self._noised(run, value, gamma)
            elif name in CONDITIONS and isinstance(value, torch.Tensor):
                changed[name] = self.anneal(value, run.draw(value, f"cads {name}"), gamma)
        return changed

    def anneal(self, y: torch.Tensor, n: torch.Tensor, gamma: float) -> torch.Tensor:
        """ŷ of one step; mean and deviation are each sample's own."""
        noised = math.sqrt(gamma) * y + self.scale * math.sqrt(1 - gamma) * n
        dims = tuple(range(1, y.ndim))
        unit = (noised - noised.mean(dims, keepdim=True)) / noised.std(dims, keepdim=True)
        rescaled = unit * y.std(dims, keepdim=True) + y.mean(dims, keepdim=True)
        return (self.mixing * rescaled + (1 - self.mixing) * noised).to(y.dtype)


def _same(changed: Any, value: Any) -> bool:
    """Whether nothing in an argument was exchanged for something else."""
    if isinstance(value, dict):
        return all(_same(changed[name], one) for name, one in value.items())
    return changed is value
