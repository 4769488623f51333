"""What trainers sample is what a pipeline samples; half precision is used where it is faster."""

import pytest
import torch

from xhat.zoo.family.distil import TIMESTEPS
from xhat.zoo.family.networks import follower_scheduler, student_scheduler
from xhat.zoo.family.precision import bfloat16_is_faster, half_precision
from xhat.zoo.load.embedded import LATE_TIMESTEPS


def by_scheduler(teacher, scheduler, cond, timesteps, eps):
    """Latents by a diffusers scheduler's own steps, its noises taken from ``eps``."""
    scheduler.set_timesteps(timesteps=list(timesteps))
    x, noises = eps[0] * scheduler.init_noise_sigma, iter(eps[1:])
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t)
        v = teacher.evaluate(teacher.unet, given, t.expand(len(x)), cond)
        x = (
            scheduler.step(v, t, x).prev_sample
            if noises is None
            else step(scheduler, v, t, x, noises)
        )
    return x


def step(scheduler, v, t, x, noises):
    out = scheduler.step(v, t, x, generator=torch.Generator().manual_seed(0))
    if not hasattr(out, "denoised") or t == scheduler.timesteps[-1]:
        return out.prev_sample
    below = scheduler.timesteps[scheduler.timesteps.tolist().index(int(t)) + 1]
    return scheduler.add_noise(out.denoised, next(noises), below[None])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("timesteps", [TIMESTEPS, LATE_TIMESTEPS])
def test_a_renoised_student_samples_as_lcm(shipped_teacher, normal, timesteps):
    cond, eps = shipped_teacher.condition(["a planet", "a red critter"]), normal(4, 2)
    ours = shipped_teacher.renoised(shipped_teacher.unet, cond, timesteps, eps)
    theirs = by_scheduler(shipped_teacher, student_scheduler(), cond, timesteps, eps)
    assert torch.allclose(ours, theirs, atol=2e-4)


@torch.no_grad()
def test_a_student_that_follows_samples_as_euler(shipped_teacher, normal):
    cond, eps = shipped_teacher.condition(["a planet", "a red critter"]), normal(1, 2)
    scheduler = follower_scheduler()
    scheduler.set_timesteps(timesteps=list(TIMESTEPS))
    assert scheduler.timesteps.tolist() == list(TIMESTEPS)
    # Euler starts from σ·ε, the pipeline of a variance-preserving scheduler from ε: scaled to agree
    start = eps[0] / scheduler.scale_model_input(
        torch.tensor(float(scheduler.init_noise_sigma)), scheduler.timesteps[0]
    )
    ours = shipped_teacher.followed(shipped_teacher.unet, cond, TIMESTEPS, eps[0])
    theirs = by_scheduler(shipped_teacher, follower_scheduler(), cond, TIMESTEPS, start[None])
    assert torch.allclose(ours, theirs, atol=2e-3)


@torch.no_grad()
def test_states_are_what_the_evaluations_are_given(shipped_teacher, normal):
    cond, eps = shipped_teacher.condition(["a planet"]), normal(3, 1)
    unet, grid = shipped_teacher.unet, TIMESTEPS[:3]
    states = list(shipped_teacher.states(unet, cond, grid, eps))
    made = list(shipped_teacher.renoisings(unet, cond, grid, eps))
    for x_t, at, x0 in zip(states, grid, made, strict=True):
        assert torch.equal(shipped_teacher.predict(unet, x_t, torch.tensor([at]), cond), x0)


@torch.no_grad()
def test_guidance_leads_from_the_empty_prompt_through_the_prompt(teacher, normal):
    x, t = normal(2), torch.full((2,), 500)
    cond = teacher.condition(["a planet", "a red critter"])
    given = teacher.predict(teacher.unet, x, t, cond)
    without = teacher.predict(teacher.unet, x, t, teacher.condition(["", ""]))
    for scale, expected in ((0.0, without), (1.0, given), (3.0, 3 * given - 2 * without)):
        guided = teacher.guided(x, t, cond, scale)
        torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_the_last_evaluation_only(teacher, normal):
    student = teacher.student()
    calls = []
    student.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    teacher.renoised(student, teacher.condition(["a planet"]), TIMESTEPS, normal(4, 1))
    assert calls == [False, False, False, True]


def test_precision_is_the_machines():
    x = torch.ones(4, 4)
    with half_precision("cpu"):
        dtype = (x @ x).dtype
    assert dtype == (torch.bfloat16 if bfloat16_is_faster("cpu") else torch.float32)
    assert bfloat16_is_faster.cache_info().hits  # timed once
