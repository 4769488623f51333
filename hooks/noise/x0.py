"""x̂₀ from any kind of prediction, and what follows from it: ε, and latents in VP scale.

x̂₀ is what the prediction says the final latents are, before a scheduler clips it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from xhat.hooks.noise.levels import NoiseLevel, noise_level, scales, step_index
from xhat.hooks.noise.schedulers import in_charge, inverted, kind, prediction


def pred_x0(
    scheduler: Any,
    model_output: torch.Tensor,
    timestep: Any,
    x_t: torch.Tensor,
    step: int | None = None,
) -> torch.Tensor:
    """x̂₀, the latents that the prediction says ``x_t`` came from, before the scheduler clips
    anything.

    ε: (x_t − b·ε̂)/a · v: √ᾱ·x_vp − √(1−ᾱ)·v̂, with x_vp = x_t/√(a²+b²) · sample: the output ·
    flow: x_t − b·v̂ (with ``invert_sigmas``, x_t + b·v̂) · EDM: c_skip·x_t + c_out·F.

    Parameters
    ----------
    scheduler
        A scheduler of diffusers with its timesteps set.
    model_output
        The prediction after guidance, shaped as ``x_t``.
    timestep
        One for all, or one a sample.
    x_t
        Latents in the scheduler's own space.
    step
        Which step of the schedule, where a timestep is met more than once.

    Returns
    -------
    Tensor
        Shaped as ``x_t``, in VAE units, float32 or wider.

    Raises
    ------
    ValueError
        For an ε-prediction at ᾱ = 0, where x̂₀ is not defined, and for a scheduler that is not
        supported.

    Examples
    --------
    >>> from diffusers import DDIMScheduler
    >>> s = DDIMScheduler()
    >>> x0, eps = torch.ones(1, 1), -torch.ones(1, 1)
    >>> x_t = s.add_noise(x0, eps, torch.tensor([500]))
    >>> bool(torch.allclose(pred_x0(s, eps, 500, x_t), x0, atol=1e-5))
    True
    """
    if isinstance(timestep, torch.Tensor) and timestep.numel() > 1:
        parts = [
            pred_x0(scheduler, o[None], t, x[None])
            for o, t, x in zip(model_output, timestep, x_t, strict=True)
        ]
        return torch.cat(parts)
    step = step_index(scheduler, timestep) if step is None else step
    return x0_at(scheduler, model_output, noise_level(scheduler, timestep, step), x_t, step)


def x0_at(
    scheduler: Any,
    model_output: torch.Tensor,
    level: NoiseLevel,
    x_t: torch.Tensor,
    step: int | None = None,
) -> torch.Tensor:
    """:func:`pred_x0` where the noise level is known: arithmetic only, no look-up, no
    synchronisation.
    """
    scheduler, _ = in_charge(scheduler, step)
    if x_t.dtype in (
        torch.float16,
        torch.bfloat16,
    ):  # 1/√ᾱ is 14.6 at SDXL's first step: half precision is not enough
        x_t, model_output = x_t.float(), model_output.float()
    model_output = without_variance(model_output, x_t)
    a, b = scales(scheduler, level)
    match prediction(scheduler):
        case "sample":
            return model_output
        case "flow_prediction":
            towards = 1 if inverted(scheduler) else -1
            return x_t + towards * b * model_output
        case "edm":
            return scheduler.precondition_outputs(x_t, model_output, level.sigma)
        case "v_prediction":
            signal, noise = level.alpha_bar**0.5, (1 - level.alpha_bar) ** 0.5
            return (signal / (a * a + b * b) ** 0.5) * x_t - noise * model_output
        case _:
            if a == 0:
                raise ValueError(
                    "x̂₀ is not defined for an ε-prediction at ᾱ = 0 (timestep "
                    f"{level.timestep:g}): "
                    "a schedule of zero terminal SNR needs a v- or sample prediction"
                )
            return (x_t - b * model_output) / a


def eps_from_x0(
    scheduler: Any, x0: torch.Tensor, timestep: Any, x_t: torch.Tensor, step: int | None = None
) -> torch.Tensor:
    """ε = (x_t − a·x₀)/b, the noise that makes ``x_t`` of ``x0``.

    Parameters
    ----------
    scheduler, timestep, x_t, step
        As in :func:`pred_x0`.
    x0
        Latents in VAE units, shaped as ``x_t``.

    Returns
    -------
    Tensor
        Shaped as ``x_t``.

    Raises
    ------
    ValueError
        Where b = 0: no noise.
    """
    a, b = _scales_at(scheduler, timestep, step)
    if b == 0:
        raise ValueError(f"there is no noise at timestep {float(timestep):g}: ε is not defined")
    return (x_t - a * x0) / b


def to_vp(scheduler: Any, x: torch.Tensor, timestep: Any, step: int | None = None) -> torch.Tensor:
    """Latents of the scheduler's own space, scaled to √ᾱ·x₀ + √(1−ᾱ)·ε at the same noise level."""
    a, b = _scales_at(scheduler, timestep, step)
    return x / (a * a + b * b) ** 0.5


def from_vp(
    scheduler: Any, x: torch.Tensor, timestep: Any, step: int | None = None
) -> torch.Tensor:
    """Latents √ᾱ·x₀ + √(1−ᾱ)·ε, scaled to the scheduler's own space: the inverse of
    :func:`to_vp`.
    """
    a, b = _scales_at(scheduler, timestep, step)
    return x * (a * a + b * b) ** 0.5


def _scales_at(scheduler: Any, timestep: Any, step: int | None) -> tuple[float, float]:
    step = step_index(scheduler, timestep) if step is None else step
    inner, _ = in_charge(scheduler, step)
    return scales(inner, noise_level(scheduler, timestep, step))


def without_variance(model_output: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
    """The prediction alone, where a network gives a variance beside it: the first half of its
    channels.
    """
    if model_output.ndim > 1 and model_output.shape[1] == 2 * x_t.shape[1]:
        return model_output.chunk(2, dim=1)[0]
    return model_output


def x0_of_tokens(
    scheduler: Any, model_output: torch.Tensor, timesteps: torch.Tensor, x_t: torch.Tensor
) -> torch.Tensor:
    """x̂₀ where each token has a noise level of its own: x_t + σ·v, v towards the picture.

    ``timesteps`` (sample, token) are the scheduler's ``per_token_timesteps``; ``x_t`` and
    ``model_output`` are (sample, token, channel). A step of this kind takes the velocity the other
    way round than a common one. Raises ValueError for a scheduler without it."""
    inner, _ = in_charge(scheduler, None)
    if kind(inner) != "FlowMatchEulerDiscreteScheduler" or inverted(inner):
        raise ValueError(
            f"{type(inner).__name__} was given a timestep a token: x̂₀ is known there for "
            "FlowMatchEulerDiscreteScheduler alone"
        )
    sigma = timesteps.to(torch.float32)[..., None] / inner.config.num_train_timesteps
    return x_t.float() + sigma * model_output.float()


def clipping(config: Mapping[str, Any]) -> str:
    """What a scheduler of this configuration does to x̂₀ inside its step, in words.

    >>> clipping({"clip_sample": True, "clip_sample_range": 1.0})
    "before the scheduler's clipping to ±1"
    """
    if config.get("thresholding"):
        return "before the scheduler's dynamic thresholding"
    if config.get("clip_sample"):
        return f"before the scheduler's clipping to ±{config.get('clip_sample_range', 1.0):g}"
    return "as predicted: the scheduler clips nothing"
