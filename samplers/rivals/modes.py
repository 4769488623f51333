"""Mode guidance: each sample is drawn to a mode of its prompt, until the picture's content is
settled.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import torch

from xhat.hooks.noise.levels import noise_levels
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.plan import Segment
from xhat.samplers.plans.recipe import trailing
from xhat.samplers.plans.schedule import scheduled
from xhat.samplers.rivals.teacher import renoised

PILOT_SEED = 0


GRID: tuple[dict[str, Any], ...] = (
    {"weight": 0.1, "stop": 0.5},
    {"weight": 0.3, "stop": 0.5},
    {"weight": 0.5, "stop": 0.5},
    {"weight": 0.1, "stop": 0.75},
    {"weight": 0.3, "stop": 0.75},
    {"weight": 0.5, "stop": 0.75},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class ModeGuidance(Tap):
    """g = m − x̂₀, added to x̂₀ with weight λ while t > t_stop (Chan-Santiago et al., arXiv
    2505.18963, Sec. 4.1–4.3).

    The paper finds the modes m of a class by k-means on the latents of its real pictures. A prompt
    has none: here they are the k-means centres of ``pilots`` samples of the base at ``pilot_steps``
    steps (DDIM, one set of noises for every prompt), made once a prompt and kept for later calls. A
    sample's mode is drawn by its own x_T, so that it does not depend on the batch. The paper adds
    λ·σ_t·g to the state (Eq. 6) with λ = 0.1 over 25 of 50 steps; over a student's few steps the
    weight is given on x̂₀ itself. ``stop`` is t_stop as a share of the training steps, half in the
    paper."""

    modes: int = 8
    weight: float = 0.3
    stop: float = 0.5
    pilots: int = 32
    pilot_steps: int = 8
    guidance_scale: float = 1.0
    model: str = "base"
    _found: dict[Any, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.modes <= self.pilots:
            raise ValueError(
                f"modes={self.modes}, pilots={self.pilots}: expected 1 <= modes <= pilots"
            )

    @property
    def active(self) -> bool:
        return self.weight != 0

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        if run.share <= self.stop or self.weight == 0:
            return x0
        if "modes" not in run.memory:
            run.memory["modes"] = self._modes_of_samples(run, x0)
        return torch.lerp(x0, run.memory["modes"], self.weight)

    def _modes_of_samples(self, run: Run, x0: torch.Tensor) -> torch.Tensor:
        """Each sample's mode, shaped like x̂₀."""
        chosen = torch.empty_like(x0)
        for members in run.groups:
            centres = self._modes_of_prompt(run, members[0], x0)
            for i in members:
                chosen[i] = centres[run.keys[i] % self.modes]
        return chosen

    def _modes_of_prompt(self, run: Run, sample: int, x0: torch.Tensor) -> torch.Tensor:
        condition = (
            None
            if run.condition is None
            else run.condition[sample].detach().float().cpu().contiguous()
        )
        key = (
            tuple(x0.shape[1:]),
            None if condition is None else zlib.crc32(condition.numpy().tobytes()),
        )
        if key not in self._found:
            self._found[key] = centres(self._pilot(run, sample, x0), self.modes)
        return self._found[key].to(x0)

    def _pilot(self, run: Run, sample: int, x0: torch.Tensor) -> torch.Tensor:
        """x̂₀ of the base at the end of a short deterministic run from noises of its own."""
        assert run.models is not None, "the denoiser is called before the scheduler"
        scheduler = run.models.scheduler.schedulers[self.model]
        own = scheduled(
            scheduler, Segment("pilot", 0, 1, self.pilot_steps, spacing=trailing(scheduler))
        )
        levels = noise_levels(own)
        x = torch.randn(
            (self.pilots, *x0.shape[1:]), generator=torch.Generator().manual_seed(PILOT_SEED)
        ).to(x0)
        for i in range(len(levels)):
            level = levels[i]
            rows = [sample] * self.pilots
            estimate = run.models.x0_of(self.model, x, level.sigma, self.guidance_scale, rows).to(
                x0
            )
            if i + 1 < len(levels):
                eps = (x - level.alpha_bar**0.5 * estimate) / (1 - level.alpha_bar) ** 0.5
                x = renoised(estimate, eps, levels[i + 1])
        return estimate


def centres(samples: torch.Tensor, count: int) -> torch.Tensor:
    """k-means centres of samples (n, …), shaped (count, …): the same for the same samples."""
    from sklearn.cluster import KMeans

    flat = samples.flatten(1).double().cpu().numpy()
    found = KMeans(count, n_init=4, random_state=PILOT_SEED).fit(flat).cluster_centers_
    return torch.from_numpy(found).reshape(count, *samples.shape[1:])
