"""Commitment: closed forms of the two distances, and of the first step that stays within a
tolerance.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.intervals import BOUNDS
from xhat.analysis.traces.commitment import commitment, committed_at

DIMS = ("prompt", "seed", "step", "channel", "y", "x")
P, S, T = 3, 4, 5
SIGMA = np.geomspace(10, 0.1, T)


def traced(x0):
    coords = {
        "prompt": list("abc")[: len(x0)],
        "seed": np.arange(x0.shape[1]),
        "sigma": ("step", SIGMA),
    }
    return xr.Dataset({"pred_x0": (DIMS, x0)}, coords)


@pytest.fixture
def x0():
    return np.random.default_rng(0).normal(size=(P, S, T, 2, 3, 3)).astype(np.float32)


def test_the_last_step_is_itself_and_means_are_over_seeds_then_prompts(x0):
    found = commitment(traced(x0))
    assert found["cosine"].dims == ("prompt", "seed", "step")
    np.testing.assert_allclose(found["cosine"][..., -1], 1)
    np.testing.assert_array_equal(found["relative_l2"][..., -1], 0)
    for name in ("cosine", "relative_l2"):
        mean, low, high = (found[f"{name}_mean"].sel(bound=b).values for b in BOUNDS)
        np.testing.assert_allclose(mean, found[name].mean(("prompt", "seed")))
        expected = crossed_mean(found[name].values)
        np.testing.assert_allclose((low, high), (expected.low, expected.high))
    assert (found["cosine_mean"].attrs["prompts"], found["cosine_mean"].attrs["seeds"]) == (P, S)
    committed = found["committed_mean"].sel(bound="estimate")
    at = found["committed_at"].values
    np.testing.assert_allclose(committed, [(at <= step).mean() for step in range(T)])
    np.testing.assert_array_equal(found["sigma"], SIGMA)


def test_the_two_distances_are_their_formulas(x0):
    found = commitment(traced(x0))
    a, b = x0[1, 2, 0].ravel().astype(float), x0[1, 2, -1].ravel().astype(float)
    assert float(found["cosine"][1, 2, 0]) == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    )
    assert float(found["relative_l2"][1, 2, 0]) == pytest.approx(
        np.linalg.norm(a - b) / np.linalg.norm(b)
    )


def test_a_run_that_scales_toward_its_end_has_cosine_one_and_known_distances():
    scales = np.array([0.5, 0.8, 0.95, 0.99, 1.0])
    x0 = np.ones((2, 3, T, 1, 2, 2)) * scales[:, None, None, None]
    found = commitment(traced(x0), tolerance=0.1)
    np.testing.assert_allclose(found["cosine"], 1)
    np.testing.assert_allclose(found["relative_l2"][0, 0], 1 - scales, atol=1e-12)
    np.testing.assert_array_equal(found["committed_at"], 2)
    np.testing.assert_allclose(found["committed_sigma"], SIGMA[2])
    np.testing.assert_array_equal(commitment(traced(x0), tolerance=0.02)["committed_at"], 3)
    np.testing.assert_array_equal(commitment(traced(x0), tolerance=1.0)["committed_at"], 0)


def test_scale_of_all_steps_changes_nothing(x0):
    a, b = commitment(traced(x0)), commitment(traced(x0 * 8))
    xr.testing.assert_allclose(a, b)


def test_committed_at_is_the_first_from_which_all_stay_close():
    rng = np.random.default_rng(0)
    distance = np.concatenate([rng.uniform(size=(200, 6)), np.zeros((200, 1))], axis=1)
    loop = [next(i for i in range(7) if (row[i:] <= 0.5).all()) for row in distance]
    np.testing.assert_array_equal(committed_at(distance, 0.5), loop)


def test_refusals(x0):
    with pytest.raises(ValueError, match="'pred_x0'"):
        commitment(traced(x0).rename(pred_x0="latents"))
    with pytest.raises(ValueError, match="tolerance"):
        commitment(traced(x0), tolerance=0)
    for value in (np.nan, 0.0):
        spoiled = x0.copy()
        spoiled[1, 0, 2] = value
        with pytest.raises(ValueError, match="prompt 'b'"):
            commitment(traced(spoiled))
