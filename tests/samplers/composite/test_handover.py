"""Hand-overs between schedulers of every kind: exact in noise level, and no harm to the path of an
exact denoiser.
"""

from __future__ import annotations

import math
from itertools import product

import diffusers
import numpy as np
import pytest
import torch

from xhat.hooks.noise.levels import (
    NoiseLevel,
    kind,
    noise_level,
    noise_levels,
    prediction,
    scales,
    space,
)
from xhat.hooks.noise.x0 import eps_from_x0, pred_x0, x0_at
from xhat.samplers.composite.handover import (
    carry,
    check_divisible,
    close,
    landing,
    output_of_x0,
    respace,
    unit,
)
from xhat.samplers.composite.run import lay_out
from xhat.samplers.composite.scheduler import CompositeScheduler
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.schedule import timestep_at

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAILING = {**STABLE, "timestep_spacing": "trailing"}
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(**TRAILING, clip_sample=False, set_alpha_to_one=False),
    "ddim_v": lambda: diffusers.DDIMScheduler(
        **TRAILING, clip_sample=False, prediction_type="v_prediction"
    ),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**TRAILING),
    "dpm++_karras": lambda: diffusers.DPMSolverMultistepScheduler(
        **TRAILING, use_karras_sigmas=True
    ),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(**TRAILING),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**TRAILING),
    "euler_a": lambda: diffusers.EulerAncestralDiscreteScheduler(**TRAILING),
    "lcm": lambda: diffusers.LCMScheduler(**STABLE, original_inference_steps=50),
    "tcd": lambda: diffusers.TCDScheduler(**STABLE),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}
EXACT_STEPS = {"ddim", "ddim_v", "dpm++", "dpm++_karras", "unipc", "euler", "flow"}
MEAN, SPREAD = 0.3, 0.5


def gaussian_output(scheduler, level, x_t):
    """What a perfect model of data N(MEAN, SPREAD²) predicts: x̂₀ = m + a·s²/(a²s²+b²)·(x_t − a·m).

    A perfect consistency model, which LCM's steps are for, predicts the end of the probability
    flow."""
    a, b = scales(scheduler, level)
    if kind(scheduler) == "LCMScheduler":
        x0 = end_of_flow(x_t, level)
    else:
        x0 = MEAN + a * SPREAD**2 / (a * a * SPREAD**2 + b * b) * (x_t - a * MEAN)
    return output_of_x0(scheduler, x0, level, x_t)


def end_of_flow(x_T, level):
    """Where the probability flow takes x_T (VP) of such data: (x − √ᾱ·m)/√(ᾱ·s²+1−ᾱ) stays the
    same.
    """
    a, b = math.sqrt(level.alpha_bar), math.sqrt(1 - level.alpha_bar)
    return MEAN + SPREAD * (x_T - a * MEAN) / math.sqrt(a * a * SPREAD**2 + b * b)


def run(composite, x, generator=None):
    """The loop of a pipeline, with the perfect model."""
    states = []
    for t in composite.timesteps:
        entry = composite.run.entry
        composite.scale_model_input(x, t)
        states.append((entry, x))
        x = composite.step(
            gaussian_output(entry.scheduler, entry.level, x),
            t,
            x,
            generator=generator,
            return_dict=False,
        )[0]
    return x, states


def two(first, second, n=8, m=8, start=4):
    """The first scheduler's steps above the second's step ``start``, and the second's steps from
    there.
    """
    schedulers = {"a": SCHEDULERS[first](), "b": SCHEDULERS[second]()}
    sigma = noise_levels(schedulers["b"], m).sigma[start]
    stop = int((noise_levels(schedulers["a"], n).sigma > sigma * 1.00001).sum())
    return CompositeScheduler(
        Plan([Segment("a", 0, stop, n), Segment("b", start, m, m)]), schedulers
    )


def begin(composite, shape=(64, 1)):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise, noise * float(composite.init_noise_sigma)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), product(SCHEDULERS, SCHEDULERS))
def test_the_step_before_ends_where_the_step_after_begins(first, second):
    """Every pair: the state handed over lies at exactly the next level, in the next scheduler's own
    space.

    For a perfect model a state at level (a, b) has mean a·m and variance a²s² + b² over its
    samples, and no other."""
    composite = two(first, second, n=24, m=24, start=12)
    entries = composite.run.entries
    edge = next(i for i, e in enumerate(entries) if e.segment.model == "b")
    if entries[edge - 1].noise is None:
        assert close(
            landing(entries[edge - 1].scheduler, entries[edge - 1].step), entries[edge].level.sigma
        )
    a, b = scales(entries[0].scheduler, entries[0].level)
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    x = a * MEAN + math.hypot(a * SPREAD, b) * noise
    generator = torch.Generator().manual_seed(1)
    _, states = run(composite, x.float(), generator)
    entry, x = states[edge]
    a, b = scales(entry.scheduler, entry.level)
    deviation = math.sqrt(a * a * SPREAD**2 + b * b)
    assert (
        abs(float(x.mean()) - a * MEAN) < 0.04 * deviation
    )  # few steps leave some of the solver's own error
    assert float(x.std()) / deviation == pytest.approx(1, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), product(sorted(EXACT_STEPS), sorted(EXACT_STEPS)))
def test_deterministic_pairs_follow_the_probability_flow(first, second):
    composite = two(first, second, n=120, m=120, start=60)
    noise, x = begin(composite)
    level = composite.run.entries[0].level
    end, _ = run(composite, x)
    expected = end_of_flow(noise, level)
    assert float((end - expected).abs().max()) < 0.05
    assert float((end - expected).std()) < 0.02


def test_the_error_of_a_hybrid_falls_with_its_steps():
    """DDIM is of first order, and stays so across a hand-over."""
    errors = []
    for n in (20, 40, 80):
        composite = two("ddim", "euler", n=n, m=n, start=n // 2)
        noise, x = begin(composite)
        end, _ = run(composite, x)
        # up to what the last step leaves: DDIM ends at the first training step's level, not at zero
        errors.append(float((end - end_of_flow(noise, composite.run.entries[0].level)).abs().max()))
    assert errors[0] > 1.6 * errors[1] > 1.6 * 1.6 * errors[2]


@pytest.mark.parametrize("second", ["lcm", "euler", "flow", "dpm++_karras"])
def test_a_stride_that_misses_the_level_is_made_from_x0(second):
    """DDIM's stride cannot be moved: x' = √ᾱ'·x̂₀ + √(1−ᾱ')·ε̂ in the space of what follows, to
    float32.
    """
    composite = two("ddim", second, n=5, m=7, start=3)
    entries = composite.run.entries
    edge = next(i for i, e in enumerate(entries) if e.segment.model == "b")
    _, x = begin(composite)
    _, states = run(composite, x.float())
    entry, before = states[edge - 1]
    assert entry.noise == "own"
    x0 = x0_at(
        entry.scheduler, gaussian_output(entry.scheduler, entry.level, before), entry.level, before
    )
    eps = eps_from_x0(entry.scheduler, x0, entry.level.timestep, before, entry.step)
    a, b = scales(entries[edge].scheduler, entries[edge].level)
    torch.testing.assert_close(states[edge][1], a * x0 + b * eps, rtol=1e-5, atol=1e-5)


def test_lcm_hands_over_with_fresh_noise_even_where_its_timesteps_cannot_say():
    composite = two("lcm", "dpm++_karras", n=8, m=7, start=3)
    last = [e for e in composite.run.entries if e.segment.model == "a"][-1]
    assert last.noise == "fresh"
    assert float(last.target.timestep) != int(last.target.timestep) or not close(
        noise_level(last.scheduler, int(last.target.timestep)).sigma, last.target.sigma
    )


def test_it_is_told_where_the_noise_comes_from():
    plan = Plan(
        [Segment("a", 0, 1, 5), Segment("b", 3, 5, 7), Segment("b", 5, 7, 7, noise="shared")]
    )
    composite = CompositeScheduler(plan, {"a": SCHEDULERS["ddim"](), "b": SCHEDULERS["lcm"]()})
    assert composite.noise_of_step == ["own", "scheduler", "scheduler", "shared", "shared"]


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_the_first_scheduler_is_a_copy(name):
    """Re-spacing touches the run's own schedulers, never those of the pipelines."""
    own = SCHEDULERS[name]()
    own.set_timesteps(6)
    before = own.timesteps.clone(), getattr(own, "sigmas", torch.zeros(1)).clone()
    lay_out(
        Plan([Segment("a", 0, 3, 6), Segment("b", 7, 9, 9)]), {"a": own, "b": SCHEDULERS["ddim"]()}
    )
    assert torch.equal(own.timesteps, before[0])
    assert torch.equal(torch.as_tensor(getattr(own, "sigmas", torch.zeros(1))), before[1])


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_an_output_can_be_made_of_x0(name):
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(6)
    levels = noise_levels(scheduler)
    x_t, x0 = torch.randn(
        2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).chunk(2)
    for step in range(1, len(levels)):
        output = output_of_x0(scheduler, x0, levels[step], x_t)
        found = pred_x0(scheduler, output, scheduler.timesteps[step], x_t, step)
        torch.testing.assert_close(found, x0, rtol=1e-5, atol=1e-5)


def test_an_output_of_a_sample_prediction_is_x0():
    scheduler = diffusers.DDIMScheduler(**TRAILING, prediction_type="sample")
    assert prediction(scheduler) == "sample"
    x0 = torch.ones(1, 3)
    assert output_of_x0(scheduler, x0, noise_level(scheduler, 500), torch.zeros(1, 3)) is x0


@pytest.mark.parametrize(("first", "second"), product(["ddim", "euler", "flow"], repeat=2))
def test_carrying_there_and_back_changes_nothing(first, second):
    a, b = SCHEDULERS[first](), SCHEDULERS[second]()
    level = NoiseLevel(500.0, 1.7, 1 / (1 + 1.7**2))
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    there = carry(x, a, b, level)
    torch.testing.assert_close(carry(there, b, a, level), x)
    assert (there is x) == (space(a) == space(b))
    assert float(there[0] / x[0]) == pytest.approx(unit(b, level) / unit(a, level), rel=1e-5)


@pytest.mark.parametrize("name", ["ddim", "euler", "lcm", "flow"])
@pytest.mark.parametrize("t", [1, 250, 499, 998])
def test_a_timestep_is_found_again_from_its_level(name, t):
    scheduler = SCHEDULERS[name]()
    assert timestep_at(scheduler, noise_level(scheduler, t).sigma) == pytest.approx(t, abs=1e-6)


def test_between_timesteps_log_sigma_is_linear():
    scheduler = SCHEDULERS["ddim"]()
    sigmas = [noise_level(scheduler, t).sigma for t in (500, 501)]
    assert timestep_at(scheduler, math.sqrt(sigmas[0] * sigmas[1])) == pytest.approx(
        500.5, abs=1e-3
    )
    assert timestep_at(scheduler, 0.0) == 0
    assert timestep_at(scheduler, math.inf) == 999


def test_respacing_says_whether_it_could():
    target = noise_level(SCHEDULERS["ddim"](), 600)
    for name, could in {
        "euler": True,
        "dpm++": True,
        "flow": True,
        "lcm": True,
        "tcd": True,
        "ddim": False,
    }.items():
        scheduler = SCHEDULERS[name]()
        scheduler.set_timesteps(4)
        assert respace(scheduler, 0, target) == could, name
        assert close(landing(scheduler, 0), target.sigma) == could, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["HeunDiscreteScheduler", "PNDMScheduler", "KDPM2DiscreteScheduler"]
)
def test_solvers_of_several_evaluations_are_run_whole_or_not_at_all(name):
    scheduler = getattr(diffusers, name)(**STABLE)
    with pytest.raises(ValueError, match=f"{name} makes steps of several evaluations"):
        check_divisible(scheduler)
    with pytest.raises(ValueError, match="DDIMScheduler.from_config"):
        lay_out(
            Plan([Segment("a", 0, 2, 4), Segment("b", 2, 4, 4)]),
            {"a": scheduler, "b": SCHEDULERS["ddim"]()},
        )
    scheduler.set_timesteps(4)
    whole = lay_out(Plan([Segment("a", 0, 4, 4)]), {"a": scheduler})
    assert [float(e.timestep) for e in whole] == [float(t) for t in scheduler.timesteps]


def test_a_spacing_that_the_scheduler_lacks_is_refused():
    with pytest.raises(ValueError, match="has no timestep_spacing"):
        lay_out(Plan([Segment("a", 0, 4, 4, spacing="trailing")]), {"a": SCHEDULERS["flow"]()})


def test_a_plan_that_skips_steps_begins_with_pure_noise_of_that_level():
    for name in ("ddim", "euler", "lcm"):
        composite = CompositeScheduler(Plan([Segment("a", 2, 4, 4)]), {"a": SCHEDULERS[name]()})
        level = composite.run.entries[0].level
        size = math.sqrt(1 + level.sigma**2) if name == "euler" else 1.0
        assert float(composite.init_noise_sigma) == pytest.approx(size)
        assert np.isclose(level.sigma, noise_levels(SCHEDULERS[name](), 4).sigma[2])


MULTISTEP = {
    "lms": lambda: diffusers.LMSDiscreteScheduler(**TRAILING),
    "deis": lambda: diffusers.DEISMultistepScheduler(**TRAILING),
    "dpm++_3": lambda: diffusers.DPMSolverMultistepScheduler(**TRAILING, solver_order=3),
    "unipc_3": lambda: diffusers.UniPCMultistepScheduler(**TRAILING, solver_order=3),
}


@pytest.mark.parametrize("name", MULTISTEP)
def test_a_multistep_solver_entered_in_the_middle_begins_at_its_first_order(name):
    """Every order is exact where x̂₀ stays the same, and its noise with it; a sum of too few terms
    is not.
    """
    plan = Plan([Segment("a", 0, 3, 8), Segment("b", 4, 8, 8)])
    composite = CompositeScheduler(plan, {"a": SCHEDULERS["ddim"](), "b": MULTISTEP[name]()})
    x0 = torch.full((4, 1), 0.7, dtype=torch.float64)
    _, x = begin(composite, x0.shape)
    noises = []
    for t in composite.timesteps:
        entry = composite.run.entry
        a, b = scales(entry.scheduler, entry.level)
        noises.append((x - a * x0) / b)
        composite.scale_model_input(x, t)
        output = output_of_x0(entry.scheduler, x0, entry.level, x)
        x = composite.step(output, t, x, return_dict=False)[0]
    torch.testing.assert_close(noises[-1], noises[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MULTISTEP)
def test_a_multistep_solver_forgets_the_steps_before_one_made_by_hand(name):
    """The step after is that of a solver that was just entered there."""
    cut = [Segment("b", 0, 4, 8), Segment("b", 4, 5, 8, noise="own"), Segment("b", 5, 8, 8)]
    composite = CompositeScheduler(Plan(cut), {"b": MULTISTEP[name]()})
    noise, x = begin(composite)
    _, states = run(composite, x)
    entry, x = states[5]
    entered = MULTISTEP[name]()
    entered.set_timesteps(8)
    entered.set_begin_index(5)
    output = gaussian_output(entry.scheduler, entry.level, x)
    extra = {"order": 1} if name == "lms" else {}
    if name == "lms":
        entered.scale_model_input(x, entry.timestep)
    after = entered.step(output, entry.timestep, x, **extra, return_dict=False)[0]
    torch.testing.assert_close(states[6][1], after)


def test_lms_cut_in_two_is_the_whole():
    whole, cut = (
        CompositeScheduler(Plan(segments), {"b": MULTISTEP["lms"]()})
        for segments in ([Segment("b", 0, 8, 8)], [Segment("b", 0, 3, 8), Segment("b", 3, 8, 8)])
    )
    ends = [run(composite, begin(composite)[1])[0] for composite in (whole, cut)]
    assert torch.equal(*ends)
    alone = MULTISTEP["lms"]()
    alone.set_timesteps(8)
    _, x = begin(whole)
    for i, t in enumerate(alone.timesteps):
        alone.scale_model_input(x, t)
        x = alone.step(gaussian_output(alone, noise_level(alone, t, i), x), t, x).prev_sample
    assert torch.equal(x, ends[0])
