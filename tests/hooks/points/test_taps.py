"""A traced call is the untraced one, to the bit; and what the taps hear is what was there."""

from __future__ import annotations

import gc

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from xhat.hooks.edits.edit import scale
from xhat.hooks.edits.patch import Patch
from xhat.hooks.noise import levels as noise
from xhat.hooks.points.names import denoiser_of
from xhat.hooks.points.reductions import full, mean
from xhat.hooks.points.select import select
from xhat.hooks.points.taps import listening, quiet
from xhat.hooks.record.recorder import Recorder, unpacked

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # of diffusers: settings of old schedulers, numpy 2

NAMES = ["sd", "sdxl", "sd3", "pixart", "flux", "aura"]
EVERYTHING = {"**": "mean", "**@probs": "mean", "**.ff@input": "mean", "mid.res.*@delta": "full"}
OF_A_TRANSFORMER = {k: v for k, v in EVERYTHING.items() if not k.startswith("mid")}


def generators(count=2):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def call(pipe, tiny, name="sd", prompts=("a red planet", "a face"), steps=3, **kwargs):
    arguments = (
        {"generator": generators(len(prompts)), "output_type": "np"}
        | tiny.call_arguments(name)
        | kwargs
    )
    return pipe(list(prompts), num_inference_steps=steps, **arguments).images


def recorded(pipe, tiny, hooks=(), **kwargs):
    with Recorder(pipe, hooks) as recorder:
        call(pipe, tiny, **kwargs)
        (record,) = recorder.take()
    return record, record.readings(recorder.selections)


def test_a_reading_is_copied_once(tiny):
    """What every step reads lies side by side from the start: the array over the steps is that
    memory itself.
    """
    record, readings = recorded(tiny.sd(), tiny, {"h": "full", "up.0": "mean"}, guidance_scale=3.0)
    for i, reading in enumerate(readings.values()):
        assert np.shares_memory(record.shelves[i].numpy(), reading.array.data)
        for step in range(3):
            (fired,) = record.steps[step].firings[i]
            both = fired.value.unflatten(0, (2, -1)).transpose(0, 1).numpy()  # (sample, branch, …)
            np.testing.assert_array_equal(reading.array.data[:, step], both)


def footprint(pipe):
    """All that a tap could leave: attributes of scheduler and denoiser, and hooks of every
    module.
    """
    denoiser = denoiser_of(pipe)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in denoiser.modules()]
    return set(vars(pipe.scheduler)), set(vars(denoiser)), hooks


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_traced_call_returns_the_very_bits(tiny, name):
    pipe = tiny.build(name)
    plain = call(pipe, tiny, name)
    before = footprint(pipe)
    with Recorder(pipe, EVERYTHING if "sd" in name and name != "sd3" else OF_A_TRANSFORMER):
        traced = call(pipe, tiny, name)
    assert np.array_equal(plain, traced)
    assert footprint(pipe) == before


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_processors_are_untouched(tiny, name):
    pipe = tiny.build(name)
    denoiser = denoiser_of(pipe)
    kinds = [type(m) for m in denoiser.modules()]
    processors = [getattr(m, "processor", None) for m in denoiser.modules()]
    with Recorder(pipe, ["**", "**@probs"]):
        call(pipe, tiny, name, steps=2)
        assert [type(m) for m in denoiser.modules()] == kinds
        assert all(
            getattr(m, "processor", None) is p
            for m, p in zip(denoiser.modules(), processors, strict=True)
        )


@pytest.mark.slow
def test_generators_and_callbacks_are_untouched(tiny):
    pipe = tiny.sd(scheduler=lcm())
    seen: list[list[int]] = [[], []]
    states = []
    for i, recorder in enumerate((None, Recorder(pipe, ["h"]))):
        made = generators()

        def callback(pipe, step, timestep, kwargs, i=i):
            seen[i].append(int(timestep))
            return kwargs

        if recorder is None:
            call(pipe, tiny, generator=made, callback_on_step_end=callback)
        else:
            with recorder:
                call(pipe, tiny, generator=made, callback_on_step_end=callback)
        states.append([g.get_state() for g in made])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_nothing_is_left_after_an_exception(tiny):
    pipe = tiny.sd()
    before = footprint(pipe)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Recorder(pipe, ["**", "**@probs"]):
        call(pipe, tiny, callback_on_step_end=stop)
    assert footprint(pipe) == before


def test_nothing_is_left_when_a_module_raises_inside_an_attention(tiny):
    pipe = tiny.sd()
    target = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    handle = target.to_out[0].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), Recorder(pipe, ["mid.attn.0.self@probs"]):
        call(pipe, tiny)
    handle.remove()
    assert (
        torch.overrides._len_torch_function_stack() == 0
        if hasattr(torch.overrides, "_len_torch_function_stack")
        else True
    )
    assert torch._C._len_torch_function_stack() == 0
    call(pipe, tiny)


def test_a_wrong_name_leaves_nothing_either(tiny):
    pipe = tiny.sd()
    before = footprint(pipe)
    with pytest.raises(ValueError, match="no hook point"):
        Recorder(pipe, ["h", "nowhere"]).__enter__()
    assert footprint(pipe) == before


@pytest.mark.parametrize("outer_first", [True, False])
def test_nested_taps_remove_their_own_alone(tiny, outer_first):
    pipe = tiny.sd()
    before = footprint(pipe)
    outer, inner = Recorder(pipe, ["h"]), Recorder(pipe, ["in"])
    outer.__enter__(), inner.__enter__()
    first, second = (outer, inner) if outer_first else (inner, outer)
    first.__exit__(None, None, None)
    call(pipe, tiny)
    assert len(second.take()) == 1
    assert not first.take()
    second.__exit__(None, None, None)
    assert footprint(pipe) == before


def test_a_wrapper_of_the_user_stays(tiny):
    pipe = tiny.sd()
    step = pipe.scheduler.step
    pipe.scheduler.step = mine = lambda *a, **k: step(*a, **k)
    with Recorder(pipe):
        call(pipe, tiny)
    assert pipe.scheduler.step is mine


def test_pipelines_still_see_the_signature_of_step(tiny):
    import inspect

    scheduler = tiny.ddim()
    plain = inspect.signature(scheduler.step)

    class Deaf:
        def before(self, *_): ...
        def after(self, *_): ...

    with listening(scheduler, "step", Deaf()):
        assert inspect.signature(scheduler.step) == plain
        assert "generator" in plain.parameters


def test_the_progress_bar_comes_back_as_it_was(tiny):
    pipe = tiny.sd()
    pipe.set_progress_bar_config(desc="mine", disable=False)
    with quiet(pipe):
        assert pipe._progress_bar_config == {"desc": "mine", "disable": True}
    assert pipe._progress_bar_config == {"desc": "mine", "disable": False}
    del pipe._progress_bar_config
    with quiet(pipe):
        assert pipe._progress_bar_config == {"disable": True}
    assert not hasattr(pipe, "_progress_bar_config")


@pytest.mark.slow
def test_hooks_die_with_their_recorder(tiny):
    pipe = tiny.sd()
    with Recorder(pipe, ["**"]) as recorder:
        call(pipe, tiny, steps=1)
    selections = len(recorder.selections)
    del recorder
    gc.collect()
    assert selections > 10
    assert not any(isinstance(o, Recorder) for o in gc.get_objects())


# What is heard


def lcm(**extra):
    return diffusers.LCMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        original_inference_steps=4,
        **extra,
    )


def test_x_t_and_output_make_the_next_x_t(tiny):
    """DDIM's own update, from what was recorded alone (arXiv 2010.02502, Eq. 12, σ = 0)."""
    record, _ = recorded(tiny.sd(), tiny, steps=5)
    root, alpha = record.root(), record.schedule["alpha_bar"]
    x0, x_t = root["pred_x0"].data, root["latents"].data
    for i in range(4):
        eps = (x_t[:, i] - alpha[i] ** 0.5 * x0[:, i]) / (1 - alpha[i]) ** 0.5
        np.testing.assert_allclose(root["model_output"].data[:, i], eps, rtol=1e-3, atol=1e-3)
        expected = alpha[i + 1] ** 0.5 * x0[:, i] + (1 - alpha[i + 1]) ** 0.5 * eps
        np.testing.assert_allclose(x_t[:, i + 1], expected, rtol=1e-3, atol=1e-3)


def test_final_latents_are_what_the_pipeline_returns(tiny):
    pipe = tiny.sd()
    record, _ = recorded(pipe, tiny)
    latents = pipe(
        ["a red planet", "a face"],
        num_inference_steps=3,
        generator=generators(),
        output_type="latent",
    )
    assert np.array_equal(record.root()["final"].data, latents.images.numpy())


def test_output_is_after_guidance(tiny):
    pipe, scale = tiny.sd(), 5.0
    record, readings = recorded(pipe, tiny, hooks={"out": "full"}, guidance_scale=scale)
    reading = readings["out"]
    assert reading.branches == ("uncond", "cond")
    assert reading.array.dims[:3] == (
        "sample",
        "step",
        "branch",
    )
    uncond, cond = reading.array.data[:, :, 0], reading.array.data[:, :, 1]
    np.testing.assert_allclose(
        record.root()["model_output"].data, uncond + scale * (cond - uncond), rtol=1e-4, atol=1e-5
    )


def test_without_guidance_there_is_no_branch(tiny):
    record, readings = recorded(tiny.sd(), tiny, hooks={"out": "full"}, guidance_scale=1.0)
    array = readings["out"].array
    assert readings["out"].branches == ()
    assert array.dims == ("sample", "step", "feature", "h", "w")
    assert np.array_equal(array.data, record.root()["model_output"].data)


def test_readings_of_a_module(tiny):
    hooks = {
        "mid.res.0": "full",
        "mid.res.0@input": "full",
        "mid.res.0@delta": "full",
        "mid.attn.0@input": "full",
    }
    _, readings = recorded(tiny.sd(), tiny, hooks=hooks)
    out, into, delta, after = (readings[k].array.data for k in hooks)
    assert np.array_equal(out - into, delta)
    assert np.array_equal(out, after)  # what the resnet gives, the attention takes


def test_a_delta_without_residual_is_refused(tiny):
    with pytest.raises(ValueError, match="Conv2d has no residual delta"):
        recorded(tiny.sd(), tiny, hooks=["in@delta"])


@pytest.mark.parametrize(
    ("name", "point"),
    [("sd", "mid.attn.0.cross"), ("pixart", "block.1.self"), ("pixart", "block.0.cross")],
)
def test_probabilities_are_those_of_the_spelled_out_attention(tiny, name, point):
    """Beside the fused kernel, and read off the softmax of diffusers' plain processor: the same
    numbers.
    """
    pipe = tiny.build(name)
    hooks = {f"{point}@probs": "full", point: "full"}
    _, fused = recorded(pipe, tiny, hooks=hooks, name=name, steps=2)
    denoiser_of(pipe).set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    _, plain = recorded(pipe, tiny, hooks=hooks, name=name, steps=2)
    probs = fused[f"{point}@probs"].array
    assert probs.dims == ("sample", "step", "branch", "head", "query", "key")
    np.testing.assert_allclose(probs.data.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(probs.data, plain[f"{point}@probs"].array.data, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        fused[point].array.data, plain[point].array.data, rtol=1e-2, atol=1e-3
    )


def test_joint_attention_reads_picture_and_prompt(tiny):
    pipe = tiny.sd3()
    _, readings = recorded(pipe, tiny, hooks={"block.0.attn@probs": "full"}, name="sd3", steps=1)
    probs = readings["block.0.attn@probs"].array.data
    pictures, words = 64, 32  # 8 × 8 latents in patches of one; 16 tokens of CLIP and 16 of T5
    assert probs.shape[-2:] == (pictures + words, pictures + words)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)


def test_attention_without_probabilities_says_so(tiny):
    pipe = tiny.sd()

    class Silent:
        def __call__(self, attn, hidden_states, **kwargs):
            return hidden_states

    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.set_processor(Silent())
    with pytest.raises(
        ValueError, match="no attention probabilities were seen in Attention with Silent"
    ):
        recorded(pipe, tiny, hooks=["mid.attn.0.self@probs"])


def test_reduced_as_recorded_is_reduced_after(tiny):
    pipe = tiny.sd()
    _, whole = recorded(pipe, tiny, hooks={"h": full()})
    _, small = recorded(pipe, tiny, hooks={"h": mean()})
    np.testing.assert_allclose(
        whole["h"].array.data.mean((-1, -2)), small["h"].array.data, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("scheduler", "steps", "calls"),
    [
        (diffusers.PNDMScheduler(skip_prk_steps=True), 5, [0, 0, 1, 0, 0, 0]),
        (diffusers.HeunDiscreteScheduler(), 5, [0, 0, 1, 0, 1, 0, 1, 0, 1]),
        (diffusers.KDPM2DiscreteScheduler(), 3, [0, 0, 0, 0, 0]),
    ],
    ids=["PNDM", "Heun", "KDPM2"],
)
def test_step_is_the_index_of_the_evaluation(tiny, scheduler, steps, calls):
    record, readings = recorded(tiny.sd(scheduler=scheduler), tiny, hooks=["h"], steps=steps)
    assert record.schedule["call"].tolist() == calls
    assert readings["h"].array.data.shape[1] == len(calls)
    assert np.isfinite(readings["h"].array.data).all()
    assert len(np.unique(readings["h"].array.data[0, :, 1, 0])) == len(calls)  # none overwritten


@pytest.mark.parametrize(
    "scheduler",
    [
        lcm(),
        diffusers.TCDScheduler(original_inference_steps=4),
        diffusers.EulerAncestralDiscreteScheduler(),
        diffusers.DDPMScheduler(clip_sample=False),
        diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
        diffusers.KDPM2AncestralDiscreteScheduler(),
        diffusers.SASolverScheduler(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_fresh_noise_is_told_exactly(tiny, scheduler, monkeypatch):
    """The noise recorded is what the scheduler's own module drew."""
    import importlib

    module = importlib.import_module(type(scheduler).__module__)
    drawn, draw = [], module.randn_tensor

    def spy(*args, **kwargs):
        drawn.append(draw(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(module, "randn_tensor", spy)
    record, _ = recorded(tiny.sd(scheduler=scheduler), tiny, steps=4, eta=0.3)
    found = [s.noise for s in record.steps if s.noise is not None]
    assert record.random
    assert not record.lost
    assert len(drawn) == len(found) > 0
    assert all(torch.equal(a, b) for a, b in zip(drawn, found, strict=True))


def test_lcm_noise_and_x0_make_the_next_latents(tiny):
    record, _ = recorded(tiny.sd(scheduler=lcm()), tiny, steps=4)
    root, alpha = record.root(), record.schedule["alpha_bar"]
    assert np.abs(root["noise"].data[:, -1]).max() == 0  # its last step adds none
    for i in range(3):
        noise_part = (1 - alpha[i + 1]) ** 0.5 * root["noise"].data[:, i]
        rest = root["latents"].data[:, i + 1] - noise_part
        np.testing.assert_allclose(
            rest / alpha[i + 1] ** 0.5, root["pred_x0"].data[:, i], rtol=0.02, atol=0.05
        )


def test_noise_of_the_global_generator_is_told_too(tiny):
    pipe = tiny.sd(scheduler=lcm())
    torch.manual_seed(3)
    plain = call(pipe, tiny, generator=None)
    torch.manual_seed(3)
    with Recorder(pipe) as recorder:
        traced = call(pipe, tiny, generator=None)
    (record,) = recorder.take()
    assert np.array_equal(plain, traced)
    assert record.random
    assert not record.lost


def test_a_scheduler_without_draws_has_no_noise(tiny):
    record, _ = recorded(tiny.sd(), tiny)
    assert not record.random
    assert "noise" not in record.root()


def test_half_precision_is_kept_and_x0_made_in_single(tiny):
    pipe = tiny.sd().to(torch.bfloat16)
    record, readings = recorded(pipe, tiny, hooks=["h"], steps=2)
    assert record.steps[0].latents.dtype == torch.bfloat16
    assert record.steps[0].pred_x0.dtype == torch.float32
    assert readings["h"].array.data.dtype == np.float32  # numpy has no bfloat16


# Models that are not quite one network


class TwoCalls(nn.Module):
    """A denoiser that a pipeline calls once a branch, as those with true guidance do."""

    def __init__(self, unet):
        super().__init__()
        self.inner = unet

    def forward(self, x, branch):
        return self.inner(x) * (2 if branch == "cond" else 1)

    def cache_context(self, name):
        import contextlib

        return contextlib.nullcontext(name)


class Loop:
    """The denoising loop of a pipeline with separate calls, and nothing else."""

    def __init__(self, named=True):
        self.unet = TwoCalls(nn.Conv2d(4, 4, 1))
        self.scheduler = diffusers.DDIMScheduler(clip_sample=False)
        self.named = named

    def __call__(self, order=("cond", "uncond")):
        x = torch.ones(3, 4, 2, 2)
        self.scheduler.set_timesteps(2)
        with torch.no_grad():
            for t in self.scheduler.timesteps:
                outs = {}
                for branch in order:
                    if self.named:
                        with self.unet.cache_context(branch):
                            outs[branch] = self.unet(x, branch)
                    else:
                        outs[branch] = self.unet(x, branch)
                x = self.scheduler.step(outs["uncond"] + 3 * (outs["cond"] - outs["uncond"]), t, x)[
                    0
                ]


def test_separate_calls_are_labelled_by_their_name():
    with Recorder(Loop(), {"inner": "full"}) as recorder:
        recorder.pipe()
        (record,) = recorder.take()
    reading = record.readings(recorder.selections)["inner"]
    assert reading.branches == ("cond", "uncond")
    assert reading.array.data.shape == (3, 2, 2, 4, 2, 2)


def test_separate_calls_without_a_name_are_numbered():
    with Recorder(Loop(named=False), {"inner": "full"}) as recorder:
        recorder.pipe()
        (record,) = recorder.take()
    assert record.readings(recorder.selections)["inner"].branches == ("call0", "call1")


def test_steps_guided_and_unguided_in_one_run(tiny):
    """Guidance that ends midway leaves no unconditional half: NaN there, and the conditional one in
    its place.
    """
    pipe = tiny.sd()

    def stop_guiding(pipe, step, timestep, kwargs):
        pipe._guidance_scale = 1.0
        kwargs["prompt_embeds"] = (
            kwargs["prompt_embeds"].chunk(2)[-1] if step == 0 else kwargs["prompt_embeds"]
        )
        return kwargs

    record, readings = recorded(
        pipe,
        tiny,
        hooks={"out": "full"},
        callback_on_step_end=stop_guiding,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )
    out, absent = readings["out"].array.data, readings["out"].absent
    assert absent.tolist() == [[False, False], [True, False], [True, False]]
    assert np.isnan(out[:, 1:, 0]).all()
    assert np.isfinite(out[:, :, 1]).all()
    assert np.array_equal(out[:, 1:, 1], record.root()["model_output"].data[:, 1:])


class Relay(nn.Module):
    """Two networks in turn, as in a hybrid: named in ``xhat_parts``."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second, self.count = first, second, 0
        self.config, self.add_embedding = first.config, None

    @property
    def xhat_parts(self):
        return {"first": self.first, "second": self.second}

    @property
    def dtype(self):
        return self.first.dtype

    @property
    def device(self):
        return self.first.device

    def forward(self, *args, **kwargs):
        part = self.first if self.count == 0 else self.second
        self.count += 1
        return part(*args, **kwargs)


def test_a_point_of_a_relay_is_read_in_whichever_part_runs(tiny):
    pipe, other = tiny.sd(0), tiny.sd(1)
    _, plain = recorded(pipe, tiny, hooks={"h": "full"})
    pipe.unet = Relay(pipe.unet, other.unet)
    pipe.scheduler.segment_of_step = ["base", "student", "student"]
    record, relayed = recorded(pipe, tiny, hooks={"h": "full"})
    assert np.array_equal(relayed["h"].array.data[:, 0], plain["h"].array.data[:, 0])
    assert not np.allclose(relayed["h"].array.data[:, 1], plain["h"].array.data[:, 1])
    assert record.schedule["segment"].tolist() == ["base", "student", "student"]


def test_a_change_of_space_on_the_way_is_labelled(tiny):
    """A composite scheduler says whose step it is; latents are then in that one's own space."""

    class Strung(diffusers.DDIMScheduler):
        def delegate(self, step):
            cls = diffusers.EulerDiscreteScheduler if step == 2 else diffusers.DDIMScheduler
            inner = cls.from_config(dict(self.config))
            inner.set_timesteps(len(self.timesteps))
            return inner, step

    record, _ = recorded(tiny.sd(scheduler=Strung(**tiny.ddim().config)), tiny)
    assert record.schedule["space"].tolist() == ["vp", "vp", "sigma"]
    assert record.space == "vp"


def test_adapters_loaded_before_are_seen(tiny):
    from peft import LoraConfig

    pipe = tiny.sd()
    plain, _ = recorded(pipe, tiny, hooks={"mid.attn.0.self": "full"})
    torch.manual_seed(0)
    pipe.unet.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    )
    for name, weight in pipe.unet.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.5)
    hooks = {
        "mid.attn.0.self": "full",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_v": "full",
    }
    record, readings = recorded(pipe, tiny, hooks=hooks)
    layer = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_v
    assert type(layer).__module__.startswith("peft")
    base_only = []
    handle = layer.base_layer.register_forward_hook(lambda m, a, o: base_only.append(o.detach()))
    call(pipe, tiny, steps=3)
    handle.remove()
    found = readings["mid_block.attentions.0.transformer_blocks.0.attn1.to_v"].array.data[:, 0]
    assert not np.allclose(found.reshape(4, -1), base_only[0].numpy().reshape(4, -1))
    assert not np.allclose(record.root()["final"].data, plain.root()["final"].data)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrapped", "in place", "a part"])
def test_a_compiled_denoiser_is_refused_with_the_reason(tiny, how):
    pipe = tiny.sd()
    if how == "wrapped":
        pipe.unet = torch.compile(pipe.unet)
    elif how == "in place":
        pipe.unet.compile()
    else:
        pipe.unet.mid_block.compile()
    with pytest.raises(
        ValueError, match="is compiled, and torch.compile may skip hooks in silence"
    ):
        Recorder(pipe, ["h"]).__enter__()


INSIDE = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize("point", [INSIDE, f"{INSIDE}@probs", f"{INSIDE}.to_q", "mid.attn.**"])
@pytest.mark.parametrize("where", ["blocks", "block"])
def test_what_lies_in_a_compiled_block_is_refused(tiny, where, point):
    """For readings and for edits: a compiled block does not call the modules inside it."""
    pipe = tiny.sd()
    if where == "blocks":
        pipe.unet._repeated_blocks = ["BasicTransformerBlock"]
        pipe.unet.compile_repeated_blocks(backend="eager")
    else:
        pipe.unet.mid_block = torch.compile(pipe.unet.mid_block, backend="eager")
        point = point.replace("mid_block", "mid_block._orig_mod").replace("mid.attn", "mid_block")
    with pytest.raises(ValueError, match="is compiled"):
        Recorder(pipe, [point]).__enter__()
    if "probs" not in point:
        with pytest.raises(ValueError, match="is compiled"):
            Patch(pipe, [scale(point, 2.0)]).__enter__()


@pytest.mark.slow
def test_what_lies_around_a_compiled_block_is_read(tiny):
    pipe = tiny.sd()
    pipe.unet._repeated_blocks = ["BasicTransformerBlock"]
    pipe.unet.compile_repeated_blocks(backend="eager")
    _, readings = recorded(pipe, tiny, hooks={"mid.attn.0": "full"}, steps=1)
    _, plain = recorded(tiny.sd(), tiny, hooks={"mid.attn.0": "full"}, steps=1)
    name = "mid.attn.0"
    assert np.allclose(readings[name].array.data, plain[name].array.data, atol=1e-5)


@pytest.mark.slow
def test_without_hooks_a_compiled_denoiser_is_traced(tiny):
    pipe = tiny.sd()
    pipe.unet.compile(backend="eager")
    record, _ = recorded(pipe, tiny, steps=1)
    assert len(record.steps) == 1


def test_a_module_shared_in_one_pass_is_left_out_and_named(tiny):
    with pytest.warns(UserWarning, match="runs with several shapes.* left out"):
        _, readings = recorded(tiny.sd(), tiny, hooks=["mid_block.resnets.0.nonlinearity", "h"])
    assert list(readings) == ["h"]


def test_what_never_fired_is_known(tiny):
    pipe = tiny.sd()
    pipe.unet.idle = nn.Identity()
    with Recorder(pipe, ["h", "idle"]) as recorder:
        call(pipe, tiny, steps=1)
        (record,) = recorder.take()
    assert record.unfired(recorder.selections) == ["idle"]


def test_an_unsupported_scheduler_is_refused_on_entry(tiny):
    pipe = tiny.sd(scheduler=tiny.ddim())
    pipe.scheduler = diffusers.UnCLIPScheduler()
    with pytest.raises(ValueError, match="UnCLIPScheduler is not supported"):
        Recorder(pipe).__enter__()


@pytest.mark.slow
def test_image_to_image_starts_in_the_middle(tiny):
    pipe = tiny.sd()
    other = diffusers.StableDiffusionImg2ImgPipeline(
        **pipe.components, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    with Recorder(other) as recorder:
        other(
            "a",
            image=torch.rand(1, 3, 16, 16),
            strength=0.5,
            num_inference_steps=6,
            generator=generators(1),
        )
    (record,) = recorder.take()
    levels = noise.noise_levels(pipe.scheduler)
    assert record.schedule["sigma"].tolist() == levels.sigma[3:].tolist()


def test_packed_latents_are_unpacked_as_the_pipeline_does():
    from diffusers import FluxPipeline

    x = torch.randn(2, 16, 6, 10, generator=torch.Generator().manual_seed(0))
    packed = FluxPipeline._pack_latents(x, 2, 16, 6, 10)

    class Pipe:
        vae_scale_factor = 8
        _unpack_latents = staticmethod(FluxPipeline._unpack_latents)

    assert torch.equal(unpacked(Pipe, packed, (48, 80)), x)
    assert torch.equal(unpacked(Pipe, packed, None), packed)  # 15 patches: no square
    square = FluxPipeline._pack_latents(x[..., :6], 2, 16, 6, 6)
    assert torch.equal(unpacked(Pipe, square, None), x[..., :6])
    assert unpacked(object(), x, None) is x


def test_select_and_record_share_names(tiny):
    pipe = tiny.sd()
    chosen = select(pipe.unet, ["h", "in@input"])
    _, readings = recorded(pipe, tiny, hooks=["h", "in@input"])
    assert set(readings) == {s.name for s in chosen}
