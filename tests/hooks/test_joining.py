"""Traces joined, saved and asked: what is joined is what one call would have given."""

import numpy as np
import pytest
import xarray as xr

import xhat


@pytest.fixture(scope="module")
def pipe(tiny):
    pipe = tiny.sd(seed=0)
    xhat.set_defaults(pipe, num_inference_steps=2, guidance_scale=1.0, height=16, width=16)
    return pipe


def traced(pipe, prompts=("a red face", "a planet"), seeds=(0, 1), **options):
    options = {"hooks": {"h": "mean"}, "batch_size": 1, "progress": False} | options
    return xhat.trace(pipe, list(prompts), seeds=list(seeds), **options)


@pytest.mark.parametrize("dim", ["seed", "prompt"])
def test_parts_joined_are_the_whole(pipe, dim):
    whole = traced(pipe)
    parts = {
        "seed": [traced(pipe, seeds=[0]), traced(pipe, seeds=[1])],
        "prompt": [traced(pipe, ["a red face"]), traced(pipe, ["a planet"])],
    }[dim]
    joined = xhat.concat(parts, dim)
    for name in ("pred_x0", "final", "images", "activations/h/value"):
        xr.testing.assert_equal(
            joined[name].transpose(*whole[name].dims).drop_vars("call", errors="ignore"),
            whole[name].drop_vars("call", errors="ignore"),
        )
    assert "checksum" not in joined.attrs


def test_a_joined_trace_is_saved_and_opened(pipe, tmp_path):
    joined = xhat.concat([traced(pipe, seeds=[0]), traced(pipe, seeds=[1])])
    xhat.save_trace(joined, tmp_path / "both.zarr")
    opened = xhat.open_trace(tmp_path / "both.zarr")
    np.testing.assert_array_equal(opened["pred_x0"].values, joined["pred_x0"].values)
    with pytest.raises(ValueError, match="holds a trace already"):
        xhat.save_trace(joined, tmp_path / "both.zarr")


def test_traces_of_other_runs_are_refused_by_what_differs(pipe, tiny):
    first = traced(pipe)
    other = tiny.sd(seed=1)
    xhat.set_defaults(other, num_inference_steps=2, guidance_scale=1.0, height=16, width=16)
    for second, said in (
        (traced(other, seeds=[2]), "not of one run: weights is"),
        (traced(pipe, seeds=[2], num_inference_steps=3), "not of one run: call is"),
        (traced(pipe, ["a house", "a tree"], [2]), "they differ in prompt"),
        (traced(pipe, seeds=[2], hooks={}), "only one of them has activations/h/value"),
        (traced(pipe, seeds=[1]), "seed .*1.* is in more than one trace"),
    ):
        with pytest.raises(ValueError, match=said):
            xhat.concat([first, second])


def test_grams_and_other_dimensions_are_refused(pipe):
    parts = [traced(pipe, seeds=[0, 1], hooks={"h": "gram"}, batch_size=2) for _ in range(2)]
    with pytest.raises(ValueError, match="cannot be joined"):
        xhat.concat(parts)
    with pytest.raises(ValueError, match="did you mean 'prompt'"):
        xhat.concat(parts, "promt")
    with pytest.raises(ValueError, match="no traces to join"):
        xhat.concat([])


def test_the_accessor_finds_the_nearest_noise_level_and_the_pictures(pipe):
    tree = traced(pipe)
    sigma = tree["sigma"].values
    for level in sigma:
        assert float(tree.xhat.at(level * 1.01)["sigma"]) == level
    assert "step" not in tree.xhat.at(sigma[0]).dims
    xr.testing.assert_equal(tree.xhat.images(), tree["images"])
    assert tree.xhat.images(pipe).dims == ("prompt", "seed", "step", "row", "col", "rgb")
    with pytest.raises(ValueError, match="above zero"):
        tree.xhat.at(-1.0)
    latent = traced(pipe, output_type="latent")
    with pytest.raises(ValueError, match="no finished pictures"):
        latent.xhat.images()


def test_decoded_final_latents_are_the_finished_pictures(pipe):
    tree = traced(pipe)
    gap = xhat.decode(tree["final"], pipe).astype(int) - tree["images"].astype(int)
    assert int(np.abs(gap.values).max()) <= 1
    with pytest.raises(ValueError, match="expected latents"):
        xhat.decode(tree["images"], pipe)


def test_the_accessors_curve_is_that_of_the_analysis(pipe):
    from xhat.analysis.traces.diversity import diversity_by_noise

    tree = traced(pipe, seeds=range(4))
    xr.testing.assert_equal(tree.xhat.curve("vendi_q2"), diversity_by_noise(tree)["vendi_q2_mean"])
    with pytest.raises(ValueError, match="did you mean 'vendi_q2'"):
        tree.xhat.curve("vendi_2")
    with pytest.raises(ValueError, match="cannot be told of these features"):
        tree.xhat.curve("attribute_entropy")
