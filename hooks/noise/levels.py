"""Noise levels of any diffusers scheduler.

Every scheduler keeps its latents as ``x_t = a·x₀ + b·ε`` in one of three spaces:

=======  ==================  ==================  ======================================
space    a                   b                   schedulers
=======  ==================  ==================  ======================================
vp       √ᾱ                  √(1−ᾱ)              DDIM, DDPM, LCM, TCD, DPM++, UniPC, …
sigma    1                   σ                   Euler, Heun, KDPM2, LMS, EDM, …
flow     1/(1+σ)             σ/(1+σ)             flow matching, or ``use_flow_sigmas``
=======  ==================  ==================  ======================================

σ is always ``√(1−ᾱ)/√ᾱ``, the noise-to-signal ratio, in whichever space the latents are kept: so
two schedulers are at the same noise level exactly where their σ are equal. A flow model's own σ is
``b``. One with ``invert_sigmas`` counts from noise to picture: its σ is ``1 − b``.

A composite scheduler is seen through to the one in charge of a step:
:mod:`xhat.hooks.noise.schedulers`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from xhat.hooks.noise.schedulers import (
    ANGLE,
    BY_TIMESTEP,
    SUPPORTED,
    in_charge,
    inverted,
    kind,
    prediction,
    space,
)

__all__ = [
    "SUPPORTED",
    "NoiseLevel",
    "NoiseLevels",
    "in_charge",
    "kind",
    "noise_level",
    "noise_levels",
    "prediction",
    "ratio",
    "scales",
    "space",
    "step_index",
]


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level: timestep as the scheduler counts it, σ = √(1−ᾱ)/√ᾱ, ᾱ and log-SNR = −2·log
    σ.
    """

    timestep: float
    sigma: float
    alpha_bar: float

    @property
    def log_snr(self) -> float:
        with np.errstate(divide="ignore"):
            return float(-2 * np.log(self.sigma))


@dataclass(frozen=True)
class NoiseLevels:
    """The noise levels of a schedule, float64 arrays with one entry a step, in the order they are
    run.
    """

    timestep: np.ndarray
    sigma: np.ndarray
    alpha_bar: np.ndarray

    @property
    def log_snr(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -2 * np.log(self.sigma)

    def __len__(self) -> int:
        return len(self.timestep)

    def __getitem__(self, step: int) -> NoiseLevel:
        return NoiseLevel(
            float(self.timestep[step]), float(self.sigma[step]), float(self.alpha_bar[step])
        )


def noise_levels(scheduler: Any, steps: int | None = None) -> NoiseLevels:
    """Noise level of every step of the schedule that is set, or of a schedule of ``steps`` steps.

    Parameters
    ----------
    scheduler
        A scheduler of diffusers; it is left as it was.
    steps
        Number of inference steps. None: the schedule that is set.

    Returns
    -------
    NoiseLevels
        ``timestep``, ``sigma`` = √(1−ᾱ)/√ᾱ and ``alpha_bar``, an entry a scheduler step (one
        evaluation of the denoiser each): PNDM and second-order solvers have more of them than the
        inference steps asked for.

    Raises
    ------
    ValueError
        For a scheduler whose noise levels are not known.

    Examples
    --------
    >>> from diffusers import DDIMScheduler
    >>> levels = noise_levels(DDIMScheduler(timestep_spacing="trailing"), steps=4)
    >>> levels.timestep.tolist()
    [999.0, 749.0, 499.0, 249.0]
    >>> bool(np.allclose(levels.alpha_bar, 1 / (1 + levels.sigma**2)))
    True
    """
    if steps is not None:
        scheduler = copy.deepcopy(scheduler)
        scheduler.set_timesteps(steps)
    count = len(scheduler.timesteps) - (
        kind(scheduler) == "SCMScheduler"
    )  # SCM lists the end of its last step too
    timesteps = [
        float(t) for t in scheduler.timesteps[:count].tolist()
    ]  # one trip from a GPU, not one a step
    levels = [_level_at(*in_charge(scheduler, i), t) for i, t in enumerate(timesteps)]
    sigma = np.array([level.sigma for level in levels])
    return NoiseLevels(np.array(timesteps), sigma, np.array([level.alpha_bar for level in levels]))


def noise_level(scheduler: Any, timestep: Any, step: int | None = None) -> NoiseLevel:
    """Noise level at a timestep.

    Parameters
    ----------
    scheduler
        A scheduler of diffusers. A timestep that its current schedule does not hold is looked up in
        the training schedule, if there is one.
    timestep
        As the scheduler counts it.
    step
        Index into the schedule, which settles it where timesteps repeat.

    Returns
    -------
    NoiseLevel
        ``timestep``, ``sigma`` = √(1−ᾱ)/√ᾱ, ``alpha_bar``.
    """
    t = float(timestep)
    index = step_index(scheduler, t) if step is None else step
    return _level_at(*in_charge(scheduler, index), t)


def step_index(scheduler: Any, timestep: Any) -> int | None:
    """Index into the schedule of the step about to be made at ``timestep``, None where it is not in
    it.

    The scheduler's own counter decides between equal timesteps; without one, the first is meant.
    """
    t = float(timestep)
    timesteps = scheduler.timesteps
    for name in ("step_index", "begin_index"):
        index = getattr(scheduler, name, None)
        if index is not None:
            if 0 <= index < len(timesteps) and float(timesteps[index]) == t:
                return int(index)
            break
    matches = np.flatnonzero(np.asarray(timesteps.tolist(), dtype=np.float64) == t)
    return int(matches[0]) if len(matches) else None


def scales(scheduler: Any, level: NoiseLevel) -> tuple[float, float]:
    """(a, b) of ``x_t = a·x₀ + b·ε`` in the scheduler's own space at a noise level."""
    signal, noise = float(np.sqrt(level.alpha_bar)), float(np.sqrt(1 - level.alpha_bar))
    match space(scheduler):
        case "vp":
            return signal, noise
        case "sigma":
            return 1.0, level.sigma
        case _:
            return signal / (signal + noise), noise / (signal + noise)


def _level_at(scheduler: Any, step: int | None, timestep: float) -> NoiseLevel:
    name = kind(scheduler)
    if name in ANGLE:
        theta = timestep if name == "SCMScheduler" else timestep * np.pi / 2
        return NoiseLevel(timestep, float(np.tan(theta)), float(np.cos(theta) ** 2))
    if name in BY_TIMESTEP or step is None or _untouched(scheduler):
        alpha_bar = _trained_alpha_bar(scheduler, timestep)
        return NoiseLevel(timestep, ratio(alpha_bar), alpha_bar)
    sigma = _sigma_of_step(scheduler, name, step)
    if space(scheduler) == "flow":
        sigma = 1 - sigma if inverted(scheduler) else sigma
        sigma = sigma / (1 - sigma) if sigma < 1 else float("inf")
    return NoiseLevel(timestep, sigma, 1 / (1 + sigma * sigma))


def ratio(alpha_bar: float) -> float:
    """σ = √(1−ᾱ)/√ᾱ, infinite where ᾱ is 0."""
    return float("inf") if alpha_bar == 0 else float(np.sqrt((1 - alpha_bar) / alpha_bar))


def _untouched(scheduler: Any) -> bool:
    """Whether set_timesteps was never called; the order of ``sigmas`` then differs from class to
    class.
    """
    return (
        hasattr(scheduler, "alphas_cumprod")
        and getattr(scheduler, "num_inference_steps", None) is None
    )


def _sigma_of_step(scheduler: Any, name: str, step: int) -> float:
    """The scheduler's own σ at a step; solvers with midpoints evaluate them at their odd steps."""
    sigmas = scheduler.sigmas
    if step % 2 == 1:
        match name:
            case "KDPM2DiscreteScheduler":
                return float(scheduler.sigmas_interpol[step])
            case "KDPM2AncestralDiscreteScheduler":
                return float(scheduler.sigmas_interpol[step - 1])
            case "DPMSolverSDEScheduler":  # midpoint in log σ
                return float(
                    (sigmas[step - 1].double().log() / 2 + sigmas[step].double().log() / 2).exp()
                )
    return float(sigmas[step])


def _trained_alpha_bar(scheduler: Any, timestep: float) -> float:
    """ᾱ of the training schedule, with log σ interpolated between whole timesteps."""
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:  # a flow: the timestep is its σ, times the number of training steps
        sigma = timestep / scheduler.config.num_train_timesteps
        sigma = 1 - sigma if inverted(scheduler) else sigma
        return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
    if not 0 <= timestep <= len(table) - 1:
        raise ValueError(
            f"timestep {timestep:g} is outside the schedule of {len(table)} training steps"
        )
    low = int(timestep)
    if low == timestep:
        return float(table[low])
    pair = np.asarray(table[low : low + 2].tolist(), dtype=np.float64)
    log_sigma = np.log((1 - pair) / pair) / 2
    sigma = np.exp(log_sigma[0] + (timestep - low) * (log_sigma[1] - log_sigma[0]))
    return float(1 / (1 + sigma**2))
