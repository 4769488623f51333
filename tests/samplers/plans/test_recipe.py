"""How the base makes a student's first steps: in how many evaluations, with which noise, at what
cost.
"""

from __future__ import annotations

import diffusers
import pytest
import torch

import xhat
from xhat.hooks.model import model_of
from xhat.samplers.composite.run import lay_out
from xhat.samplers.plans.recipe import BASE_EVALUATIONS, Recipe, hybrid_plan, recipe_of

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Sampler:
    """As much of a pipeline as plans look at."""

    def __init__(self, scheduler, **defaults):
        self.scheduler, self.config = scheduler, {"_xhat": {"stated": defaults}}

    def __call__(self, num_inference_steps=50):
        raise AssertionError("plans evaluate nothing")


BASE = Sampler(diffusers.DDIMScheduler(**STABLE, timestep_spacing="leading", steps_offset=1))
STUDENT = Sampler(
    diffusers.LCMScheduler(**STABLE, original_inference_steps=4), num_inference_steps=4
)
MODELS = {"base": BASE.scheduler, "student": STUDENT.scheduler}


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("evaluations", [1, 2, 5, 9])
def test_the_base_goes_from_pure_noise_to_the_students_level_in_so_many(k, evaluations):
    plan = hybrid_plan(BASE, STUDENT, base_steps=k, base_evaluations=evaluations)
    entries = lay_out(plan, MODELS)
    assert plan.segment_of_step == ["base"] * evaluations + ["student"] * (4 - k)
    sigmas = [entry.level.sigma for entry in entries]
    assert sigmas == sorted(sigmas, reverse=True)
    assert float(entries[0].timestep) == 999
    assert entries[evaluations - 1].target == entries[evaluations].level
    assert plan.evaluations == evaluations + 4 - k


@pytest.mark.parametrize(
    ("noise", "ways"),
    [
        ("own", ["own"] * 5),
        ("fresh", ["own"] * 4 + ["fresh"]),
        ("shared", ["shared"] * 5),
        (None, [None] * 5),  # DDIM's own steps: of its twenty, the fifth ends at 749
    ],
)
def test_where_the_noise_of_the_base_comes_from(noise, ways):
    plan = hybrid_plan(BASE, STUDENT, noise=noise, base_evaluations=5)
    assert [e.noise for e in lay_out(plan, MODELS)] == [*ways, None, None, None]


def test_own_noise_needs_no_deterministic_base():
    """A base under LCM's scheduler re-noises at every step; by the recipe it does not."""
    base = Sampler(diffusers.LCMScheduler(**STABLE))
    plan = hybrid_plan(base, STUDENT)
    entries = lay_out(plan, {**MODELS, "base": base.scheduler})
    assert [e.noise for e in entries[:BASE_EVALUATIONS]] == ["own"] * BASE_EVALUATIONS


def test_the_base_alone_decides_what_is_handed_over(pairs, sample):
    """No noise is drawn on the way down: with one x_T, two generators agree there."""
    pair = pairs("sd")
    hybrid = xhat.hybrid(pair.base, pair.student)
    x_T = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    handed = []

    def keep(pipe, step, timestep, kwargs):
        if step == BASE_EVALUATIONS - 1:
            handed.append(kwargs["latents"].clone())
        return {}

    for seed in (1, 2):
        hybrid(
            "a robot",
            latents=x_T,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            height=16,
            width=16,
            callback_on_step_end=keep,
        )
    assert torch.equal(*handed)


def test_the_papers_recipe_is_one_unguided_evaluation_and_fresh_noise():
    plan = hybrid_plan(BASE, STUDENT, "paper")
    (first, _) = plan.segments
    assert plan.evaluations == 4
    assert (len(first.steps), first.guidance_scale, first.noise) == (1, 1, "fresh")
    assert recipe_of("paper", base_steps=2).base_evaluations == 2
    assert recipe_of("paper", noise="own") == Recipe(
        base_evaluations=1, noise="own", base_guidance_scale=1.0
    )


def test_a_hybrid_says_what_it_costs(pairs):
    pair = pairs("sd")
    hybrid = xhat.hybrid(pair.base, pair.student)
    assert model_of(hybrid).description["evaluations"] == BASE_EVALUATIONS + 3
    assert f"{BASE_EVALUATIONS + 3} evaluations" in repr(hybrid.scheduler)
    guided = xhat.hybrid(pair.base, pair.student, base_guidance_scale=3.0)
    assert model_of(guided).description["evaluations"] == 2 * BASE_EVALUATIONS + 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_steps": 0}, "base_steps=0"),
        ({"base_evaluations": 0}, "base_evaluations=0"),
        ({"base_evaluations": 2.0}, "whole number"),
        ({"base_evaluations": True}, "whole number"),
        ({"noise": "new"}, "fresh, own, shared"),
        ({"base_evaluations": 5, "base_num_inference_steps": 20}, "give one"),
        ({"recipe": "papper"}, "paper"),
        ({"student_timesteps": (999, 390), "student_num_inference_steps": 4}, "2 timesteps for 4"),
        ({"base_steps": 4}, "1 to 3"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        hybrid_plan(BASE, STUDENT, **options)


def test_an_option_that_there_is_not_is_told_with_the_nearest(pairs):
    pair = pairs("sd")
    with pytest.raises(TypeError, match="base_evaluations"):
        xhat.hybrid(pair.base, pair.student, base_evaluation=3)


def test_a_plan_is_not_mixed_with_a_recipe(pairs):
    pair = pairs("sd")
    plan = hybrid_plan(pair.base, pair.student)
    for option in ({"base_steps": 2}, {"recipe": "paper"}, {"noise": "own"}):
        with pytest.raises(ValueError, match="pass one of them"):
            xhat.hybrid(pair.base, pair.student, plan=plan, **option)
