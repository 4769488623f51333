"""Reshaped noise: the noise that a run starts from has more of its power at coarse scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap

GRID: tuple[dict[str, Any], ...] = (
    {"exponent": -0.2},
    {"exponent": -0.1},
    {"exponent": 0.05},
    {"exponent": 0.1},
    {"exponent": 0.2},
    {"exponent": 0.4},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class SpectralNoise(Tap):
    """x_T ← F⁻¹[a(f)·F[x_T]], a(f) ∝ max(f, 1/N)^(−α), ⟨a²⟩ = 1: coloured noise of unit variance
    (arXiv 2601.00090).

    f is the radial frequency in cycles a latent, N the longer side; α = 0 is white noise, α > 0 has
    more power where a layout is made, α < 0 less. It costs no evaluation, changes x_T alone, and a
    sample does not depend on its batch.

    The paper, which also optimises the noise of a set, could not be read first-hand. Taken here:
    the power law; the search for a set is :class:`~xhat.samplers.rivals.group.GroupInference`."""

    exponent: float = 0.1

    @property
    def active(self) -> bool:
        return self.exponent != 0

    def begin(self, run: Run, x_T: torch.Tensor) -> torch.Tensor:
        return x_T if self.exponent == 0 else reshaped(x_T, self.exponent)


def reshaped(x: torch.Tensor, exponent: float) -> torch.Tensor:
    """Noise (…, y, x) under the filter a(f) of :class:`SpectralNoise`.

    Raises ValueError for latents that have no rows and columns (packed into tokens).
    """
    if x.ndim < 4:
        raise ValueError(
            f"latents of shape {tuple(x.shape)} have no rows and columns, whose frequencies could "
            "be weighed: expected (sample, channel, y, x)"
        )
    height, width = x.shape[-2:]
    rows, columns = (torch.fft.fftfreq(n, device=x.device) for n in (height, width))
    radius = torch.sqrt(rows[:, None] ** 2 + columns[None] ** 2)
    gain = radius.clamp_min(1 / max(height, width)) ** -exponent
    gain = gain / gain.square().mean().sqrt()
    wide = x.float()
    return torch.fft.ifft2(torch.fft.fft2(wide) * gain).real.to(x.dtype)
