"""Where few-step students hand over, on one scale for latents of every size.

What a noise level destroys depends on the size of the latent. The mean of k × k neighbours of a
picture keeps its content and loses a factor k² of the noise's variance, so a latent of side s
carries at noise level σ what one of side s′ carries at σ·s′/s: log-SNR(s′) = log-SNR(s) +
2·ln(s/s′). Two schedules decide the same things at the same steps where these *matched* log-SNRs
are equal, whatever their timesteps.

References
----------
Hoogeboom, Heek & Salimans 2023, simple diffusion, arXiv:2301.11093, section 3.1 (the shift).
Esser et al. 2024, Stable Diffusion 3, arXiv:2403.03206, section 5.3.2 (the same for flows).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TRAIN_STEPS = 1000


def matched_log_snr(
    log_snr: float | np.ndarray, side: int, reference_side: int
) -> float | np.ndarray:
    """log-SNR of a latent of side ``side``, as a latent of side ``reference_side`` would show it.

    Parameters
    ----------
    log_snr : ln(ᾱ/(1−ᾱ)) = −2·ln σ, in nats.
    side, reference_side : latent positions along one edge.

    Returns
    -------
    log_snr + 2·ln(side/reference_side).

    Raises
    ------
    ValueError : for a side below 1.

    >>> round(float(matched_log_snr(-5.35, side=128, reference_side=16)), 2)
    -1.19
    """
    if min(side, reference_side) < 1:
        raise ValueError(f"sides are 1 or more positions, got {side} and {reference_side}")
    return log_snr + 2 * np.log(side / reference_side)


def scaled_linear_log_snr(
    timestep: float | np.ndarray, start: float = 0.00085, end: float = 0.012
) -> np.ndarray:
    """log-SNR of Stable Diffusion's schedule (β linear in √β, 1,000 steps) at integer timesteps."""
    betas = np.linspace(start**0.5, end**0.5, TRAIN_STEPS) ** 2
    alpha_bar = np.cumprod(1 - betas)[np.asarray(timestep, dtype=int)]
    return np.log(alpha_bar / (1 - alpha_bar))


def flow_log_snr(sigma: float | np.ndarray) -> np.ndarray:
    """log-SNR of a rectified flow x_t = (1 − σ)·x₀ + σ·ε: 2·ln((1 − σ)/σ), −∞ at σ = 1."""
    sigma = np.asarray(sigma, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return 2 * np.log((1 - sigma) / sigma)


def shifted(sigma: Sequence[float], shift: float) -> np.ndarray:
    """A flow's σ after a resolution shift: s·σ/(1 + (s − 1)·σ) (arXiv:2403.03206, eq. 23)."""
    own = np.asarray(sigma, dtype=np.float64)
    return shift * own / (1 + (shift - 1) * own)


def nearest_timestep(log_snr: float) -> int:
    """The timestep of Stable Diffusion's schedule whose log-SNR is nearest to ``log_snr``.

    >>> nearest_timestep(float(scaled_linear_log_snr(390)))
    390
    """
    return int(np.abs(scaled_linear_log_snr(np.arange(TRAIN_STEPS)) - log_snr).argmin())


def matched_timesteps(timesteps: Sequence[int], side: int, reference_side: int) -> tuple[int, ...]:
    """Timesteps at which a latent of ``reference_side`` shows what ``side`` shows at ``timesteps``.

    Both on Stable Diffusion's schedule. The first stays: sampling begins at pure noise in every
    size.

    >>> matched_timesteps((999, 749, 499, 249), side=16, reference_side=16)
    (999, 749, 499, 249)
    """
    later = matched_log_snr(scaled_linear_log_snr(np.array(timesteps[1:])), side, reference_side)
    return (int(timesteps[0]), *(nearest_timestep(float(value)) for value in np.atleast_1d(later)))


@dataclass(frozen=True)
class PublishedGrid:
    """The steps of a published few-step student: ``levels`` on its own scale, the side of its
    latents at its native size, and where the numbers stand."""

    name: str
    side: int
    levels: tuple[float, ...]
    log_snr_of: Callable[[np.ndarray], np.ndarray]
    source: str

    def log_snr(self, reference_side: int) -> np.ndarray:
        """Matched log-SNR of every step, the first (pure noise) included."""
        own = self.log_snr_of(np.array(self.levels))
        return np.asarray(matched_log_snr(own, self.side, reference_side))

    def handover(self, reference_side: int) -> float:
        """Matched log-SNR at the second step: where its first x̂₀ is handed over."""
        return float(self.log_snr(reference_side)[1])


SDXL_TIMESTEPS = (999, 749, 499, 249)
"""Of DMD2, Lightning and Turbo."""
_QUARTERS = (1.0, 0.75, 0.5, 0.25)

PUBLISHED_GRIDS = (
    PublishedGrid(
        "SDXL DMD2",
        128,
        SDXL_TIMESTEPS,
        scaled_linear_log_snr,
        "model card tianweiy/DMD2, 4-step example",
    ),
    PublishedGrid(
        "SDXL Lightning",
        128,
        SDXL_TIMESTEPS,
        scaled_linear_log_snr,
        "model card ByteDance/SDXL-Lightning: Euler, trailing spacing",
    ),
    PublishedGrid(
        "SDXL Turbo",
        64,
        SDXL_TIMESTEPS,
        scaled_linear_log_snr,
        "model card stabilityai/sdxl-turbo: trailing spacing, 512 × 512",
    ),
    PublishedGrid(
        "SD 1.5 LCM",
        64,
        (999, 759, 499, 259),
        scaled_linear_log_snr,
        "LCMScheduler's default, 4 of 50 steps (arXiv:2310.04378)",
    ),
    PublishedGrid(
        "SD 3.5 Large Turbo",
        128,
        tuple(shifted(_QUARTERS, 3.0)),
        flow_log_snr,
        "its scheduler_config: shift 3, four even steps (arXiv:2403.03206)",
    ),
    PublishedGrid(
        "FLUX.1 schnell",
        128,
        _QUARTERS,
        flow_log_snr,
        "its scheduler_config: shift 1, four even steps",
    ),
)
"""Native sizes: 1024 × 1024 pictures have latents of side 128, 512 × 512 ones of side 64."""
