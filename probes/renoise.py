"""Pictures under noise again: what a denoiser makes of given latents at one noise level of its own
schedule.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xhat.hooks.noise.levels import NoiseLevel, NoiseLevels, noise_levels, space
from xhat.hooks.points.taps import quiet
from xhat.hooks.record.record import Reading
from xhat.hooks.record.recorder import Recorder
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.plans.defaults import default_steps
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.schedule import scheduled


@dataclass(frozen=True)
class Renoised:
    """``pred_x0`` and the noisy ``x_t`` in VP, (n, channel, y, x) float32 each, at ``level``;
    ``readings`` by name.
    """

    level: NoiseLevel
    x_t: np.ndarray
    pred_x0: np.ndarray
    readings: dict[str, np.ndarray]


def renoise(
    pipe: Any,
    latents: np.ndarray,
    sigma: float,
    *,
    prompts: str | Sequence[str] = "",
    hooks: Mapping[str, Any] | Iterable[str] = (),
    seed: int = 0,
    batch_size: int = 16,
    **call_kwargs: Any,
) -> Renoised:
    """One evaluation, without guidance, of √ᾱ·z + √(1−ᾱ)·ε at the step of the pipeline's schedule
    nearest to σ.

    ``latents``: z (n, channel, y, x), in the units of the VAE. ``prompts``: one for all, or one a
    sample. The noise ε of sample i depends on ``seed`` and i alone. The pipeline's own schedule, of
    the number of steps that belongs to it, says which noise levels there are. Raises ValueError for
    a scheduler that cannot be entered in the middle."""
    latents = np.asarray(latents, dtype=np.float32)
    texts = [prompts] * len(latents) if isinstance(prompts, str) else list(prompts)
    if len(texts) != len(latents):
        raise ValueError(
            f"{len(latents)} latents and {len(texts)} prompts: expected one for all, or one each"
        )
    steps = default_steps(pipe)
    levels = noise_levels(scheduled(pipe.scheduler, Segment("model", 0, steps, steps)))
    at = nearest_step(levels, sigma)
    one = compose({"model": pipe}, Plan([Segment("model", at, at + 1, steps)]))
    parts = []
    for start in range(0, len(latents), batch_size):
        rows = range(start, min(start + batch_size, len(latents)))
        noise = torch.stack([_noise(latents.shape[1:], seed, i) for i in rows]).numpy()
        x_t = (
            levels[at].alpha_bar ** 0.5 * latents[rows] + (1 - levels[at].alpha_bar) ** 0.5 * noise
        )
        parts.append(
            (x_t, *_evaluated(one, x_t, levels[at], [texts[i] for i in rows], hooks, call_kwargs))
        )
    x_t, pred_x0 = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    readings = {name: np.concatenate([part[2][name] for part in parts]) for name in parts[0][2]}
    return Renoised(levels[at], x_t, pred_x0, readings)


def nearest_step(levels: NoiseLevels, sigma: float) -> int:
    """The step whose σ is nearest to ``sigma``, in ratio, among those with noise that is finite."""
    with np.errstate(divide="ignore"):
        gap = np.abs(np.log(levels.sigma) - np.log(sigma))
    return int(np.argmin(np.where(np.isfinite(gap), gap, np.inf)))


def _noise(shape: tuple[int, ...], seed: int, index: int) -> torch.Tensor:
    """Noise of a stream of its own: that of generator ``index`` may be the x_T which the latents
    were made of.
    """
    own = zlib.crc32(f"renoise {seed} {index}".encode())
    return torch.randn(shape, generator=torch.Generator().manual_seed(own))


def _evaluated(
    pipe: Any,
    x_t: np.ndarray,
    level: NoiseLevel,
    prompts: list[str],
    hooks: Any,
    call: dict[str, Any],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """x̂₀ and readings of one step of ``pipe`` that begins at ``level`` with x_t, given in VP."""
    height, width = (
        call.get(name) or side * pipe.vae_scale_factor
        for name, side in zip(("height", "width"), x_t.shape[2:], strict=True)
    )
    start = torch.from_numpy(np.ascontiguousarray(x_t, dtype=np.float32)).to(
        pipe.device, pipe.dtype
    )
    given = _packed(pipe, _own(pipe, start, level))
    arguments = {"output_type": "latent", "height": height, "width": width} | call
    arguments["generator"] = torch.Generator().manual_seed(0)
    with torch.no_grad(), quiet(pipe), Recorder(pipe, hooks, (height, width)) as recorder:
        pipe(prompts, latents=given, **arguments)
        record = recorder.take()[0]
        readings = record.readings(recorder.selections)
    pred_x0 = record.root()["pred_x0"].data[:, 0]
    return np.asarray(pred_x0, dtype=np.float32), {name: _first(r) for name, r in readings.items()}


def _own(pipe: Any, x: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    """Latents as the pipeline is to be given them: it scales them itself, but for flow models."""
    inner = pipe.scheduler.run.entry.scheduler
    if space(inner) != "flow":
        return x
    return x / (level.alpha_bar**0.5 + (1 - level.alpha_bar) ** 0.5)


def _packed(pipe: Any, x: torch.Tensor) -> torch.Tensor:
    """Latents in the rows of 2 × 2 patches that some pipelines keep them in."""
    pack = getattr(pipe, "_pack_latents", None)
    return x if pack is None else pack(x, *x.shape)


def _first(reading: Reading) -> np.ndarray:
    """The conditional half of the one step."""
    value = reading.array.data[:, 0]
    return value[:, -1] if "branch" in reading.array.dims else value
