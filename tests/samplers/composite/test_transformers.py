"""Transformers and flow: tracing leaves the bits alone, x̂₀ is the formula, a plan of one model is
that model.

FLUX packs its latents and takes its guidance as an input; AuraFlow counts time from 0 to 1; Lumina
and Z-Image run it backwards and predict the velocity with the other sign; Z-Image gives its samples
in lists."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

import xhat
from xhat.hooks.points.names import denoiser_of
from xhat.hooks.record.recorder import Recorder
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.timing import Timing, even, shift, timing_of
from xhat.samplers.rivals.cads import CADS

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ["sd3", "pixart", "flux", "aura", "lumina", "zimage"]
FLOW = [n for n in NAMES if n != "pixart"]
PROMPTS = ["a red planet", "the quiet face"]
# no guidance: Z-Image guides at any scale above 0
NONE = {name: 0.0 if name == "zimage" else 1.0 for name in NAMES}


def dynamic(**extra):
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0, **extra)


def latents(tiny, name, pipe, **call):
    call = {"guidance_scale": NONE[name]} | tiny.call_arguments(name) | call
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    return pipe(PROMPTS, generator=generators, output_type="latent", **call)[0]


def make_pair(tiny, name, schedulers=(None, None)):
    base, student = (tiny.build(name, seed, s) for seed, s in enumerate(schedulers))
    shared = {k: v for k, v in base.components.items() if k not in ("transformer", "scheduler")}
    student.register_modules(**shared)
    return base, student


@pytest.fixture(scope="module")
def pairs(tiny):
    return {name: make_pair(tiny, name) for name in NAMES}


@pytest.fixture(scope="module")
def flux(tiny):
    """FLUX as published: the base takes its guidance and shifts by the picture's size, the student
    does neither.
    """
    fixed = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    base, student = make_pair(tiny, "flux", (dynamic(), fixed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = {**student.transformer.config, "guidance_embeds": False}
        student.register_modules(
            transformer=diffusers.FluxTransformer2DModel.from_config(config).eval()
        )
    return base, student


# Points and traces


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_call_returns_the_very_bits(tiny, pairs, name):
    pipe = pairs[name][0]
    plain = latents(tiny, name, pipe, num_inference_steps=3)
    with Recorder(pipe, {"**": "mean", "**.ff@input": "mean"}) as recorder:
        traced = latents(tiny, name, pipe, num_inference_steps=3)
        (record,) = recorder.take()
    assert torch.equal(plain, traced)
    assert not any(m._forward_hooks for m in denoiser_of(pipe).modules())
    readings = record.readings(recorder.selections)
    assert len(readings) >= 6
    assert all(np.isfinite(r.array.data).all() for r in readings.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_a_point_with_its_shape(tiny, pairs, name):
    pipe = pairs[name][0]
    table = xhat.points(pipe, prompt=PROMPTS[0], **tiny.call_arguments(name))
    blocks = [
        p for p in table if p.alias.split(".")[0] in ("block", "single") and p.alias.count(".") == 1
    ]
    assert len(blocks) >= 2
    assert all(p.shape is not None for p in blocks)
    assert {"block.0.attn", "block.0.self"} & {p.alias for p in table}
    trace = xhat.trace(
        pipe,
        PROMPTS[0],
        seeds=[0],
        hooks={b.alias: "full" for b in blocks},
        progress=False,
        num_inference_steps=2,
        guidance_scale=NONE[name],
        output_type="latent",
        **tiny.call_arguments(name),
    )
    for block in blocks:
        assert trace[f"activations/{block.alias}/value"].shape[3:] == block.shape


class Heard:
    """What the network was given and gave, and what the scheduler was given, call by call."""

    def __init__(self, pipe):
        self.outputs, self.steps, inner = [], [], pipe.scheduler.step

        def step(output, t, x, **kwargs):
            self.steps.append((output, float(t), x))
            return inner(output, t, x, **kwargs)

        pipe.scheduler.step = step
        self.undo = lambda: vars(pipe.scheduler).pop("step")
        self.handle = denoiser_of(pipe).register_forward_hook(
            lambda m, args, out: self.outputs.append(out[0])
        )


@pytest.mark.parametrize("name", FLOW)
def test_x0_is_the_formula(tiny, pairs, name):
    """x̂₀ = x_t − σ·v̂ with σ = t/1000 (rectified flow), whatever sign and clock the network
    has.
    """
    pipe = pairs[name][0]
    heard = Heard(pipe)
    try:
        trace = xhat.trace(
            pipe,
            PROMPTS[0],
            seeds=[0],
            progress=False,
            num_inference_steps=3,
            output_type="latent",
            guidance_scale=NONE[name],
            **tiny.call_arguments(name),
        )
    finally:
        heard.undo(), heard.handle.remove()
    sign = -1 if name in ("lumina", "zimage") else 1
    assert len(heard.outputs) == len(heard.steps) == 3
    for i, (network, (velocity, t, x_t)) in enumerate(zip(heard.outputs, heard.steps, strict=True)):
        raw = torch.stack(network).squeeze(2) if isinstance(network, list) else network
        assert torch.equal(sign * raw, velocity)
        x0 = x_t - t / 1000 * velocity
        if name == "flux":
            x0 = pipe._unpack_latents(x0, 16, 16, pipe.vae_scale_factor)
        torch.testing.assert_close(
            torch.from_numpy(trace["pred_x0"].values[0, :, i].copy()), x0, rtol=1e-4, atol=1e-5
        )
        share = t / 1000
        assert trace["sigma"].values[i] == pytest.approx(
            share / (1 - share) if share < 1 else np.inf, rel=1e-5
        )


def test_branches_of_a_pipeline_that_stacks_the_conditional_half_first(tiny, pairs):
    """Z-Image: what is labelled cond is what runs alone without guidance."""
    pipe, found = pairs["zimage"][0], {}
    for scale in (0.0, 2.0):
        trace = xhat.trace(
            pipe,
            PROMPTS[0],
            seeds=[0],
            hooks={"block.1": "mean"},
            progress=False,
            output_type="latent",
            num_inference_steps=1,
            guidance_scale=scale,
            **tiny.call_arguments("zimage"),
        )
        found[scale] = trace["activations/block.1/value"]
    cond, uncond = (found[2.0].sel(branch=b).values for b in ("cond", "uncond"))
    np.testing.assert_allclose(cond, found[0.0].values, rtol=1e-4, atol=1e-5)
    assert not np.allclose(cond, uncond, atol=1e-3)


# Hybrids


@pytest.mark.parametrize("who", ["base", "student"])
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_of_one_model_is_that_model(tiny, pairs, name, who):
    base, student = pairs[name]
    alone = latents(tiny, name, base if who == "base" else student, num_inference_steps=4)
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment(who, 0, 4, 4)]))
    assert type(hybrid) is type(base)
    assert torch.equal(latents(tiny, name, hybrid), alone)
    assert torch.equal(latents(tiny, name, hybrid, num_inference_steps=7), alone)


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.5])
def test_flux_at_its_own_guidance_and_size(tiny, flux, guidance_scale, size):
    base, student = flux
    size = {"height": size, "width": size}
    for who, pipe in (("base", base), ("student", student)):
        alone = latents(
            tiny, "flux", pipe, num_inference_steps=4, guidance_scale=guidance_scale, **size
        )
        hybrid = xhat.hybrid(
            base,
            student,
            plan=Plan([Segment(who, 0, 4, 4, guidance_scale if who == "base" else 1.0)]),
        )
        assert torch.equal(latents(tiny, "flux", hybrid, **size), alone)


def test_the_guidance_of_flux_is_an_input(tiny, flux):
    one, other = (
        latents(tiny, "flux", xhat.hybrid(*flux, plan=Plan([Segment("base", 0, 2, 2, scale)])))
        for scale in (1.0, 3.5)
    )
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flux", "zimage", "lumina"])
def test_models_of_other_shifts_keep_them(tiny, name):
    """Each model has the noise levels of its own pipeline, though the pipeline above speaks of the
    base's alone.
    """
    base, student = make_pair(tiny, name, (dynamic(), dynamic(base_shift=1.0986, max_shift=1.0986)))
    alone = latents(tiny, name, student, num_inference_steps=4)
    hybrid = xhat.hybrid(
        base, student, plan=Plan([Segment("base", 0, 1, 8), Segment("student", 1, 4, 4)])
    )
    latents(tiny, name, hybrid)
    assert torch.allclose(hybrid.scheduler.timesteps[1:], student.scheduler.timesteps[1:])
    only = xhat.hybrid(base, student, plan=Plan([Segment("student", 0, 4, 4)]))
    assert torch.equal(latents(tiny, name, only), alone)


@pytest.mark.parametrize("name", ["flux", "aura", "zimage"])
def test_a_hybrid_is_the_loop_written_by_hand(tiny, pairs, name):
    """Euler steps of a flow, x' = x + (σ' − σ)·v̂: the first with the base's velocity, the others
    with the student's.
    """
    base, student = pairs[name]
    hybrid = xhat.hybrid(base, student, student_num_inference_steps=3, base_evaluations=1)
    heard = Heard(hybrid)
    out = latents(tiny, name, hybrid)
    sigmas = [t / 1000 for _, t, _ in heard.steps] + [0.0]
    assert hybrid.scheduler.segment_of_step == ["base", "student", "student"]
    for i, (velocity, _, x) in enumerate(heard.steps):
        after = heard.steps[i + 1][2] if i < 2 else out
        torch.testing.assert_close(
            after, x + (sigmas[i + 1] - sigmas[i]) * velocity, rtol=1e-4, atol=1e-5
        )
    alone = Heard(student)
    latents(tiny, name, student, num_inference_steps=3)
    alone.undo(), alone.handle.remove()
    assert [t for _, t, _ in alone.steps[1:]] == pytest.approx(
        [t for _, t, _ in heard.steps[1:]], rel=1e-5
    )
    assert torch.equal(alone.steps[0][2], heard.steps[0][2])
    assert not torch.equal(alone.steps[0][0], heard.steps[0][0])


@pytest.mark.parametrize("name", NAMES)
def test_a_hybrid_is_traced_with_equal_bits(tiny, pairs, name):
    base, student = pairs[name]
    call = {"student_num_inference_steps": 3}
    if name == "pixart":
        call["base_num_inference_steps"] = 6
    hybrid = xhat.hybrid(base, student, **call)
    traced = xhat.trace(
        hybrid,
        PROMPTS[0],
        seeds=[0],
        hooks={"block.0": "mean"},
        progress=False,
        output_type="latent",
        **tiny.call_arguments(name),
    )
    untraced = hybrid(
        [PROMPTS[0]],
        generator=[torch.Generator().manual_seed(0)],
        output_type="latent",
        **tiny.call_arguments(name),
    )[0]
    if name == "flux":
        untraced = hybrid._unpack_latents(untraced, 16, 16, hybrid.vae_scale_factor)
    np.testing.assert_array_equal(traced["final"].values[0, 0], untraced[0].numpy())
    assert traced["segment"].values[-1] == "student"
    assert traced["segment"].values[0] == "base"


class Asks(Tap):
    """Asks the model of the step for x̂₀ where the run is, at every step."""

    def __init__(self):
        self.pairs = []

    def estimate(self, run, x_t, x0):
        asked = run.models.x0_of(
            run.entry.segment.model, x_t, run.entry.level.sigma, run.entry.segment.guidance_scale
        )
        self.pairs.append((asked, x0))
        return x0


@pytest.mark.parametrize("name", ["sd3", "pixart", "flux", "aura"])
def test_a_model_asked_at_the_level_of_the_run_says_what_it_said(tiny, pairs, name):
    """Whether its pipeline counts time to 1000 or to 1."""
    base, student = pairs[name]
    tap = Asks()
    scales = (2.0, 1.0) if name == "flux" else (1.0, 1.0)
    plan = Plan([Segment("base", 0, 1, 4, scales[0]), Segment("student", 1, 4, 4)])
    if name == "pixart":
        plan = Plan([Segment("student", 0, 4, 4)])
    latents(tiny, name, compose({"base": base, "student": student}, plan, [tap]))
    assert len(tap.pairs) == 4
    for asked, said in tap.pairs:
        torch.testing.assert_close(asked, said, rtol=2e-2, atol=2e-2)


def test_a_model_whose_time_runs_backwards_is_not_asked(tiny, pairs):
    base, student = pairs["lumina"]
    hybrid = compose({"base": base, "student": student}, Plan([Segment("base", 0, 2, 2)]), [Asks()])
    with pytest.raises(ValueError, match="cannot be asked for x̂₀"):
        latents(tiny, "lumina", hybrid)


@pytest.mark.parametrize("name", ["zimage", "lumina", "flux"])
def test_cads_reaches_the_prompt_of_every_network(tiny, pairs, name):
    """Z-Image's is a list under another name."""
    base, student = pairs[name]
    models, plan = {"student": student, "base": base}, Plan([Segment("student", 0, 4, 4)])
    plain, annealed = (compose(models, plan, taps) for taps in ([], [CADS()]))
    one, other = (latents(tiny, name, pipe) for pipe in (plain, annealed))
    assert not torch.allclose(one, other, atol=1e-3)
    assert 0 in annealed.scheduler.run.changed[0]


def test_sigmas_of_the_call_are_refused(tiny, pairs):
    hybrid = xhat.hybrid(*pairs["flux"], plan=Plan([Segment("base", 0, 2, 2)]))
    with pytest.raises(ValueError, match="sigmas cannot be chosen in the call of a hybrid"):
        latents(tiny, "flux", hybrid, sigmas=[1.0, 0.9])
    with pytest.raises(ValueError, match="in a way that plans do not know"):
        latents(tiny, "sd3", xhat.hybrid(*pairs["sd3"]), sigmas=[1.0, 0.5])


@pytest.mark.parametrize(("name", "steps"), [("flux", 4), ("zimage", 3), ("lumina", 2), ("sd3", 4)])
def test_timing_is_what_the_pipeline_tells_its_scheduler(tiny, name, steps):
    """The schedule that plans expect of a model is the one its pipeline sets, for a picture of the
    default size.
    """
    pipe = tiny.build(name, 0, dynamic())
    if name in ("flux", "zimage"):
        pipe.default_sample_size = (
            8  # for pictures of 16 pixels; Z-Image has no such setting, and means 1024
        )
    timing, pixels = timing_of(pipe), 8 * pipe.vae_scale_factor
    latents(tiny, name, pipe, num_inference_steps=steps, height=pixels, width=pixels)
    expected, own = pipe.scheduler.timesteps.clone(), dynamic()
    own.set_timesteps(steps, **timing.settings(own, steps))
    assert torch.equal(own.timesteps, expected)


def test_a_picture_is_recognised_by_its_shift():
    config = dynamic().config
    for patches in (1, 16, 256, 1000, 4096):
        assert Timing(True).heard(config, shift(config, patches)).patches == patches
    assert shift(config, 256) == pytest.approx(0.5)
    assert shift(config, 4096) == pytest.approx(1.15)
    assert Timing(True, mu=1.15).heard(config, 0.7) == Timing(True, mu=1.15)
    assert Timing(True).heard(config, 0.50001).mu == 0.50001
    np.testing.assert_allclose(even(4), [1, 0.75, 0.5, 0.25])
