"""A hybrid of one model is that model, to the bit; a hybrid of two is what a loop written by hand
says.
"""

import diffusers
import numpy as np
import pytest
import torch

import xhat
from xhat.hooks.model import model_of
from xhat.hooks.noise.levels import noise_level, noise_levels
from xhat.hooks.noise.x0 import x0_at
from xhat.samplers.plans.plan import Plan, Segment

PROMPTS = ["a planet", "a red robot"]
SHARED = ("text_encoder", "text_encoder_2", "text_encoder_3", "vae")
FAMILIES = ("sd", "sdxl", "sd3", "pixart")


def lcm(**extra):
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.LCMScheduler(**betas, original_inference_steps=4, **extra)


def pair(tiny, name, scheduler=None):
    """Base and student of one family: other weights in the denoiser, all else in common."""
    base = tiny.build(name, 0)
    student = tiny.build(name, 1, scheduler or (lcm() if name in ("sd", "sdxl") else None))
    student.register_modules(
        **{part: getattr(base, part) for part in SHARED if getattr(base, part, None) is not None}
    )
    return base, student


def latents_of(tiny, name, pipe, prompts=PROMPTS, **kwargs):
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    arguments = tiny.call_arguments(name) | kwargs
    return pipe(prompts, generator=generators, output_type="latent", **arguments)[0]


@pytest.fixture(scope="module")
def sd_pair(tiny):
    return pair(tiny, "sd")


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_base_steps_only_are_the_base(tiny, name, guidance_scale):
    base, student = pair(tiny, name)
    alone = latents_of(tiny, name, base, num_inference_steps=4, guidance_scale=guidance_scale)
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 4, 4, guidance_scale)]))
    assert type(hybrid) is type(base)
    assert torch.equal(latents_of(tiny, name, hybrid), alone)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_student_steps_only_are_the_student(tiny, name, guidance_scale):
    base, student = pair(tiny, name)
    alone = latents_of(tiny, name, student, num_inference_steps=4, guidance_scale=guidance_scale)
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("student", 0, 4, 4, guidance_scale)]))
    assert torch.equal(latents_of(tiny, name, hybrid), alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheduler",
    [
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_a_schedule_cut_in_two_is_the_whole(tiny, sd_pair, scheduler):
    """Two segments of one schedule run on: σ-space, noise and multistep terms included."""
    base, student = sd_pair[0], tiny.build("sd", 0)
    student.scheduler = getattr(diffusers, scheduler).from_config(base.scheduler.config)
    student.register_modules(text_encoder=base.text_encoder, vae=base.vae)
    alone = latents_of(tiny, "sd", student, num_inference_steps=5, guidance_scale=2.0)
    cut = Plan([Segment("student", 0, 2, 5, 2.0), Segment("student", 2, 5, 5, 2.0)])
    assert torch.equal(latents_of(tiny, "sd", xhat.hybrid(base, student, plan=cut)), alone)


@pytest.mark.slow
def test_embedded_guidance_is_the_students_own(tiny, sd_pair):
    """A network that takes the guidance scale as an input gets it, in one evaluation (LCM)."""
    base = sd_pair[0]
    student = tiny.build("sd", 1, lcm())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_config(
            {**student.unet.config, "time_cond_proj_dim": 8}
        ).eval()
    student.register_modules(unet=unet, text_encoder=base.text_encoder, vae=base.vae)
    alone = latents_of(tiny, "sd", student, num_inference_steps=4, guidance_scale=5.0)
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("student", 0, 4, 4, 5.0)]))
    assert torch.equal(latents_of(tiny, "sd", hybrid), alone)
    assert not torch.equal(
        alone, latents_of(tiny, "sd", student, num_inference_steps=4, guidance_scale=2.0)
    )


def by_hand(base, student, guidance_scale):
    """One DDIM step of the base, 999 → 749, and LCM from there: diffusers' schedulers and networks,
    no hybrid.
    """
    cond, uncond = base.encode_prompt(PROMPTS, "cpu", 1, True)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
    x = torch.cat([torch.randn(1, 4, 8, 8, generator=g) for g in generators])
    with torch.no_grad():
        base.scheduler.set_timesteps(4)
        eps = base.unet(torch.cat([x, x]), 999, torch.cat([uncond, cond]), return_dict=False)[0]
        u, c = eps.chunk(2)
        eps = u + guidance_scale * (c - u)
        x = base.scheduler.step(eps, 999, x).prev_sample
        student.scheduler.set_timesteps(4)
        student.scheduler.set_begin_index(1)
        for t in student.scheduler.timesteps[1:]:
            eps = student.unet(x, t, cond, return_dict=False)[0]
            x = student.scheduler.step(eps, t, x, generator=generators).prev_sample
    return x


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_hybrid_is_the_loop_written_by_hand(tiny, guidance_scale):
    base, student = pair(tiny, "sd")
    hybrid = xhat.hybrid(
        base,
        student,
        student_num_inference_steps=4,
        base_evaluations=1,
        base_guidance_scale=guidance_scale,
    )
    out = latents_of(tiny, "sd", hybrid)
    torch.testing.assert_close(out, by_hand(base, student, guidance_scale), rtol=1e-4, atol=1e-5)


def test_default_hybrid_hands_over_at_the_students_second_timestep(sd_pair):
    hybrid = xhat.hybrid(*sd_pair)
    assert hybrid.scheduler.segment_of_step == ["base"] * 5 + ["student"] * 3
    assert hybrid.scheduler.timesteps.tolist()[::5] == [999, 749]
    assert hybrid.scheduler.timesteps.tolist()[5:] == [749, 499, 249]
    assert xhat.defaults(hybrid) == {"num_inference_steps": 8, "guidance_scale": 1.0}


@pytest.mark.parametrize("steps", [4, 7, 20])
def test_every_step_begins_where_the_one_before_ends(sd_pair, steps):
    hybrid = xhat.hybrid(*sd_pair, base_num_inference_steps=steps)
    entries = hybrid.scheduler.run.entries
    handed_over = noise_level(sd_pair[1].scheduler, 749).sigma
    for before, after in zip(entries, entries[1:], strict=False):
        assert before.target == after.level
    base = [entry for entry in entries if entry.segment.model == "base"]
    assert base[-1].level.sigma > base[-1].target.sigma == handed_over
    own = noise_levels(sd_pair[0].scheduler, steps).sigma
    assert len(base) == (own > handed_over * (1 + 1e-5)).sum()


@pytest.mark.slow
def test_number_of_steps_and_guidance_of_the_call_change_nothing(tiny, sd_pair):
    hybrid = xhat.hybrid(*sd_pair, base_guidance_scale=2.0)
    plain = latents_of(tiny, "sd", hybrid)
    assert torch.equal(
        latents_of(tiny, "sd", hybrid, num_inference_steps=11, guidance_scale=9.0), plain
    )
    assert torch.equal(latents_of(tiny, "sd", hybrid), plain)


@pytest.mark.slow
def test_the_pipelines_are_left_as_they_were(tiny):
    base, student = pair(tiny, "sd")
    before = (
        latents_of(tiny, "sd", base, num_inference_steps=3),
        base.unet,
        base.scheduler,
        student.scheduler,
    )
    latents_of(tiny, "sd", xhat.hybrid(base, student))
    after = (
        latents_of(tiny, "sd", base, num_inference_steps=3),
        base.unet,
        base.scheduler,
        student.scheduler,
    )
    assert torch.equal(before[0], after[0])
    assert all(a is b for a, b in zip(before[1:], after[1:], strict=True))
    assert "encode_prompt" not in vars(base)
    assert model_of(base).origin == "pipeline"


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch(tiny, sd_pair):
    hybrid = xhat.hybrid(*sd_pair)
    both = latents_of(tiny, "sd", hybrid)
    torch.testing.assert_close(
        latents_of(tiny, "sd", hybrid, PROMPTS[:1])[0], both[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_a_hybrid_is_traced_like_any_pipeline(tiny, name):
    base, student = pair(tiny, name)
    hybrid = xhat.hybrid(base, student, student_num_inference_steps=4, base_evaluations=1)
    traced = xhat.trace(
        hybrid,
        PROMPTS[0],
        seeds=[0],
        progress=False,
        output_type="latent",
        **tiny.call_arguments(name),
    )
    assert traced["segment"].values.tolist() == ["base", "student", "student", "student"]
    untraced = latents_of(tiny, name, hybrid, PROMPTS[:1])
    np.testing.assert_array_equal(traced["final"].values[0, 0], untraced[0].numpy())
    entries = hybrid.scheduler.run.entries
    for step, entry in enumerate(entries):
        output, x_t = (
            torch.from_numpy(traced[key].values[0, :, step].copy())
            for key in ("model_output", "latents")
        )
        x0 = x0_at(entry.scheduler, output.float(), entry.level, x_t.float())
        np.testing.assert_allclose(
            traced["pred_x0"].values[0, :, step], x0.numpy(), rtol=2e-2, atol=2e-2
        )
    np.testing.assert_allclose(
        traced["sigma"].values, [entry.level.sigma for entry in entries], rtol=1e-6
    )


@pytest.mark.slow
def test_a_hybrid_is_identified_as_its_base_is(tiny, tmp_path):
    """What made its samples can be told from another of its kind: so a store of it can resume."""
    from xhat.hooks.describe import describe

    base, student = tiny.sd(), tiny.sd(seed=1)
    pipe = xhat.hybrid(base, student, base_steps=1, student_num_inference_steps=4)
    assert "unidentified" not in describe(base)
    assert "unidentified" not in describe(pipe)


@pytest.mark.slow
def test_a_segment_enters_at_the_first_of_two_equal_timesteps(tiny):
    """Of Karras' 60 levels the last two round to one timestep: the step tells them apart."""
    base, student = tiny.sd(), tiny.sd()
    for pipe in (base, student):
        pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
            pipe.scheduler.config, solver_order=1, use_karras_sigmas=True
        )
    base.scheduler.set_timesteps(60)
    assert base.scheduler.timesteps[58] == base.scheduler.timesteps[59]
    alone = latents_of(tiny, "sd", base, ["a planet"], num_inference_steps=60, guidance_scale=1.0)
    plan = Plan([Segment("student", 0, 58, 60, 1.0), Segment("base", 58, 60, 60, 1.0)])
    assert torch.equal(
        latents_of(tiny, "sd", xhat.hybrid(base, student, plan=plan), ["a planet"]), alone
    )
