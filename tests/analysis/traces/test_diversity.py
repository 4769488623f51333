"""Diversity of a trace: against a loop over its cells, and how two arms differ."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.measures.by_seed import entropy_by_seed, vendi_q2_by_seed
from xhat.analysis.measures.diversity import (
    attribute_entropy,
    mean_pairwise_distance,
    paired_difference,
    similarities,
    vendi,
)
from xhat.analysis.traces.diversity import diversity_by_noise, final_diversity

P, S, T = 3, 5, 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def trace(rng):
    dims = ("prompt", "seed", "step", "channel", "y", "x")
    x0 = rng.normal(size=(P, S, T, 2, 3, 3)).astype(np.float32)
    sigma = np.geomspace(10, 0.1, T)
    coords = {
        "prompt": ["a cat", "a dog", "a fox"],
        "seed": np.arange(S),
        "sigma": ("step", sigma),
        "alpha_bar": ("step", 1 / (1 + sigma**2)),
        "timestep": ("step", np.arange(T)[::-1]),
        "segment": ("step", ["base", "base", "student", "student"]),
    }
    final = ("prompt", "seed", "channel", "y", "x")
    return xr.DataTree(xr.Dataset({"pred_x0": (dims, x0), "final": (final, x0[:, :, -1])}, coords))


def read_labels(latents, prompt):
    sign = (latents[:, 0, 0, 0] > 0).astype(int)
    return {"sign": (sign, 2), "constant": (np.zeros(len(latents), int), 3)}


def test_diversity_by_noise_is_each_measure_of_each_cell(trace):
    found = diversity_by_noise(trace, labels=read_labels)
    for p in range(P):
        for t in range(T):
            latents = trace["pred_x0"].values[p, :, t]
            x, cell = latents.reshape(S, -1), found.isel(prompt=p, step=t)
            assert float(cell["vendi_q1"]) == pytest.approx(vendi(x))
            assert float(cell["vendi_q2_plugin"]) == pytest.approx(vendi(x, q=2))
            by_seed = vendi_q2_by_seed(similarities(x))
            np.testing.assert_allclose(cell["vendi_q2_by_seed"], by_seed)
            assert float(cell["vendi_q2"]) == pytest.approx(by_seed.mean())
            assert float(cell["mean_pairwise_distance"]) == pytest.approx(mean_pairwise_distance(x))
            assert float(cell["rms"]) == pytest.approx(np.sqrt((x.astype(float) ** 2).mean()))
            signs = (latents[:, 0, 0, 0] > 0).astype(int)
            plug_in = attribute_entropy(signs, 2) / 2
            assert float(cell["attribute_entropy_plugin"]) == pytest.approx(plug_in)
            jackknifed = entropy_by_seed(signs, 2).mean() / 2
            assert float(cell["attribute_entropy"]) == pytest.approx(jackknifed)


def test_diversity_by_noise_carries_coordinates_intervals_and_how_they_were_made(trace):
    found = diversity_by_noise(trace, level=0.9)
    assert found["vendi_q2"].dims == ("prompt", "step")
    assert "attribute_entropy" not in found
    for name in ("timestep", "sigma", "alpha_bar", "segment"):
        assert (found[name] == trace[name]).all()
    by_seed = found["vendi_q2_by_seed"].transpose("prompt", "seed", "step")
    interval = crossed_mean(by_seed.values, level=0.9)
    mean = found["vendi_q2_mean"]
    np.testing.assert_allclose(mean.sel(bound=["low", "high"]).T, interval.bounds())
    np.testing.assert_allclose(mean.sel(bound="estimate"), found["vendi_q2"].mean("prompt"))
    assert mean.attrs["level"] == 0.9
    assert mean.attrs["seeds"] == S
    assert {"method", "prompts"} <= set(mean.attrs)
    assert found.attrs["features"] == "latents"
    assert found["vendi_q2"].attrs["n_seeds"] == S


def test_features_are_what_is_measured_and_are_given_float32_latents(trace):
    shapes = set()

    def features(latents):
        shapes.add((latents.shape, latents.dtype))
        return np.eye(len(latents))

    found = diversity_by_noise(trace, features=features)
    assert shapes == {((S, 2, 3, 3), np.dtype(np.float32))}
    np.testing.assert_allclose(found["vendi_q1"], S)
    np.testing.assert_allclose(found["mean_pairwise_distance"], 1)
    assert "features" in found.attrs["features"]


def test_scale_of_the_latents_moves_rms_alone(trace):
    doubled = trace.copy()
    doubled["pred_x0"] = trace["pred_x0"] * 2
    a, b = diversity_by_noise(trace), diversity_by_noise(doubled)
    np.testing.assert_allclose(b["rms"], 2 * a["rms"])
    np.testing.assert_allclose(b["mean_pairwise_distance"], a["mean_pairwise_distance"])


def test_final_diversity_is_that_of_the_last_step_where_final_is(trace):
    last, final = (
        diversity_by_noise(trace, labels=read_labels).isel(step=-1),
        final_diversity(trace, labels=read_labels),
    )
    assert final["vendi_q2"].dims == ("prompt",)
    assert final["vendi_q2_mean"].dims == ("bound",)
    for name in final.data_vars:
        np.testing.assert_allclose(final[name], last[name])


def test_a_trace_in_any_order_of_dimensions_gives_the_same(trace):
    turned = trace.copy()
    turned["pred_x0"] = trace["pred_x0"].transpose("step", "seed", ..., "prompt")
    xr.testing.assert_allclose(diversity_by_noise(turned), diversity_by_noise(trace))


def test_one_prompt_has_no_interval(trace):
    found = diversity_by_noise(trace.isel(prompt=[0]))
    assert np.isfinite(found["vendi_q2_mean"].sel(bound="estimate")).all()
    assert np.isnan(found["vendi_q2_mean"].sel(bound="low")).all()


def test_traces_refused(trace):
    with pytest.raises(ValueError, match="'pred_x0'"):
        diversity_by_noise(trace.to_dataset().drop_vars("pred_x0"))
    with pytest.raises(ValueError, match="at least 3, got 2"):
        final_diversity(trace.isel(seed=[0, 1]))
    with pytest.raises(ValueError, match="no attribute open"):
        final_diversity(trace, labels=lambda x, p: {})
    spoiled = trace.to_dataset().copy(deep=True)
    spoiled["pred_x0"][1, 0, 2] = np.nan
    with pytest.raises(ValueError, match="'a dog', step 2 hold NaN"):
        diversity_by_noise(spoiled)


def test_paired_difference_is_b_less_a_and_narrower_than_its_parts(trace, rng):
    a = final_diversity(trace)["vendi_q2"]
    b = a + 1
    found = paired_difference(a, b)
    np.testing.assert_allclose([found["low"], found["mean"], found["high"]], 1)
    steps = diversity_by_noise(trace)["vendi_q2"]
    noisy = steps + rng.normal(size=steps.shape)
    found = paired_difference(steps, noisy.transpose("step", "prompt"))
    assert found["mean"].dims == ("step",)
    np.testing.assert_allclose(found["mean"], (noisy - steps).mean("prompt"))
    assert ((found["low"] <= found["mean"]) & (found["mean"] <= found["high"])).all()


def test_paired_difference_refuses_what_is_no_pair(trace):
    a = final_diversity(trace)["vendi_q2"]
    fewer = final_diversity(trace.isel(seed=slice(3)))["vendi_q2"]
    for other, says in [
        (a[::-1], "different prompts"),
        (a[:2], "different prompts"),
        (fewer, "equally many"),
    ]:
        with pytest.raises(ValueError, match=says):
            paired_difference(a, other)
    with pytest.raises(ValueError, match="prompt dimension"):
        paired_difference(a.mean("prompt"), a)


def test_differences_at_equal_noise_are_paired_and_read_between_steps():
    """Of a reference that is straight in log σ, one that is 0.5 above it is so at every level."""
    from xhat.analysis.traces.curves import less_reference

    rng = np.random.default_rng(0)
    each = rng.normal(size=(3, 4, 1))  # what prompts and seeds add falls out of the pairs

    def curve(sigma, shift):
        values = each + shift - np.log(sigma)
        arrays = {
            "vendi_q2": (("prompt", "step"), values.mean(1)),
            "vendi_q2_by_seed": (("prompt", "seed", "step"), values),
        }
        return xr.Dataset(arrays, {"sigma": ("step", np.array(sigma))})

    reference = curve([16.0, 4.0, 1.0, 0.25], 0.0)
    found = less_reference(curve([16.0, 2.0, 0.7], 0.5), reference)["vendi_q2_less_mean"]
    np.testing.assert_allclose(found, 0.5)
    np.testing.assert_allclose(less_reference(reference, reference)["vendi_q2_less_mean"], 0)
