"""Plans made for a pair: which schedule, which steps, and every control told from every other."""

from __future__ import annotations

from itertools import combinations

import diffusers
import pytest
import torch

import xhat
from xhat.hooks.noise.levels import noise_levels
from xhat.samplers.composite.run import lay_out
from xhat.samplers.plans.build import control_plans, skip_plan, swap_plan, whole, with_noise
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.recipe import hybrid_plan, trailing
from xhat.samplers.plans.schedule import scheduled

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BASES = {
    "ddim_trailing": lambda: diffusers.DDIMScheduler(**STABLE, timestep_spacing="trailing"),
    "ddim_leading": lambda: diffusers.DDIMScheduler(**STABLE, steps_offset=1),
    "euler_leading": lambda: diffusers.EulerDiscreteScheduler(
        **STABLE, timestep_spacing="leading", steps_offset=1
    ),
    "dpm_linspace": lambda: diffusers.DPMSolverMultistepScheduler(**STABLE),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(),
}


class Sampler:
    """As much of a pipeline as plans look at."""

    def __init__(self, scheduler, **defaults):
        self.scheduler, self.config = scheduler, {"_xhat": {"stated": defaults}}

    def __call__(self, num_inference_steps=50):
        raise AssertionError("plans evaluate nothing")


STUDENT = Sampler(
    diffusers.LCMScheduler(**STABLE, original_inference_steps=4), num_inference_steps=4
)


@pytest.mark.parametrize("base", sorted(BASES))
@pytest.mark.parametrize("replaced", [1, 2, 3])
def test_the_base_starts_at_the_top_and_makes_as_many_steps(base, replaced):
    """Whatever the spacing of the base's scheduler: SDXL's own, leading, would start its four steps
    at 751.
    """
    pipe = Sampler(BASES[base]())
    plan = hybrid_plan(pipe, STUDENT, base_steps=replaced, base_evaluations=replaced)
    assert plan.segment_of_step == ["base"] * replaced + ["student"] * (4 - replaced)
    entries = lay_out(plan, {"base": pipe.scheduler, "student": STUDENT.scheduler})
    top = 1000 if base == "flow" else 999
    assert float(entries[0].timestep) == top
    assert entries[replaced - 1].target == entries[replaced].level
    assert float(entries[replaced].timestep) == [999, 749, 499, 249][replaced]


def test_a_finer_base_makes_all_its_steps_above_the_hand_over():
    pipe = Sampler(BASES["ddim_trailing"]())
    assert hybrid_plan(pipe, STUDENT, base_num_inference_steps=20).segments[0] == Segment(
        "base", 0, 5, 20, noise="own"
    )
    assert (
        hybrid_plan(pipe, STUDENT, base_steps=2, base_num_inference_steps=20).segments[0].stop == 10
    )


def test_defaults_are_the_pipelines_own():
    assert default_steps(Sampler(BASES["flow"](), num_inference_steps=7)) == 7
    assert default_steps(Sampler(BASES["flow"]())) == 50
    assert default_steps(Sampler(diffusers.TCDScheduler(**STABLE))) == 4
    assert default_steps(Sampler(diffusers.LCMScheduler(**STABLE, original_inference_steps=2))) == 2
    assert default_guidance(Sampler(None)) == 1
    assert default_guidance(Sampler(None, guidance_scale=3.5)) == 3.5
    assert whole("a", Sampler(BASES["flow"](), num_inference_steps=5, guidance_scale=2)).segments[
        0
    ] == Segment("a", 0, 5, 5, 2)


def test_trailing_is_asked_for_only_where_it_is_not_there():
    assert {name: trailing(make()) for name, make in BASES.items()} == {
        "ddim_trailing": None,
        "ddim_leading": "trailing",
        "euler_leading": "trailing",
        "dpm_linspace": "trailing",
        "flow": None,
    }


@pytest.mark.parametrize("replaced", [set(c) for k in range(5) for c in combinations(range(4), k)])
def test_every_set_of_steps_can_be_swapped(replaced):
    pipe = Sampler(BASES["ddim_leading"]())
    plan = swap_plan(pipe, STUDENT, replaced)
    assert plan.segment_of_step == ["base" if i in replaced else "student" for i in range(4)]
    entries = lay_out(plan, {"base": pipe.scheduler, "student": STUDENT.scheduler})
    assert [float(e.timestep) for e in entries] == [999, 749, 499, 249]
    assert all(
        e.noise is None for e in entries
    )  # at matched levels every step is its own scheduler's


def test_steps_that_are_not_there_cannot_be_swapped():
    with pytest.raises(ValueError, match="0 to 3"):
        swap_plan(Sampler(BASES["flow"]()), STUDENT, [4])


def test_a_swap_for_itself_is_the_student_to_the_bit(tiny, pairs, sample):
    """Base := the student. Whatever steps are swapped, the re-noising draws the same noise at the
    same steps.
    """
    pair = pairs("sd")
    alone = sample(pair.student, "sd", num_inference_steps=4, guidance_scale=1.0)
    for replaced in ([0], [1, 2], [0, 3]):
        plan = swap_plan(pair.student, pair.student, replaced)
        assert torch.equal(sample(xhat.hybrid(pair.student, pair.student, plan=plan), "sd"), alone)


def test_skipping_begins_lower_with_the_same_noise(tiny, pairs):
    pair = pairs("sd")
    plan = skip_plan(pair.student)
    assert plan == Plan([Segment("student", 1, 4, 4)])
    x_T = []
    for p in (plan, whole("student", pair.student)):
        hybrid = xhat.hybrid(pair.base, pair.student, plan=p)
        hybrid(
            "a robot",
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
            height=16,
            width=16,
        )
        x_T.append(hybrid.scheduler.run.x_T)
    assert torch.equal(*x_T)


def test_no_schedule_is_an_error_that_says_so():
    base = Sampler(diffusers.LCMScheduler(**STABLE, original_inference_steps=1))
    with pytest.raises(ValueError, match="base_num_inference_steps"):
        hybrid_plan(base, STUDENT, base_steps=2)


@pytest.fixture(scope="module")
def controlled(pairs, sample):
    pair = pairs("sd")
    plans = control_plans(pair.base, pair.student, num_inference_steps=4)
    run = {}
    for name, plan in plans.items():
        hybrid = xhat.hybrid(pair.base, pair.student, plan=plan)
        run[name] = sample(hybrid, "sd", seeds=range(3)), hybrid.scheduler.run.evaluations
    return plans, run


@pytest.mark.slow
def test_controls_cost_what_their_plans_say(controlled):
    plans, run = controlled
    assert {name: cost for name, (_, cost) in run.items()} == {
        name: p.evaluations for name, p in plans.items()
    }
    assert run["skip"][1] == 3
    assert run["student"][1] == run["hybrid_one"][1] == run["hybrid_paper"][1] == 4
    assert run["hybrid"][1] == 5 + 3


@pytest.mark.slow
def test_controls_are_not_one_another(controlled):
    plans, run = controlled
    same = {frozenset(p) for p in (("student", "strength_1"),)}
    for a, b in combinations(plans, 2):
        assert torch.equal(run[a][0], run[b][0]) == (frozenset((a, b)) in same), (a, b)


@pytest.mark.slow
def test_dialled_to_the_base_the_student_is_the_base_on_the_students_schedule(
    pairs, controlled, sample
):
    pair = pairs("sd")
    own = xhat.hybrid(pair.base, pair.base, plan=Plan([Segment("student", 0, 4, 4)]))
    own.scheduler.schedulers["student"] = pair.student.scheduler
    assert torch.equal(sample(own, "sd", seeds=range(3)), controlled[1]["strength_0"][0])


def test_zeroed_estimates_leave_nothing_of_the_base(pairs, sample):
    """With x̂₀ zeroed and fresh noise, the base's weights no longer matter; with its x̂₀ they
    do.
    """
    pair = pairs("sd")
    for x0, equal in (("zero", True), (None, False)):
        plan = hybrid_plan(pair.base, pair.student, noise="fresh", x0=x0, base_evaluations=1)
        found = [
            sample(xhat.hybrid(base, pair.student, plan=plan), "sd")
            for base in (pair.base, pair.students["two"])
        ]
        assert torch.equal(*found) == equal


def test_without_fresh_noise_no_generator_is_drawn_from(pairs, tiny):
    pair = pairs("sd")
    for noise, drawn in ((None, True), ("own", False), ("shared", False)):
        generator = torch.Generator().manual_seed(0)
        plan = with_noise(whole("student", pair.student), noise)
        hybrid = xhat.hybrid(pair.base, pair.student, plan=plan)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        before = generator.get_state()
        hybrid(
            "a robot",
            latents=latents,
            generator=generator,
            output_type="latent",
            height=16,
            width=16,
        )
        assert torch.equal(before, generator.get_state()) != drawn


def test_own_noise_is_ddim_on_the_students_timesteps(pairs, sample):
    """The noise-free student is its network under DDIM with the same timesteps (but for DDIM's last
    level).
    """
    pair = pairs("sd")
    own = xhat.hybrid(pair.base, pair.student, plan=whole("student", pair.student, noise="own"))
    ddim = xhat.hybrid(pair.base, pair.student, plan=Plan([Segment("student", 0, 4, 4)]))
    ddim.scheduler.schedulers["student"] = diffusers.DDIMScheduler(
        **STABLE, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    ours, theirs = sample(own, "sd"), sample(ddim, "sd")
    levels = noise_levels(
        scheduled(ddim.scheduler.schedulers["student"], Segment("student", 0, 4, 4))
    )
    assert levels.timestep.tolist() == [999, 749, 499, 249]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_shared_noise_is_the_same_in_every_arm(pairs, sample):
    """Two samples that were handed the same x̂₀ and the one shared noise are the same picture from
    there on.
    """
    pair = pairs("sd")
    plan = hybrid_plan(pair.base, pair.student, noise="shared", x0="zero")
    found = sample(
        xhat.hybrid(pair.base, pair.student, plan=with_noise_after(plan)), "sd", seeds=range(2)
    )
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], found[2], rtol=1e-2, atol=1e-2)  # another prompt


def with_noise_after(plan):
    first, rest = plan.segments
    return Plan(
        [
            first,
            Segment(rest.model, rest.start, rest.stop, rest.num_inference_steps, noise="shared"),
        ]
    )
