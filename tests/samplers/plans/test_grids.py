"""Segments with a schedule of their own: validated, written and read, run as the pipeline runs it,
to the bit.
"""

from __future__ import annotations

import diffusers
import pytest
import torch

import xhat
from xhat.hooks.noise.levels import noise_levels
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.composite.run import lay_out
from xhat.samplers.plans.build import skip_plan, swap_plan, whole
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.recipe import hybrid_plan
from xhat.samplers.plans.schedule import scheduled

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
GRID = (999, 390, 155, 60)
TAKE_TIMESTEPS = {
    "lcm": lambda: diffusers.LCMScheduler(**STABLE, original_inference_steps=4),
    "tcd": lambda: diffusers.TCDScheduler(**STABLE),
    "ddpm": lambda: diffusers.DDPMScheduler(**STABLE, clip_sample=False),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**STABLE),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(**STABLE),
}
BASES = {
    "ddim": lambda: diffusers.DDIMScheduler(**STABLE, steps_offset=1, clip_sample=False),
    "euler_leading": lambda: diffusers.EulerDiscreteScheduler(
        **STABLE, timestep_spacing="leading", steps_offset=1
    ),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(**STABLE),
    "lcm": lambda: diffusers.LCMScheduler(**STABLE),
}


class Sampler:
    """As much of a pipeline as plans look at."""

    def __init__(self, scheduler, **defaults):
        self.scheduler, self.config = scheduler, {"_xhat": {"stated": defaults}}

    def __call__(self, num_inference_steps=50):
        raise AssertionError("plans evaluate nothing")


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ((999, 390, 155), "one for each of its 4 steps, got 3"),
        ((999, 390, 390, 60), "fall"),
        ((60, 155, 390, 999), "fall"),
        ((999, 390, 155, -1), "0 or more"),
        ((999, 390, 155, float("nan")), "finite"),
        ((float("inf"), 390, 155, 1), "finite"),
        ("9876", "numbers"),
        (4, "numbers"),
        (("999", 390, 155, 60), "numbers"),
    ],
)
def test_a_grid_that_is_none_is_refused(grid, words):
    with pytest.raises(ValueError, match=words):
        Segment("student", 0, 4, 4, timesteps=grid)


def test_sigmas_end_above_zero_and_only_one_thing_says_the_schedule():
    with pytest.raises(ValueError, match="above 0"):
        Segment("student", 0, 2, 2, sigmas=(1.0, 0.0))
    for twice in ({"sigmas": (9, 4, 2, 1)}, {"spacing": "trailing"}):
        with pytest.raises(ValueError, match="one of spacing, timesteps and sigmas"):
            Segment("student", 0, 4, 4, timesteps=GRID, **twice)


@pytest.mark.parametrize("grid", [list(GRID), torch.tensor(GRID), (999.0, 390.0, 155.0, 60.0)])
def test_a_grid_is_data(grid):
    plan = Plan([Segment("student", 0, 4, 4, timesteps=grid)])
    assert plan.segments[0].timesteps == GRID
    assert Plan.from_json(plan.to_json()) == plan
    assert hash(Plan.from_json(plan.to_json())) == hash(plan)
    assert "timesteps 999/390/155/60" in str(plan)


def test_segments_of_other_grids_do_not_go_on_from_each_other():
    first = Segment("student", 0, 2, 4, timesteps=GRID)
    assert Segment("student", 2, 4, 4, timesteps=GRID).continues(first)
    assert not Segment("student", 2, 4, 4).continues(first)


@pytest.mark.parametrize("name", sorted(TAKE_TIMESTEPS))
def test_a_plan_of_timesteps_is_the_pipeline_called_with_them(tiny, sample, name):
    pipe = tiny.build("sd", 0, TAKE_TIMESTEPS[name]())
    call = {"guidance_scale": 3.0}
    ours = compose({"a": pipe}, whole("a", pipe, timesteps=GRID, guidance_scale=3.0))
    assert ours.scheduler.timesteps.tolist() == list(GRID)
    assert torch.equal(sample(ours, "sd"), sample(pipe, "sd", timesteps=list(GRID), **call))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_plan_of_sigmas_is_the_pipeline_called_with_them(tiny, sample, name):
    pipe, sigmas = tiny.build(name, 0), [1.0, 0.7, 0.3, 0.1]
    ours = compose({"a": pipe}, whole("a", pipe, sigmas=sigmas, guidance_scale=3.5))
    theirs = sample(pipe, name, sigmas=sigmas, num_inference_steps=4, guidance_scale=3.5)
    assert torch.equal(sample(ours, name), theirs)


def test_sigmas_of_a_sigma_space_scheduler_end_at_zero_of_themselves(tiny, sample):
    pipe = tiny.build("sd", 0, TAKE_TIMESTEPS["euler"]())
    ours = compose({"a": pipe}, whole("a", pipe, sigmas=(14, 3, 0.5)))
    theirs = sample(pipe, "sd", sigmas=[14.0, 3.0, 0.5, 0.0], guidance_scale=1.0)
    assert torch.equal(sample(ours, "sd"), theirs)


def test_the_grid_that_a_scheduler_has_anyway_changes_nothing(tiny, sample):
    pipe = tiny.build("sd")  # DDIM, which takes no timesteps in a call
    own = noise_levels(pipe.scheduler, 4).timestep
    gridded = compose({"a": pipe}, whole("a", pipe, timesteps=own))
    assert torch.equal(
        sample(gridded, "sd"), sample(pipe, "sd", num_inference_steps=4, guidance_scale=1.0)
    )


def test_ddim_on_any_grid_is_own_noise_on_that_grid(tiny, sample):
    """Against LCM's timesteps with the noise kept: another scheduler, the same DDIM steps."""
    ddim = tiny.build("sd", 0, tiny.ddim(set_alpha_to_one=True))
    lcm = tiny.build("sd", 0, TAKE_TIMESTEPS["lcm"]())
    ours = compose({"a": ddim}, whole("a", ddim, timesteps=GRID))
    theirs = compose({"a": lcm}, whole("a", lcm, timesteps=GRID, noise="own"))
    torch.testing.assert_close(sample(ours, "sd"), sample(theirs, "sd"), rtol=1e-4, atol=1e-4)


def test_ddim_on_a_grid_that_ends_high_still_ends_at_the_picture(tiny):
    scheduler = tiny.ddim()
    plan = Plan([Segment("a", 0, 2, 2, timesteps=(999, 700))])
    last = lay_out(plan, {"a": scheduler})[-1]
    assert last.target.sigma == pytest.approx(noise_levels_at_the_end(scheduler))


def noise_levels_at_the_end(scheduler):
    final = float(scheduler.final_alpha_cumprod)
    return ((1 - final) / final) ** 0.5


@pytest.mark.parametrize("base", sorted(BASES))
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_hybrid_lands_exactly_on_the_students_grid(base, k):
    student = Sampler(TAKE_TIMESTEPS["lcm"](), num_inference_steps=4)
    pipe = Sampler(BASES[base]())
    plan = hybrid_plan(pipe, student, base_steps=k, student_timesteps=GRID)
    entries = lay_out(plan, {"base": pipe.scheduler, "student": student.scheduler})
    late = [entry for entry in entries if entry.segment.model == "student"]
    assert [float(entry.timestep) for entry in late] == list(GRID[k:])
    handing = entries[-len(late) - 1]
    assert handing.target == late[0].level
    assert float(entries[0].timestep) == 999


def test_the_grid_that_belongs_to_a_pipeline_is_taken():
    student = Sampler(TAKE_TIMESTEPS["lcm"](), timesteps=list(GRID))
    assert whole("s", student).segments[0] == Segment("s", 0, 4, 4, timesteps=GRID)
    assert skip_plan(student).segments[0] == Segment("student", 1, 4, 4, timesteps=GRID)
    assert whole("s", student, num_inference_steps=2).segments[0] == Segment("s", 0, 2, 2)
    base = Sampler(BASES["ddim"]())
    assert hybrid_plan(base, student).segments[-1] == Segment("student", 1, 4, 4, timesteps=GRID)


@pytest.mark.parametrize("base", sorted(set(BASES)))
def test_a_swapped_step_is_at_the_students_noise_level(base):
    student = Sampler(TAKE_TIMESTEPS["lcm"](), timesteps=list(GRID))
    pipe = Sampler(BASES[base]())
    plan = swap_plan(pipe, student, [0, 2])
    entries = lay_out(plan, {"base": pipe.scheduler, "student": student.scheduler})
    assert [float(entry.timestep) for entry in entries] == list(GRID)


@pytest.mark.parametrize(
    ("scheduler", "grid", "words"),
    [
        (lambda: diffusers.LCMScheduler(**STABLE), {"timesteps": (1000, 3)}, "0 to 999"),
        (lambda: diffusers.DDIMScheduler(**STABLE), {"timesteps": (1000, 3)}, "0 to 999"),
        (lambda: diffusers.DDIMScheduler(**STABLE), {"timesteps": (9.5, 3)}, "whole numbers"),
        (lambda: diffusers.DDIMScheduler(**STABLE), {"sigmas": (9.5, 3)}, "timesteps"),
        (diffusers.FlowMatchEulerDiscreteScheduler, {"timesteps": (900, 3)}, "sigmas"),
        (diffusers.EDMEulerScheduler, {"sigmas": (9, 3)}, "number of steps"),
        (diffusers.LMSDiscreteScheduler, {"timesteps": (900, 3)}, "number of steps"),
        (diffusers.UniPCMultistepScheduler, {"sigmas": (9, 3)}, "number of steps"),
    ],
)
def test_a_scheduler_that_cannot_have_a_grid_refuses_it_by_name(scheduler, grid, words):
    made = scheduler()
    with pytest.raises(ValueError, match=words) as error:
        scheduled(made, Segment("student", 0, 2, 2, **grid))
    assert "'student'" in str(error.value)


def test_the_call_of_a_hybrid_takes_no_grid(tiny, pairs, sample):
    pair = pairs("sd")
    with pytest.raises(ValueError, match="student_timesteps"):
        sample(xhat.hybrid(pair.base, pair.student), "sd", timesteps=list(GRID))
