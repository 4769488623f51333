"""``xhat.trace`` and ``xhat.Tracer``: what is in a trace, and what is refused."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import xhat
from xhat.hooks import run as run_module
from xhat.hooks.store.grams import streamed_gram
from xhat.hooks.store.tiles import Tile, Tiling

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array", "ignore:.*outdated", "ignore:.*The configuration file"
)
PROMPTS = ["a red planet", "a face"]
NAMES = ["sd", "sdxl", "sd3", "pixart", "flux", "aura"]


def trace(pipe, tiny, name="sd", prompts=PROMPTS, seeds=range(3), **kwargs):
    arguments = {"num_inference_steps": 3, "progress": False} | tiny.call_arguments(name) | kwargs
    return xhat.trace(pipe, prompts, seeds=seeds, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_contract(tiny, name):
    found = trace(tiny.build(name), tiny, name, hooks={"**": "mean"})
    channels = 16 if name == "sd3" else 4
    for variable in ("pred_x0", "latents", "model_output"):
        assert found[variable].dims == ("prompt", "seed", "step", "channel", "y", "x")
        assert found[variable].shape == (2, 3, 3, channels, 8, 8)
    assert found["final"].dims == ("prompt", "seed", "channel", "y", "x")
    assert found["images"].dims == ("prompt", "seed", "row", "col", "rgb")
    assert found["images"].dtype == np.uint8
    assert found["prompt"].values.tolist() == PROMPTS
    assert found["seed"].values.tolist() == [0, 1, 2]
    assert {"timestep", "sigma", "alpha_bar", "call"} <= set(found.coords)
    assert found.sel(prompt="a face", seed=1)["pred_x0"].shape == (3, channels, 8, 8)
    node = next(iter(found["activations"].children.values()))
    guided = (
        () if name == "flux" else ("branch",)
    )  # flux has its guidance distilled into one evaluation
    assert node["value"].dims == ("prompt", "seed", "step", *guided, "feature")
    assert node.attrs["reduction"] == "mean"
    assert not guided or node["branch"].values.tolist() == ["uncond", "cond"]
    np.testing.assert_allclose(found["alpha_bar"], 1 / (1 + found["sigma"] ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_the_plain_call_with_its_generator(tiny, name):
    """Of the same batch, the very bits; of another batch, the same picture up to the arithmetic of
    its size.
    """
    pipe = tiny.build(name)
    found = trace(pipe, tiny, name, batch_size=6)
    kwargs = {"num_inference_steps": 3, "output_type": "np"} | tiny.call_arguments(name)
    made = [torch.Generator().manual_seed(s) for _ in PROMPTS for s in range(3)]
    plain = pipe(PROMPTS, num_images_per_prompt=3, generator=made, **kwargs).images
    assert np.array_equal(
        (plain * 255).round().astype(np.uint8).reshape(found["images"].shape), found["images"]
    )
    alone = pipe("a face", generator=torch.Generator().manual_seed(1), **kwargs).images[0]
    assert np.abs(found["images"].values[1, 1] / 255 - alone).max() < 3 / 255


@pytest.mark.slow
def test_a_seed_is_the_same_noise_whatever_the_batch(tiny):
    pipe = tiny.sd(scheduler=diffusers.LCMScheduler(original_inference_steps=4))
    whole = trace(pipe, tiny, batch_size=6, num_inference_steps=4)
    single = trace(pipe, tiny, batch_size=1, num_inference_steps=4)
    some = trace(pipe, tiny, seeds=[2, 0], prompts=["a face"], num_inference_steps=4)
    assert np.array_equal(whole["latents"][:, :, 0], single["latents"][:, :, 0])
    assert np.array_equal(whole["noise"], single["noise"])
    assert np.array_equal(whole["noise"].sel(prompt=["a face"], seed=[2, 0]), some["noise"])
    np.testing.assert_allclose(whole["final"], single["final"], rtol=1e-3, atol=1e-3)
    assert np.array_equal(
        whole["latents"][0, :, 0], whole["latents"][1, :, 0]
    )  # every prompt starts alike


@pytest.mark.slow
def test_defaults_are_the_checkpoints_own(tiny):
    pipe = tiny.sd(scheduler=diffusers.LCMScheduler(original_inference_steps=4))
    xhat.set_defaults(pipe, num_inference_steps=4, guidance_scale=1.0, timesteps=None)
    found = xhat.trace(pipe, "a", seeds=[0], hooks=["h"], progress=False)
    assert found["timestep"].values.tolist() == [999, 749, 499, 249]
    assert "branch" not in found["activations/h"].dims
    given = xhat.trace(
        pipe, "a", seeds=[0], num_inference_steps=2, guidance_scale=3.0, hooks=["h"], progress=False
    )
    assert given.sizes["step"] == 2
    assert "branch" in given["activations/h"].dims
    xhat.set_defaults(pipe, timesteps=[999, 499], num_inference_steps=2)
    assert xhat.trace(pipe, "a", seeds=[0], progress=False)["timestep"].values.tolist() == [
        999,
        499,
    ]
    given = xhat.trace(pipe, "a", seeds=[0], num_inference_steps=4, progress=False)
    assert given.sizes["step"] == 4  # a schedule is given as a whole


def test_every_keyword_of_the_pipeline_passes(tiny):
    pipe = tiny.sd()
    calls = []
    trace(
        pipe,
        tiny,
        eta=1.0,
        callback_on_step_end=lambda p, i, t, k: calls.append(i) or k,
        batch_size=6,
    )
    assert calls == [0, 1, 2]
    assert "noise" in trace(pipe, tiny, eta=1.0)
    assert "noise" not in trace(pipe, tiny)


@pytest.mark.slow
def test_negative_prompts_one_for_all_or_one_a_prompt(tiny):
    pipe = tiny.sd()
    both = trace(pipe, tiny, negative_prompt="blue", batch_size=1)
    each = trace(pipe, tiny, negative_prompt=["blue", "green"], batch_size=1)
    plain = trace(pipe, tiny, batch_size=1)
    np.testing.assert_allclose(both["final"][0], each["final"][0], rtol=1e-5, atol=1e-5)
    assert not np.allclose(both["final"][1], each["final"][1])
    assert not np.allclose(both["final"], plain["final"])
    with pytest.raises(ValueError, match="negative_prompt has 3 entries for 2 prompts"):
        trace(pipe, tiny, negative_prompt=["a", "b", "c"])


def test_latents_alone(tiny):
    assert "images" not in trace(tiny.sd(), tiny, output_type="latent")


def test_reductions_and_readings(tiny):
    hooks = {
        "in": xhat.pool(2),
        "h": xhat.project(8),
        "mid.attn.0.cross@probs": "mean",
        "mid.res.0@delta": "full",
    }
    found = trace(tiny.sd(), tiny, hooks=hooks)["activations"]
    dims = {name: node["value"].dims[4:] for name, node in found.children.items()}
    assert dims == {
        "in": ("feature", "h", "w"),
        "h": ("component",),
        "mid.attn.0.cross@probs": ("head", "key"),
        "mid.res.0@delta": ("feature", "h", "w"),
    }


@pytest.mark.parametrize("batch_size", [2, 6])
def test_grams_are_those_of_the_full_activations(tiny, batch_size):
    pipe = tiny.sd()
    whole = trace(pipe, tiny, hooks={"h": "full", "in": "mean"}, batch_size=batch_size)[
        "activations"
    ]
    grams = trace(pipe, tiny, hooks={"h": "gram", "in": "gram(mean)"}, batch_size=batch_size)[
        "activations"
    ]
    for name in ("h", "in"):
        assert grams[name]["value"].dims == ("step", "branch", "sample", "sample_other")
        for step in range(3):
            x = whole[name]["value"].values[:, :, step, 1].reshape(6, -1).astype(np.float64)
            x = x - x.mean(0)
            np.testing.assert_allclose(
                grams[name]["value"][step, 1], x @ x.T, rtol=1e-10, atol=1e-12
            )


def test_a_common_offset_costs_the_gram_no_digits():
    x = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    near, far = (
        streamed_gram(lambda c, o=o: (x + o)[:, c], 50, 7) for o in (np.float64(0), np.float64(1e6))
    )
    np.testing.assert_allclose(near, far, rtol=1e-6)


def test_attributes_say_where_it_came_from(tiny):
    pipe = tiny.sd()
    attrs = trace(pipe, tiny, guidance_scale=2.5, hooks=["h"]).attrs
    assert attrs["pipeline"] == "StableDiffusionPipeline"
    assert attrs["scheduler"] == "DDIMScheduler"
    assert json.loads(attrs["scheduler_config"])["timestep_spacing"] == "trailing"
    assert json.loads(attrs["call"])["guidance_scale"] == 2.5
    assert json.loads(attrs["hooks"]) == {"h": "mean"}
    assert json.loads(attrs["versions"])["diffusers"] == diffusers.__version__
    assert attrs["space"] == "vp"
    assert len(attrs["weights"]) == 64
    again, other = (
        trace(tiny.sd(), tiny, seeds=[0]).attrs,
        trace(tiny.sd(seed=1), tiny, seeds=[0]).attrs,
    )
    assert attrs["weights"] == again["weights"] != other["weights"]


def test_adapters_and_their_scales_are_noted(tiny):
    from peft import LoraConfig

    pipe = tiny.sd()
    assert trace(pipe, tiny, seeds=[0]).attrs["adapters"] == "{}"
    pipe.unet.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"]), adapter_name="slider"
    )
    pipe.unet.set_adapters(["slider"], weights=[0.5])
    assert json.loads(trace(pipe, tiny, seeds=[0]).attrs["adapters"]) == {"slider": [0.5]}


def test_segments_are_a_coordinate(tiny):
    pipe = tiny.sd()
    pipe.scheduler.segment_of_step = ["base", "student", "student"]
    assert trace(pipe, tiny)["segment"].values.tolist() == ["base", "student", "student"]


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1, 2, 1]}, r"seeds that repeat: \[1\]"),
        ({"seeds": []}, r"seeds=\[\]: expected 1 to 1000000 whole numbers"),
        ({"seeds": [-1]}, r"seeds=\[-1\]: expected 1 to 1000000 whole numbers from 0"),
        ({"seeds": 3}, "seeds=3: expected 1 to 1000000 whole numbers"),
        ({"prompts": []}, "expected a text, or a list"),
        ({"prompts": ["a\0"]}, "ends in a NUL character"),
        ({"prompts": [1]}, "expected a text, or a list"),
        ({"prompts": ["a", "a"]}, r"prompts that repeat: \['a'\]"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"hooks": ["hh"]}, "no hook point is named 'hh'; nearest: h"),
        ({"generator": None}, "generator: set by the trace itself"),
        ({"guidence_scale": 3}, "takes no guidence_scale; nearest: guidance_scale"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(tiny, tmp_path, change, message):
    store = tmp_path / "run.zarr"
    with pytest.raises(ValueError, match=message):
        trace(tiny.sd(), tiny, store=store, **change)
    assert not list(tmp_path.iterdir())


def test_nan_is_named_with_its_step_and_point(tiny, tmp_path):
    pipe = tiny.sd()
    calls = []

    def poison(module, args, out):
        calls.append(1)
        return out * float("nan") if len(calls) == 2 else None

    pipe.unet.mid_block.register_forward_hook(poison)
    with pytest.raises(
        ValueError, match=r"'h' is not finite at step 1 \(timestep 666\) in 3 of 3 samples"
    ):
        trace(pipe, tiny, hooks=["in", "h"], prompts="a", store=tmp_path / "x.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nan_in_latents_is_named_too(tiny):
    pipe = tiny.sd()
    nn.init.constant_(pipe.unet.conv_out.bias, float("inf"))
    with pytest.raises(ValueError, match="'model_output' is not finite at step 0 .* in 6 of 6"):
        trace(pipe, tiny)


def test_overflow_of_a_reduction_is_named(tiny):
    pipe = tiny.sd()
    nn.init.constant_(pipe.unet.conv_in.bias, 1e6)
    with pytest.raises(ValueError, match="'in' is not finite .* keep it with dtype=float32"):
        trace(pipe, tiny, hooks={"in": "mean(dtype=float16)"})


@pytest.mark.slow
def test_what_never_fired_is_reported(tiny):
    pipe = tiny.sd()
    pipe.unet.idle = nn.Identity()
    with pytest.warns(UserWarning, match="never fired: idle"):
        found = trace(pipe, tiny, hooks=["h", "idle"])
    assert list(found["activations"].children) == ["h"]


def test_one_of_several_processes_of_a_launcher_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE=2: .*--workers N"):
        trace(tiny.sd(), tiny, store=tmp_path / "a.zarr")


def test_batches_of_different_schedules_are_refused(tiny):
    pipe = tiny.sd()
    original, calls = pipe.scheduler.set_timesteps, []

    def drifting(steps, device=None):
        calls.append(1)
        original(steps + len(calls), device=device)

    pipe.scheduler.set_timesteps = drifting
    with pytest.raises(ValueError, match="differs from the first in shape or schedule"):
        trace(pipe, tiny, batch_size=2)


# Memory


class Hungry(nn.Module):
    """Has room for so many rows."""

    def __init__(self, unet, rows):
        super().__init__()
        self.inner, self.rows, self.seen = unet, rows, []
        self.config, self.add_embedding = unet.config, None

    dtype = property(lambda self: self.inner.dtype)
    device = property(lambda self: self.inner.device)

    def forward(self, x, *args, **kwargs):
        self.seen.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("out of memory: tried to allocate 2 GiB")
        return self.inner(x, *args, **kwargs)


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_says_so(tiny):
    pipe = tiny.sd()
    whole = trace(pipe, tiny, seeds=range(6), batch_size=6, guidance_scale=1.0)
    pipe.unet = Hungry(pipe.unet, rows=2)
    with pytest.warns(UserWarning, match="out of memory with 6 samples: going on with 3 at a time"):
        found = trace(pipe, tiny, seeds=range(6), batch_size=6, guidance_scale=1.0)
    np.testing.assert_allclose(found["final"], whole["final"], rtol=1e-3, atol=1e-3)
    assert np.array_equal(found["latents"][:, :, 0], whole["latents"][:, :, 0])
    assert max(pipe.unet.seen[4:]) == 2  # it is not tried again


def test_out_of_memory_for_one_sample_is_an_error(tiny):
    pipe = tiny.sd()
    pipe.unet = Hungry(pipe.unet, rows=0)
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="out of memory"):
        trace(pipe, tiny)


@pytest.mark.parametrize(
    ("prompts", "seeds", "batch"), [(1, 1, 1), (3, 7, 4), (5, 4, 16), (2, 100, 16), (7, 2, 5)]
)
def test_tiles_cover_every_sample_once_and_fit_the_batch(prompts, seeds, batch):
    tiling = Tiling.of(prompts, seeds, batch)
    covered = [
        (p, s) for index in tiling for p in tiling[index].prompts for s in tiling[index].seeds
    ]
    assert sorted(covered) == [(p, s) for p in range(prompts) for s in range(seeds)]
    assert max(len(tiling[index]) for index in tiling) <= batch


def test_halves_of_a_tile_follow_each_other():
    tile = Tile(range(2, 5), range(1, 4))
    a, b = tile.halves()
    assert [*a.prompts, *b.prompts] == [2, 3, 4]
    assert a.seeds == b.seeds == tile.seeds
    a, b = Tile(range(1), range(5)).halves()
    assert [*a.seeds, *b.seeds] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_announcement_is_near_the_truth(tiny, tmp_path, caplog):
    pipe = tiny.sd()
    found = trace(
        pipe, tiny, hooks={"h": "full", "in": "mean"}, store=tmp_path / "a.zarr", progress=True
    )
    text = caplog.text
    assert "tracing 2 prompts × 3 seeds × 3 steps, 2 readings: up to" in text
    size = (
        sum(a.nbytes for node in found.subtree for a in node.data_vars.values())
        - found["images"].nbytes
    )
    run = run_module.prepare(
        pipe, PROMPTS, range(3), {"h": "full", "in": "mean"}, (), 8, {"num_inference_steps": 3}
    )
    seen = run_module.rehearse(pipe, [s.point for s in run.selections], num_inference_steps=3)
    assert seen.bytes_of(run.selections) * 6 == size


# Tracer


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tracer_around_an_ordinary_call(tiny, name):
    pipe = tiny.build(name)
    kwargs = {"num_inference_steps": 3, "output_type": "np"} | tiny.call_arguments(name)
    plain = pipe(PROMPTS, generator=torch.Generator().manual_seed(0), **kwargs).images
    with xhat.Tracer(pipe, hooks=["in"]) as tracer:
        traced = pipe(PROMPTS, generator=torch.Generator().manual_seed(0), **kwargs).images
    assert np.array_equal(plain, traced)
    assert tracer.trace["pred_x0"].dims == ("sample", "step", "channel", "y", "x")
    assert tracer.trace["activations/in/value"].dims[:2] == ("sample", "step")
    assert tracer.trace.sizes["sample"] == 2


@pytest.mark.slow
def test_tracer_agrees_with_trace(tiny):
    pipe = tiny.sd()
    whole = trace(pipe, tiny, hooks=["h"], batch_size=6)
    with xhat.Tracer(pipe, hooks=["h"]) as tracer:
        made = [torch.Generator().manual_seed(s) for _ in PROMPTS for s in range(3)]
        pipe(
            PROMPTS,
            num_images_per_prompt=3,
            generator=made,
            num_inference_steps=3,
            height=16,
            width=16,
        )
    assert np.array_equal(
        tracer.trace["pred_x0"].values.reshape(whole["pred_x0"].shape), whole["pred_x0"]
    )
    found = tracer.trace["activations/h/value"].values
    assert np.array_equal(
        found.reshape(whole["activations/h/value"].shape), whole["activations/h/value"]
    )


@pytest.mark.slow
def test_calls_follow_each_other(tiny):
    pipe = tiny.sd()
    with xhat.Tracer(pipe) as tracer:
        pipe("a", num_inference_steps=2)
        assert tracer.trace.sizes["sample"] == 1
        pipe(PROMPTS, num_inference_steps=2)
    assert tracer.trace.sizes["sample"] == 3
    with xhat.Tracer(pipe) as tracer:
        pipe("a", num_inference_steps=2)
        pipe("a", num_inference_steps=3)
    with pytest.raises(ValueError, match="the calls differ in schedule or shape"):
        _ = tracer.trace


def test_a_tracer_that_heard_nothing_says_so(tiny):
    with pytest.warns(UserWarning, match="nothing was traced"), xhat.Tracer(tiny.sd()) as tracer:
        pass
    with pytest.raises(ValueError, match="nothing was traced yet"):
        _ = tracer.trace


@pytest.mark.slow
def test_tracer_writes_to_its_store(tiny, tmp_path):
    pipe = tiny.sd()
    with xhat.Tracer(pipe, hooks={"h": "gram", "in": "mean"}, store=tmp_path / "t.zarr") as tracer:
        pipe(PROMPTS, num_inference_steps=2)
    xr.testing.assert_identical(xhat.open_trace(tmp_path / "t.zarr").load(), tracer.trace)
    with (
        pytest.raises(ValueError, match="holds a trace already"),
        xhat.Tracer(pipe, store=tmp_path / "t.zarr"),
    ):
        pipe("a", num_inference_steps=1)
