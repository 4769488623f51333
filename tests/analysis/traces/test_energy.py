"""Variance along directions, in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.traces.energy import compare_energy, direction, energy

D, SEEDS, PROMPTS = 40, 64, ["p", "q", "r", "s"]
DIMS = ("prompt", "seed", "step", "component")


def dataset(values: np.ndarray) -> xr.Dataset:
    """x̂₀ and one point, both the same."""
    coords = {"prompt": PROMPTS, "seed": np.arange(values.shape[1]), "sigma": ("step", [10.0, 1.0])}
    coords |= {"timestep": ("step", [999.0, 499.0]), "alpha_bar": ("step", [0.01, 0.5])}
    return xr.Dataset({"h": (DIMS, values), "x0": (DIMS, values)}, coords=coords)


@pytest.fixture(scope="module")
def unit():
    u = np.random.default_rng(0).normal(size=D)
    return u / np.linalg.norm(u)


def moved(unit) -> xr.Dataset:
    """An effect along ``unit`` with noise that the mean loses, five times as long in one step."""
    rng = np.random.default_rng(1)
    length = np.array([1.0, 5.0])[:, None]
    return dataset(length * (unit + 1e-3 * rng.normal(size=(len(PROMPTS), 8, 2, D))))


def samples(unit, along: float, rest: float, seed: int = 2) -> xr.Dataset:
    """Free samples with standard deviation ``along`` in the direction and ``rest`` in each of the
    others.
    """
    rng = np.random.default_rng(seed)
    x = rest * rng.normal(size=(len(PROMPTS), SEEDS, 2, D))
    x += ((along * rng.normal(size=x.shape[:-1]) - x @ unit)[..., None]) * unit
    return dataset(
        x + 100 * rng.normal(size=(len(PROMPTS), 1, 2, D))
    )  # prompts differ, which is not across seeds


def test_direction_is_the_unit_mean_effect(unit):
    found = direction(moved(unit))
    np.testing.assert_allclose(np.linalg.norm(found["x0"], axis=-1), 1)
    np.testing.assert_allclose(found["h"] @ xr.DataArray(unit, dims="component"), 1, atol=1e-4)


def test_direction_is_of_its_own_prompts_and_nan_where_nothing_moves(unit):
    effect = moved(unit)
    effect["x0"].loc[{"prompt": "q"}] *= -30  # would turn the mean round
    np.testing.assert_allclose(
        direction(effect, ["p", "r"])["x0"] @ xr.DataArray(unit, dims="component"), 1, atol=1e-4
    )
    assert np.isnan(direction(effect * 0)["x0"]).all()
    with pytest.raises(ValueError, match="none of the prompts"):
        direction(effect, ["z"])


def test_variance_along_is_what_was_put_there(unit):
    found = energy(samples(unit, along=2.0, rest=0.5), direction(moved(unit)))
    error = 4 * 0.5 * np.sqrt(2 / (SEEDS - 1) / len(PROMPTS))
    np.testing.assert_allclose(found["along"].mean("prompt"), 4, atol=4 * error)
    np.testing.assert_allclose(found["total"].mean("prompt"), 4 + 0.25 * (D - 1), rtol=0.15)
    np.testing.assert_allclose(found["share"], found["along"] / found["total"])


def test_values_by_seed_are_the_jackknifes(unit):
    free, along = samples(unit, along=2.0, rest=0.5), direction(moved(unit))
    found = energy(free, along)
    for name in ("along", "share"):
        np.testing.assert_allclose(found[f"{name}_by_seed"].mean("seed"), found[name])
    seed = 5
    without = energy(free.isel(seed=[i for i in range(SEEDS) if i != seed]), along)["along"]
    pseudo = SEEDS * found["along"] - (SEEDS - 1) * without
    np.testing.assert_allclose(found["along_by_seed"].isel(seed=seed), pseudo)


def test_even_variance_has_a_share_of_one_over_d(unit):
    found = energy(samples(unit, along=1.0, rest=1.0), direction(moved(unit)))
    assert float(found["share"].mean()) == pytest.approx(1 / D, rel=0.15)


def test_a_direction_that_is_less_used_is_told(unit):
    along = direction(moved(unit))
    base, student = (energy(samples(unit, a, 1.0, seed=s), along) for a, s in ((2.0, 2), (0.5, 3)))
    other = np.roll(unit, 1) - (np.roll(unit, 1) @ unit) * unit
    random = {
        "r": energy(
            samples(unit, 0.5, 1.0, seed=3), direction(moved(other / np.linalg.norm(other)))
        )
    }
    found = compare_energy(base, student, random).sel(point="x0")
    np.testing.assert_allclose(found["absolute"].sel(bound="estimate"), 1 / 16, rtol=0.4)
    assert (found["absolute"].sel(bound="high") < 1).all()
    assert (found["ratio"].sel(bound="high") < 1).all()
    shares = found.sel(bound="estimate")
    assert (shares["student"] < shares["random"]).all()
    assert (shares["random"] < shares["base"]).all()
    same = compare_energy(base, base, {})
    np.testing.assert_allclose(same["ratio"], 1)
    assert np.isnan(same["random"]).all()


def test_what_a_control_does_not_reach_stays_nan(unit):
    effect = moved(unit)
    effect = effect.assign(h=0 * effect["h"])
    measured = energy(samples(unit, 1.0, 1.0), direction(effect))
    found = compare_energy(measured, measured, {})
    assert np.isnan(found["ratio"].sel(point="h")).all()
    assert np.isfinite(found["ratio"].sel(point="x0")).all()


def test_refusals(unit):
    along, free = direction(moved(unit)), samples(unit, 1.0, 1.0)
    with pytest.raises(ValueError, match="at least 3"):
        energy(free.isel(seed=[0, 1]), along)
    with pytest.raises(ValueError, match="direction is of σ"):
        energy(free.assign_coords(sigma=("step", [5.0, 1.0])), along)
