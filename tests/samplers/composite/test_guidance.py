"""Guided segments in loops that call their network once a branch, or stack the branches their own
way.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

import xhat
from xhat.hooks.edits.edit import scale
from xhat.hooks.edits.patch import Patch
from xhat.hooks.families import Guidance, family_of_class
from xhat.samplers.composite.guidance import combine
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.plan import Plan, Segment

pytestmark = pytest.mark.filterwarnings("ignore")
APART = ["flux", "chroma", "qwen", "krea2", "lumina"]
BOTH = [*APART, "zimage"]


def call_scale(pipe, g):
    rule = family_of_class(type(pipe)).guidance
    return {rule.argument: rule.in_call(g)}


def latents(pipe, call, **extra):
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    return pipe(generator=generators, output_type="latent", **call | extra)[0]


@pytest.fixture(scope="module")
def made(tiny, loops):
    """name → (base, student, call), made once."""
    known = {}

    def pair(name):
        if name not in known:
            (base, call), (student, _) = (loops.BUILDERS[name](tiny, seed) for seed in (0, 1))
            parts = {n: p for n, p in base.components.items() if n not in ("transformer",)}
            student.register_modules(**parts)
            known[name] = base, student, call
        return known[name]

    return pair


def evaluations(network):
    """Outputs of a network's calls from now on, and the handle that ends it."""
    heard = []
    return heard, network.register_forward_hook(lambda m, args, out: heard.append(out[0]))


@pytest.mark.parametrize("name", BOTH)
def test_guidance_changes_from_segment_to_segment(made, name):
    """Steps under guidance are those of the base under it, to the bit; the others are one bare
    evaluation each.
    """
    base, student, call = made(name)
    seen = {"alone": [], "hybrid": []}

    def noting(label):
        def note(pipe, step, timestep, kwargs):
            seen[label].append(kwargs["latents"].clone())
            return {}

        return {"callback_on_step_end": note, "callback_on_step_end_tensor_inputs": ["latents"]}

    guidance = call_scale(base, 3.0)
    latents(base, call, num_inference_steps=4, **guidance, **noting("alone"))
    plan = Plan([Segment("base", 0, 2, 4, 3.0), Segment("base", 2, 4, 4)])
    hybrid = xhat.hybrid(base, student, plan=plan)
    outputs, handle = evaluations(base.transformer)
    latents(hybrid, call, **guidance, **noting("hybrid"))
    handle.remove()
    pairs = list(zip(seen["alone"], seen["hybrid"], strict=True))
    assert [torch.equal(a, b) for a, b in pairs] == [True, True, False, False]
    rows = 2 if name == "zimage" else 1
    assert len(outputs) == (2 + 2 if rows == 2 else 2 * 2 + 2)
    assert hybrid.scheduler.run.evaluations == plan.evaluations == 6


def test_lumina_2_truncates_as_a_plan_of_two_segments_does(made):
    base, student, call = made("lumina")
    truncated = latents(base, call, num_inference_steps=4, guidance_scale=3.0, cfg_trunc_ratio=0.5)
    two = Plan([Segment("base", 0, 2, 4, 3.0), Segment("base", 2, 4, 4)])
    assert torch.equal(latents(xhat.hybrid(base, student, plan=two), call), truncated)
    one = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 4, 4, 3.0)]))
    assert torch.equal(latents(one, call, cfg_trunc_ratio=0.5), truncated)


def test_lumina_2_without_normalization_is_said_of_the_pipeline(made):
    base, student, call = made("lumina")
    plan = Plan([Segment("base", 0, 3, 3, 3.0)])
    plain = latents(base, call, num_inference_steps=3, guidance_scale=3.0, cfg_normalization=False)
    with pytest.raises(ValueError, match="cfg_normalization cannot be used in the call"):
        latents(xhat.hybrid(base, student, plan=plan), call, cfg_normalization=False)
    stated = xhat.set_defaults(
        diffusers.Lumina2Pipeline(**base.components), cfg_normalization=False
    )
    hybrid = xhat.hybrid(stated, student, plan=plan)
    assert torch.equal(latents(hybrid, call, cfg_normalization=False), plain)
    assert xhat.defaults(hybrid)["cfg_normalization"] is False


@pytest.mark.parametrize("setting", [{"cfg_normalization": 0.5}, {"cfg_truncation": 0.5}])
def test_settings_of_z_image_that_change_guidance_are_refused(made, setting):
    base, student, call = made("zimage")
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 2, 2, 3.0)]))
    with pytest.raises(ValueError, match=f"{next(iter(setting))} cannot be used"):
        latents(hybrid, call, guidance_scale=2.0, **setting)


def test_skipped_layers_of_sd3_are_refused(tiny):
    pipe = tiny.build("sd3")
    hybrid = xhat.hybrid(pipe, pipe, plan=Plan([Segment("base", 0, 2, 2, 3.0)]))
    with pytest.raises(ValueError, match="skip_guidance_layers cannot be used"):
        hybrid("a planet", skip_guidance_layers=[0], **tiny.call_arguments("sd3"))


@pytest.mark.parametrize("name", ["flux", "qwen"])
def test_true_guidance_without_a_negative_prompt_is_refused(made, name):
    base, student, call = made(name)
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 2, 2, 3.0)]))
    positive = {k: v for k, v in call.items() if not k.startswith("negative")}
    with pytest.raises(ValueError, match="call it with negative_prompt and true_cfg_scale above 1"):
        latents(hybrid, positive, true_cfg_scale=3.0)


def test_a_flux_that_takes_its_guidance_has_true_guidance_beside_it(tiny, loops):
    base, student = (tiny.build("flux", seed) for seed in (0, 1))
    call = loops.BUILDERS["flux"](tiny, 0)[1]
    alone = latents(base, call, num_inference_steps=3, guidance_scale=3.5, true_cfg_scale=2.0)
    plan = Plan([Segment("base", 0, 3, 3, 3.5, true_cfg_scale=2.0)])
    hybrid = xhat.hybrid(base, student, plan=plan)
    assert torch.equal(latents(hybrid, call, true_cfg_scale=9.0), alone)
    assert not torch.equal(latents(base, call, num_inference_steps=3, guidance_scale=3.5), alone)
    assert "true_cfg_scale 2" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan
    assert hybrid.scheduler.run.evaluations == 6


def test_two_scales_for_a_network_that_takes_none_are_refused(made):
    base, student, _ = made("qwen")
    plan = Plan([Segment("base", 0, 3, 3, true_cfg_scale=2.0)])
    with pytest.raises(ValueError, match="expected its scale as guidance_scale"):
        xhat.hybrid(base, student, plan=plan)


@pytest.mark.parametrize("name", BOTH)
def test_the_scale_that_belongs_to_a_pipeline_is_counted_as_plans_count(made, name):
    base, student, call = made(name)
    pipe = type(base)(**base.components)
    xhat.set_defaults(pipe, num_inference_steps=3, **call_scale(base, 2.5))
    (segment,) = whole("base", pipe).segments
    assert segment.guidance_scale == 2.5
    alone = latents(pipe, call, **xhat.defaults(pipe))
    hybrid = xhat.hybrid(pipe, student, plan=whole("base", pipe))
    again = {k: v for k, v in xhat.defaults(hybrid).items() if k != "negative_prompt"}
    assert torch.equal(latents(hybrid, call, **again), alone)


class Asks(Tap):
    """Asks the model of the step for x̂₀ where the run is, at every step."""

    def __init__(self):
        self.pairs = []

    def estimate(self, run, x_t, x0):
        segment = run.entry.segment
        asked = run.models.x0_of(segment.model, x_t, run.entry.level.sigma, segment.guidance_scale)
        one = run.models.x0_of(
            segment.model, x_t[1:], run.entry.level.sigma, segment.guidance_scale, rows=[1]
        )
        self.pairs += [(asked, x0), (one, x0[1:])]
        return x0


@pytest.mark.parametrize("name", ["flux", "chroma", "qwen", "krea2"])
def test_a_guided_model_asked_at_the_level_of_the_run_says_what_it_said(made, name):
    base, student, call = made(name)
    tap = Asks()
    plan = Plan([Segment("base", 0, 2, 4, 3.0), Segment("student", 2, 4, 4)])
    hybrid = compose({"base": base, "student": student}, plan, [tap])
    latents(hybrid, call, **call_scale(base, 3.0))
    assert len(tap.pairs) == 8
    for asked, x0 in tap.pairs:
        torch.testing.assert_close(asked, x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BOTH)
def test_branches_are_named(made, name):
    """What is labelled cond is what runs alone without guidance, in the pipeline or in a hybrid."""
    base, student, call = made(name)
    plan = Plan([Segment("base", 0, 2, 2, 3.0)])
    readings = {}
    for label, pipe, g in (
        ("plain", base, 1.0),
        ("guided", base, 3.0),
        ("hybrid", xhat.hybrid(base, student, plan=plan), 3.0),
    ):
        with xhat.Tracer(pipe, hooks={"block.0": "mean"}) as tracer:
            latents(pipe, call, num_inference_steps=2, **call_scale(base, g))
        readings[label] = tracer.trace["activations/block.0/value"].isel(step=0)
    for label in ("guided", "hybrid"):
        assert set(readings[label]["branch"].values) == {"cond", "uncond"}
        cond = readings[label].sel(branch="cond").values
        np.testing.assert_allclose(cond, readings["plain"].values, rtol=1e-4, atol=1e-5)
        assert not np.allclose(cond, readings[label].sel(branch="uncond").values, atol=1e-4)


@pytest.mark.parametrize("name", ["chroma", "krea2", "lumina"])
def test_an_edit_of_a_branch_changes_that_branch_alone(made, name):
    """Of pipelines that do not say which branch they call for."""
    base, _, call = made(name)
    call = call | {"num_inference_steps": 1} | call_scale(base, 3.0)
    for branch in ("cond", "uncond"):
        outputs, handle = evaluations(base.transformer)
        latents(base, call)
        with Patch(base, [scale("block.0", 2.0, branch=branch)]):
            latents(base, call)
        handle.remove()
        same = [torch.equal(a, b) for a, b in zip(outputs[:2], outputs[2:], strict=True)]
        assert same == [branch != "cond", branch != "uncond"]


def test_a_guided_hybrid_is_traced_with_its_own_negative_prompt(tiny):
    """FLUX guides only where it is given a negative prompt: a hybrid that needs one has it."""
    base, student = (tiny.build("flux", seed) for seed in (0, 1))
    for pipe in (base, student):
        config = {**pipe.transformer.config, "guidance_embeds": False}
        network = diffusers.FluxTransformer2DModel.from_config(config).eval()
        pipe.register_modules(transformer=network)
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 3, 3, 3.0)]))
    prompts, small = ["a red planet", "the quiet face"], tiny.call_arguments("flux")
    trace = xhat.trace(hybrid, prompts, seeds=[0, 1], progress=False, output_type="latent", **small)
    alone = base(
        prompts,
        negative_prompt=[" ", " "],
        true_cfg_scale=3.0,
        num_inference_steps=3,
        num_images_per_prompt=2,
        generator=[torch.Generator().manual_seed(s) for _ in prompts for s in (0, 1)],
        output_type="latent",
        **small,
    )[0]
    alone = base._unpack_latents(alone, 16, 16, base.vae_scale_factor)
    np.testing.assert_array_equal(trace["final"].values.reshape(alone.shape), alone.numpy())


def test_the_sum_is_the_formula():
    """c + (g − 1)·(c − u) is u + g·(c − u); normalized, it has the norm of c."""
    u, c = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    plain = combine(Guidance(), 3.0, u, c)
    torch.testing.assert_close(combine(Guidance(beyond=True), 3.0, u, c), plain)
    (listed,) = combine(Guidance(), 3.0, [u], [c])
    assert torch.equal(listed, plain)
    normalized = combine(Guidance(normalized=True), 3.0, u, c)
    torch.testing.assert_close(normalized.norm(dim=-1), c.norm(dim=-1))
    torch.testing.assert_close(
        normalized / normalized.norm(dim=-1, keepdim=True), plain / plain.norm(dim=-1, keepdim=True)
    )
