"""Matched log-SNR: averaging neighbours is the proof, the schedulers of diffusers the oracle."""

import numpy as np
import pytest

from xhat.analysis.measures.handover_snr import (
    PUBLISHED_GRIDS,
    flow_log_snr,
    matched_log_snr,
    matched_timesteps,
    nearest_timestep,
    scaled_linear_log_snr,
)


def test_averaging_neighbours_is_the_shift():
    """A constant picture under noise, pooled k × k: its SNR grows by k²."""
    rng, k, sigma = np.random.default_rng(0), 4, 3.0
    noisy = 1 + sigma * rng.standard_normal((400, 64, 64))
    pooled = noisy.reshape(400, 16, k, 16, k).mean((2, 4))
    expected = matched_log_snr(-2 * np.log(sigma), side=64, reference_side=16)
    assert -np.log(pooled.var()) == pytest.approx(expected, abs=0.02)


def test_log_snr_is_that_of_the_schedulers():
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    from xhat.hooks.noise.levels import noise_levels

    vp = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
    )
    levels = noise_levels(vp, 4)
    np.testing.assert_allclose(
        scaled_linear_log_snr(levels.timestep.astype(int)), levels.log_snr, rtol=1e-4
    )
    flow = FlowMatchEulerDiscreteScheduler(shift=1.0)
    flow.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(
        flow_log_snr([0.75, 0.5, 0.25]), noise_levels(flow).log_snr[1:], rtol=1e-4
    )


def test_the_published_flow_grid_is_its_schedulers_own():
    from diffusers import FlowMatchEulerDiscreteScheduler

    grid = next(g for g in PUBLISHED_GRIDS if g.name == "SD 3.5 Large Turbo")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(grid.levels, scheduler.sigmas[:-1].numpy(), rtol=1e-5)


def test_matching_there_and_back_is_the_grid():
    grid = (999, 749, 499, 249)
    there = matched_timesteps(grid, side=64, reference_side=16)
    back = matched_timesteps(there, side=16, reference_side=64)
    np.testing.assert_allclose(back, grid, atol=2)  # whole timesteps
    assert nearest_timestep(float(scaled_linear_log_snr(500))) == 500


def test_larger_latents_hand_over_with_more_of_the_picture_decided():
    handovers = {g.name: g.handover(16) for g in PUBLISHED_GRIDS}
    assert handovers["SDXL DMD2"] - handovers["SDXL Turbo"] == pytest.approx(2 * np.log(2))
    assert all(np.diff(g.log_snr(16)[1:]).min() > 0 for g in PUBLISHED_GRIDS)


def test_sides_below_one_are_refused():
    with pytest.raises(ValueError, match="1 or more"):
        matched_log_snr(0.0, 0, 16)
