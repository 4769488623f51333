"""Base against students, layer by layer: what must be 1 is 1, baselines are what they say, and
words follow numbers.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDIMScheduler

import xhat
from xhat.analysis.experiments.similarity import (
    Similarity,
    layers,
    measure_similarity,
    same_layers,
    sentences,
)
from xhat.analysis.intervals import bounded, format_interval
from xhat.analysis.result import Result
from xhat.analysis.sampling.untrained import untrained


@pytest.fixture(scope="module")
def found(tiny, tmp_path_factory):
    base, student = tiny.sd(0), tiny.sd(0)
    student.scheduler = DDIMScheduler.from_config(base.scheduler.config)
    for pipe, steps in ((base, 4), (student, 2)):
        xhat.set_defaults(pipe, num_inference_steps=steps, guidance_scale=1.0, height=16, width=16)
    pair = SimpleNamespace(name="twins", chosen="twin", base=base, students={"twin": student})
    out = tmp_path_factory.mktemp("similarity")
    config = Similarity(
        pair=pair, prompts=["a red face", "the planet"], seeds=range(6), hooks=["in", "h", "out"]
    )
    result = measure_similarity(config, cache=out)
    return result.data["similarity_map"], result, config, out


@pytest.mark.slow
def test_layers_are_in_the_order_of_the_network_and_no_more_than_asked(tiny):
    pipe = tiny.sd()
    named = layers(pipe)
    assert named[0] == "in"
    assert named[-1] == "out"
    assert named.index("h") < named.index("up.0")
    few = layers(pipe, 3)
    assert len(few) == 3
    assert few == [name for name in named if name in few]
    assert few[::2] == ["in", "out"]


@pytest.mark.slow
def test_equal_weights_at_equal_x_t_are_equally_represented(found):
    data = found[0]
    assert data["network"].values.tolist() == ["twin", "base_few", "untrained"]
    assert data["layer"].values.tolist() == ["in", "h", "out", "x_t"]
    assert data.sizes["level"] == 2
    first = data.isel(level=0)
    np.testing.assert_allclose(
        first["cka"].sel(network=["twin", "base_few"], bound="estimate"), 1, atol=1e-5
    )
    np.testing.assert_allclose(first["procrustes"].sel(network="twin"), 0, atol=2e-3)
    np.testing.assert_allclose(first["mutual_knn"].sel(network="twin"), 1)
    np.testing.assert_allclose(
        data["cka"].sel(network="twin"), data["cka"].sel(network="base_few"), atol=1e-5
    )


@pytest.mark.slow
def test_the_untrained_network_sees_the_same_input_and_makes_something_else_of_it(found):
    data = found[0]
    first = data.isel(level=0).sel(network="untrained")
    assert float(first["cka"].sel(layer="x_t", bound="estimate")) == pytest.approx(1, abs=1e-5)
    assert float(first["cka"].sel(layer="out", bound="estimate")) < 0.99


@pytest.mark.slow
def test_untrained_is_another_network_and_leaves_the_first_and_the_generator_alone(tiny):
    pipe = tiny.sd()
    xhat.set_defaults(pipe, num_inference_steps=2)
    before = {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    state = torch.random.get_rng_state()
    other, same = untrained(pipe), untrained(pipe)
    assert torch.equal(state, torch.random.get_rng_state())
    assert other.unet is not pipe.unet
    assert other.vae is pipe.vae
    assert xhat.defaults(other) == xhat.defaults(pipe)
    weights = other.unet.conv_in.weight
    assert torch.equal(weights, same.unet.conv_in.weight)
    assert not torch.equal(weights, pipe.unet.conv_in.weight)
    assert all(torch.equal(v, pipe.unet.state_dict()[k]) for k, v in before.items())


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_was(found):
    _, result, config, out = found
    assert measure_similarity(config, cache=out).identical(result)


@pytest.mark.slow
def test_the_result_is_saved_and_read_and_says_the_means(found, tmp_path):
    data, result, _, _ = found
    assert Result.load(result.save(tmp_path)).identical(result)
    row = result.table.rows[0]
    inside = data["cka"].sel(network="twin", layer=["in", "h", "out"], bound="estimate")
    assert row[0] == "twin"
    np.testing.assert_allclose(row[1:], inside.mean("layer"))


@pytest.mark.slow
def test_a_student_that_is_not_there_is_refused(found):
    config = dataclasses.replace(found[2], students=["dmd"])
    with pytest.raises(ValueError, match="no student 'dmd': it has twin"):
        measure_similarity(config, cache=found[3])


@pytest.mark.slow
def test_networks_read_at_other_points_are_refused(tiny):
    import xhat

    call = {
        "seeds": range(4),
        "num_inference_steps": 2,
        "height": 16,
        "width": 16,
        "progress": False,
    }
    a, b = (
        xhat.trace(tiny.sd(), ["a face", "a moon"], hooks={h: "gram"}, **call) for h in ("h", "in")
    )
    with pytest.raises(ValueError, match="same points"):
        same_layers(a, b)


def test_sentences_name_the_cell_that_differs_most():
    cka = np.full((3, 2, 3), 0.9)
    cka[0, 1, 1], cka[2] = 0.2, 0.1
    dims = ("network", "level", "layer")
    coords = {
        "network": ["dmd", "base_few", "untrained"],
        "level": [14.0, 0.7],
        "layer": ["in", "h", "x_t"],
    }
    values = {"p_map": np.where(cka < 0.5, 0.6, 0.01), "procrustes": 1 - cka, "mutual_knn": cka}
    data = xr.Dataset({k: (dims, v) for k, v in values.items()}, coords)
    data["cka"] = bounded(cka, cka - 0.05, cka + 0.05, level=0.95, method="by hand", dims=dims)
    text = "\n".join(sentences(data))
    one, few = (data["cka"].sel(network=n, layer="h", level=0.7) for n in ("dmd", "base_few"))
    both = f"{format_interval(one)} against {format_interval(few)}"
    assert f"at h, σ = 0.7: {both}, a cell that was picked for it" in text
    assert "1 of 4 cells cannot be told" in text
    assert "Spearman -1.00 and 1.00" in text
    assert "as few steps, guidance 1, 0.90, an untrained network 0.10" in text
