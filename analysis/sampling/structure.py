"""Whether a model has learned to make pictures at all: can it take noise off its own, and have they
any structure?

A network of random weights samples without complaint, and every measure of diversity gives it a
number. Two questions tell it apart, and neither needs a reference:

- its own final latents are given noise; does x̂₀ come nearer to them than a straight line in x_t
  could, fitted to these very samples? Whoever has learned anything of the pictures takes off more
  noise than that. Only what tells the seeds of a prompt apart is looked at: a pattern that a
  network adds to every picture is no sign of learning;
- are neighbouring values of the final latents alike? In white noise they are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.analysis import stats
from xhat.probes.renoise import renoise

SIGMA = 1.0
SAMPLES = 8
LEAST = (
    0.05  # of the line's error must be taken off: what a random network does by accident is below
)


def structure(
    pipe: Any, final: xr.DataArray, *, sigma: float = SIGMA, batch_size: int = 8, **call: Any
) -> xr.Dataset:
    """Denoising gain and neighbour correlation of a model's own final latents (prompt, seed,
    channel, y, x).

    Variables (prompt,), and of each ``<name>_mean`` (bound) over prompts: ``gain``
    (:func:`denoising_gain`) of x̂₀ at the schedule's σ nearest to ``sigma``, after the mean over
    the seeds of a prompt is taken off everything; ``neighbours`` (:func:`neighbour_correlation`).
    The first eight seeds of every prompt are looked at. Raises ValueError for a single seed, and as
    :func:`~xhat.probes.renoise.renoise` does."""
    final = final.transpose("prompt", "seed", "channel", "y", "x").isel(seed=slice(SAMPLES))
    latents = np.asarray(final.values, dtype=np.float32)
    prompts = [str(p) for p in final["prompt"].values]
    texts = [p for p in prompts for _ in range(latents.shape[1])]
    if latents.shape[1] < 2:
        raise ValueError("what tells seeds apart needs two or more of them, got one")
    flat = rearrange(latents, "prompt seed ... -> (prompt seed) ...")
    noisy = renoise(pipe, flat, sigma, prompts=texts, batch_size=batch_size, **call)
    z, x_t, x0 = (
        rearrange(v, "(prompt seed) ... -> prompt seed ...", prompt=len(prompts)).astype(np.float64)
        for v in (flat, noisy.x_t, noisy.pred_x0)
    )
    cells = {
        "gain": np.array(
            [denoising_gain(*cells) for cells in zip(*map(_apart, (z, x_t, x0)), strict=True)]
        ),
        "neighbours": np.array([neighbour_correlation(z) for z in latents]),
    }
    result = xr.Dataset({name: ("prompt", v) for name, v in cells.items()}, {"prompt": prompts})
    for name, values in cells.items():
        result[f"{name}_mean"] = stats.bootstrap_mean(values).array()
    return result.assign_attrs(
        sigma=noisy.level.sigma, timestep=noisy.level.timestep, seeds=latents.shape[1]
    )


def _apart(x: np.ndarray) -> np.ndarray:
    """What is left of (prompt, seed, …) without the mean over seeds."""
    return x - x.mean(1, keepdims=True)


def denoising_gain(z: np.ndarray, x_t: np.ndarray, x0: np.ndarray) -> float:
    """1 − Σ‖x̂₀ − z‖² / Σ‖ℓ(x_t) − z‖², all (n, channel, y, x): 1 for a perfect x̂₀, at most 0 for
    a straight line.

    ℓ is the least-squares line a·x_t + b of each channel.

    >>> z = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    >>> denoising_gain(z, z + 0.5 * z[::-1], z)
    1.0
    """
    line = 0.0
    for channel in range(z.shape[1]):
        x, y = x_t[:, channel].ravel(), z[:, channel].ravel()
        x, y = x - x.mean(), y - y.mean()
        line += float(((y - x * (x @ y) / max(float(x @ x), 1e-30)) ** 2).sum())
    return float(1 - ((x0 - z) ** 2).sum() / max(line, 1e-30))


def neighbour_correlation(z: np.ndarray) -> float:
    """Mean correlation of each value of (n, channel, y, x) with the next one below and to the
    right: 0 in white noise.

    Each sample's and channel's mean is taken off first, so that flat colour is no structure.
    """
    centred = z.astype(np.float64) - z.mean((2, 3), keepdims=True)
    power = max(float((centred**2).mean()), 1e-30)
    below, right = centred[:, :, 1:] * centred[:, :, :-1], centred[..., 1:] * centred[..., :-1]
    return float((below.mean() + right.mean()) / 2 / power)


def has_learned(tested: xr.Dataset) -> bool:
    """Whether a model takes noise off its own pictures better than a straight line: by a twentieth,
    beyond the interval over prompts."""
    estimate, low, _ = tested["gain_mean"].values.tolist()
    return (low if np.isfinite(low) else estimate) > LEAST
