"""Going from one noise level to another when the scheduler at the other end is not the one at this
end.

The currency is x̂₀ at a noise level: σ = √(1−ᾱ)/√ᾱ says where a sample is, whatever space its
latents are kept in (:mod:`xhat.hooks.noise.levels`). A hand-over is exact when the step before it
ends at the very σ at which the next scheduler begins. Three ways, the first that fits is taken: the
step ends there of itself; the scheduler's own schedule is re-spaced so that it does; or the step is
made here, from x̂₀ and a noise."""

from __future__ import annotations

import math
from typing import Any

import torch

from xhat.hooks.noise.levels import NoiseLevel, kind, noise_level, prediction, scales, space

# Steps of these end at σ = sigmas[step + 1]: writing that entry re-spaces the step, noise and
# multistep terms included.
_BY_SIGMAS = {
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "EDMEulerScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "CosineDPMSolverMultistepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchLCMScheduler",
}
# Steps of these end at the next entry of their timesteps, which are whole numbers.
_BY_TIMESTEPS = {"LCMScheduler", "TCDScheduler", "DDPMScheduler", "DDPMParallelScheduler"}
# Steps of these end a fixed number of training steps lower.
_BY_STRIDE = {"DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler"}
DIVISIBLE = frozenset(_BY_SIGMAS | _BY_TIMESTEPS | _BY_STRIDE)
RENOISING = frozenset({"LCMScheduler", "FlowMatchLCMScheduler"})
CLEAN = NoiseLevel(timestep=0.0, sigma=0.0, alpha_bar=1.0)


def check_divisible(scheduler: Any) -> None:
    """Raises ValueError for a scheduler whose schedule cannot be entered or left in the middle."""
    if kind(scheduler) not in DIVISIBLE:
        raise ValueError(
            f"{type(scheduler).__name__} makes steps of several evaluations that cannot be run "
            "in part. Put another "
            "scheduler in its pipeline first, for example "
            "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
        )


def landing(scheduler: Any, step: int) -> float:
    """σ at which the scheduler's own ``step`` ends: 0 for the last step of most schedules."""
    name = kind(scheduler)
    if name in _BY_SIGMAS:
        return noise_level(scheduler, scheduler.timesteps[step], step + 1).sigma
    if name in _BY_TIMESTEPS:
        if step + 1 == len(scheduler.timesteps):
            return 0.0
        return noise_level(scheduler, scheduler.timesteps[step + 1]).sigma
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    return _sigma_of(scheduler, int(scheduler.timesteps[step]) - stride)


def _sigma_of(scheduler: Any, timestep: int) -> float:
    if timestep >= 0:
        return noise_level(scheduler, timestep).sigma
    final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return math.sqrt((1 - final) / final)


def ending(scheduler: Any) -> NoiseLevel:
    """Where a scheduler of :data:`_BY_STRIDE` ends: below its last timestep."""
    sigma = _sigma_of(scheduler, -1)
    return NoiseLevel(0.0, sigma, 1 / (1 + sigma * sigma))


def close(sigma: float, other: float) -> bool:
    """Whether two σ are one noise level, up to the float32 in which schedulers keep them."""
    return sigma == other or abs(sigma - other) <= 2e-6 * max(abs(sigma), abs(other))


def respace(scheduler: Any, step: int, target: NoiseLevel) -> bool:
    """Make the scheduler's own ``step`` end at ``target``, where its schedule can say so. Returns
    whether it does.
    """
    name = kind(scheduler)
    if name in _BY_SIGMAS and math.isfinite(target.sigma):
        own = target.sigma / (1 + target.sigma) if space(scheduler) == "flow" else target.sigma
        scheduler.sigmas = scheduler.sigmas.clone()
        scheduler.sigmas[step + 1] = own
    elif (
        name in _BY_TIMESTEPS
        and step + 1 < len(scheduler.timesteps)
        and target.timestep == int(target.timestep)
    ):
        timesteps = scheduler.timesteps.clone()
        timesteps[step + 1] = int(target.timestep)
        if not close(noise_level(scheduler, timesteps[step + 1]).sigma, target.sigma):
            return False
        scheduler.timesteps = timesteps
    return close(landing(scheduler, step), target.sigma)


def carry(x: torch.Tensor, source: Any, target: Any, level: NoiseLevel) -> torch.Tensor:
    """Latents at ``level`` in the space of scheduler ``source``, in that of scheduler ``target``.

    x·√(a'²+b'²)/√(a²+b²), with x_t = a·x₀ + b·ε in each; the same tensor where the spaces are the
    same."""
    if space(source) == space(target):
        return x
    return (x.float() * (unit(target, level) / unit(source, level))).to(x.dtype)


def unit(scheduler: Any, level: NoiseLevel) -> float:
    """√(a²+b²): the size in the scheduler's own space of latents that have size one in VP."""
    return math.hypot(*scales(scheduler, level))


def place(scheduler: Any, x0: torch.Tensor, eps: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """x = a·x₀ + b·ε at ``level``, in the scheduler's own space (DDIM, arXiv 2010.02502, Eq. 12
    with σ = 0).
    """
    a, b = scales(scheduler, level)
    return a * x0 + b * eps


def output_of_x0(
    scheduler: Any, x0: torch.Tensor, level: NoiseLevel, x_t: torch.Tensor
) -> torch.Tensor:
    """The model output from which :func:`xhat.hooks.noise.levels.pred_x0` would have made ``x0``:
    its inverse.

    ε: (x_t − a·x₀)/b · v: (√ᾱ·x_vp − x₀)/√(1−ᾱ) · sample: x₀ · flow: (x_t − x₀)/b.
    """
    a, b = scales(scheduler, level)
    x_t = x_t.to(x0.dtype)
    match prediction(scheduler):
        case "sample":
            return x0
        case "flow_prediction":
            return (x_t - x0) / b
        case "v_prediction":
            x_vp = x_t / unit(scheduler, level)
            return (math.sqrt(level.alpha_bar) * x_vp - x0) / math.sqrt(1 - level.alpha_bar)
        case "epsilon":
            return (x_t - a * x0) / b
        case other:
            raise ValueError(
                f"x̂₀ of a {other} prediction of {type(scheduler).__name__} cannot be replaced"
            )
