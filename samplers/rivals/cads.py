"""CADS: the condition begins as noise and is annealed to the prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from xhat.hooks.families import CONDITIONS
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap, differs

GRID: tuple[dict[str, Any], ...] = (
    {"scale": 0.1},
    {"scale": 0.25},
    {"scale": 0.5},
    {"tau1": 0.4, "scale": 0.25},
    {"tau1": 0.4, "scale": 0.5},
    {"tau1": 0.2, "tau2": 0.8, "scale": 0.25},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class CADS(Tap):
    """Condition-annealed sampling (Sadat et al., arXiv 2310.17347, Sec. 3).

    ŷ = √γ(t)·y + s·√(1−γ(t))·n, rescaled to the mean and deviation of y and mixed with weight ψ,
    where γ is 1 for t ≤ τ₁, 0 for t ≥ τ₂, and linear between; t is the timestep as a share of the
    training steps. n is new at every step and belongs to each sample, whatever its batch. Token and
    pooled embeddings of the conditional branch are noised; the unconditional branch is not.

    τ₁, τ₂ and s are the paper's for Stable Diffusion, at 50 steps and more. A step of few covers
    much time: at t = 1 alone γ is 0, and a quarter of a picture would be made without its prompt.
    So γ is by default the mean of the schedule over the time from the step to the next, which for
    many steps is the schedule itself; with ``mean=False`` it is the schedule's value at the step.

    Raises ValueError where the network is given no prompt that could be noised, and for a run that
    lies below τ₁ as a whole."""

    tau1: float = 0.6
    tau2: float = 0.9
    scale: float = 0.25
    mixing: float = 1.0
    mean: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.tau1 < self.tau2:
            raise ValueError(f"tau1={self.tau1}, tau2={self.tau2}: expected 0 <= tau1 < tau2")
        if not 0 <= self.mixing <= 1:
            raise ValueError(f"mixing={self.mixing}: expected a share between 0 and 1")

    @property
    def active(self) -> bool:
        return self.scale != 0

    def gamma(self, t: float, end: float | None = None) -> float:
        """γ(t), how much of the condition is left; its mean over the time from ``t`` down to
        ``end``.

        >>> CADS().gamma(0.75), round(CADS().gamma(1.0, 0.75), 3)
        (0.5, 0.15)
        """
        if end is None or end >= t:
            return min(1.0, max(0.0, (self.tau2 - t) / (self.tau2 - self.tau1)))
        return (self._left_below(t) - self._left_below(end)) / (t - end)

    def _left_below(self, t: float) -> float:
        """∫₀ᵗ γ."""
        top = min(t, self.tau2)
        annealed = max(0.0, top - self.tau1)
        return min(t, self.tau1) + annealed * (1 + self.gamma(top)) / 2

    def condition(self, run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        gamma = self.gamma(run.share, run.next_share if self.mean else None)
        if gamma == 1 or self.scale == 0:
            return inputs
        changed = self._noised(run, inputs, gamma)
        if not differs(changed, inputs):
            raise ValueError(
                "CADS anneals the prompt, and among the network's arguments "
                f"({', '.join(inputs)}) there is none that it knows. Known: "
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
            elif name in CONDITIONS and isinstance(value, list):  # a prompt each, of its own length
                noises = run.draw_each(value, f"cads {name}")
                changed[name] = [
                    self.anneal(y[None], n[None], gamma)[0]
                    for y, n in zip(value, noises, strict=True)
                ]
        return changed

    def anneal(self, y: torch.Tensor, n: torch.Tensor, gamma: float) -> torch.Tensor:
        """ŷ of one step; mean and deviation are each sample's own."""
        noised = math.sqrt(gamma) * y + self.scale * math.sqrt(1 - gamma) * n
        dims = tuple(range(1, y.ndim))
        unit = (noised - noised.mean(dims, keepdim=True)) / noised.std(dims, keepdim=True)
        rescaled = unit * y.std(dims, keepdim=True) + y.mean(dims, keepdim=True)
        return (self.mixing * rescaled + (1 - self.mixing) * noised).to(y.dtype)
