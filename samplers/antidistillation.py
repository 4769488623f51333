"""Antidistillation sampling: samples that look as good, and teach a student less.

A tap on the base's own sampling, not a way to more diversity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from xhat.samplers.composite.pipeline import compose
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.build import whole

PROXY, DEGRADED = "proxy", "degraded"


@dataclass(frozen=True)
class Antidistillation(Tap):
    """x̂₀ ← x̂₀ + λ·rms(x̂₀)·u, u = d/rms(d), d = f_{θ+εg}(x_t) − f_θ(x_t), at every step.

    Training on a sample x moves a student by −η∇ℓ(x), and its loss L elsewhere by −η⟨∇ℓ(x), g⟩,
    g = ∇L: to raise it, x should be worse explained by θ than by θ + εg, as in antidistillation
    sampling of language models (Savani et al., arXiv 2504.13146, Sec. 4). Here ℓ(x) = ‖f_θ(x_t) −
    x‖², so that ∇ₓ(ℓ_{θ+εg} − ℓ_θ) = −2d where x_t is held: the sample goes where the degraded
    proxy departs from the good one. A negative λ is the opposite, a sample that teaches more.

    The budget of quality is λ: how far x̂₀ is moved at each step, as a share of its own size. Two
    evaluations of the proxies a step, unguided."""

    weight: float = 0.05

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight={self.weight}: expected a finite number")

    @property
    def active(self) -> bool:
        return self.weight != 0

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        if self.weight == 0:
            return x0
        assert run.models is not None, "the denoiser is called before the scheduler"
        sigma = run.entry.level.sigma
        good, worse = (run.models.x0_of(name, x_t, sigma, 1.0) for name in (PROXY, DEGRADED))
        return x0 + self.weight * _rms(x0) * _unit((worse - good).to(x0.dtype))


def antidistilled(base: Any, proxy: Any, degraded: Any, *, weight: float = 0.05) -> Any:
    """The base's pipeline under :class:`Antidistillation`, at its own steps and guidance.

    Parameters
    ----------
    base
        The pipeline whose samples are given away.
    proxy, degraded
        Pipelines of the base's architecture: a student as whoever distils may have it, and the
        same a step up the gradient of its loss.
    weight
        λ.

    Raises
    ------
    ValueError
        For a weight that is not finite, and pipelines that do not fit together.
    """
    models = {"base": base, PROXY: proxy, DEGRADED: degraded}
    return compose(models, whole("base", base), [Antidistillation(weight)])


def _rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True).sqrt()


def _unit(x: torch.Tensor) -> torch.Tensor:
    size = _rms(x)
    return torch.where(size > 0, x / size.clamp(min=torch.finfo(x.dtype).tiny), 0.0)
