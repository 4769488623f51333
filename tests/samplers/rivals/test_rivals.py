"""Every rival is a pipeline, does what its equation says, and is nothing at its neutral setting."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xhat
from xhat.hooks.noise.levels import noise_levels
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.rivals.cads import CADS
from xhat.samplers.rivals.modes import ModeGuidance, centres
from xhat.samplers.rivals.particles import ParticleGuidance, repulsion
from xhat.samplers.rivals.registry import RIVALS, TAPS, rival
from xhat.samplers.rivals.teacher import TeacherGuidance

# network evaluations a sample: base of 6 steps at guidance 3, students of 4 steps without
COSTS = {
    "base": 12,
    "base_few": 4,
    "student": 4,
    "hybrid": 8,
    "skip": 3,
    "own_noise": 4,
    "hybrid_own_noise": 8,
    "cads": 4,
    "cads_published": 4,
    "particles": 4,
    "particles_features": 4,
    "teacher": 6,
    "ensemble": 4,
    "one_to_many": 4,
    "strength": 4,
    "feature_dispersal": 4,
    "stride": 4,
    "group_inference": 8,
    "spectral_noise": 4,
    "sparke": 4,
    "embedding_noise": 4,
    "hybrid_embedding_noise": 8,
}
SEEDS = range(4)  # with which both students of an ensemble have work
WAYS = ["cads", "teacher", "particles", "modes", "ensemble", "strength", *TAPS]
SMALL = {
    "modes": {"modes": 2, "pilots": 4, "pilot_steps": 2},
    "guidance_interval": {"sigma_high": 1.0},
}


@pytest.fixture(scope="module")
def alone(pairs, sample):
    return sample(rival("student", pairs("sd")), "sd", seeds=SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RIVALS))
def test_every_rival_is_a_pipeline_with_its_own_pictures(pairs, sample, alone, name):
    pair = pairs("sd")
    pipe = rival(name, pair, **SMALL.get(name, {}))
    found = sample(pipe, "sd", seeds=SEEDS)
    assert type(pipe) is type(pair.base)
    assert found.shape == (8, 4, 8, 8)
    assert found.isfinite().all()
    assert torch.equal(
        found, sample(pipe, "sd", seeds=SEEDS)
    )  # nothing of a call is left for the next
    assert torch.equal(found, alone) == (name == "student")
    if name in COSTS:
        assert pipe.scheduler.run.evaluations == COSTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart"])
@pytest.mark.parametrize("way", WAYS)
def test_taps_work_on_every_kind_of_pipeline(pairs, sample, name, way):
    pair = pairs(name)
    found = sample(rival(way, pair, **SMALL.get(way, {})), name, seeds=SEEDS)
    assert found.isfinite().all()
    assert not torch.equal(found, sample(rival("student", pair), name, seeds=SEEDS))


def test_an_unknown_rival_is_named_with_the_nearest(pairs):
    with pytest.raises(ValueError, match="nearest: particles"):
        rival("particle", pairs("sd"))


def test_the_base_and_the_student_are_themselves(pairs, sample):
    pair = pairs("sd")
    for name, pipe in (("base", pair.base), ("student", pair.student)):
        call = xhat.defaults(pipe)
        assert torch.equal(sample(rival(name, pair), "sd"), sample(pipe, "sd", **call))


NEUTRAL = [
    CADS(scale=0.0),
    ParticleGuidance(coefficient=0.0),
    TeacherGuidance(weight=0.0),
    TeacherGuidance(steps=0),
    ModeGuidance(weight=0.0),
    Tap(),
]
IDLE = [
    CADS(tau1=1.5, tau2=2.0),
    ParticleGuidance(sigma_stop=100.0),
    ModeGuidance(stop=1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize("tap", NEUTRAL, ids=lambda tap: type(tap).__name__)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_neutral_tap_changes_not_a_bit(pairs, sample, tap, guidance):
    pair = pairs("sd")
    plan = whole("student", pair.student, guidance_scale=guidance)
    models = {"base": pair.base, "student": pair.student}
    assert torch.equal(
        sample(compose(models, plan, [tap]), "sd"), sample(compose(models, plan), "sd")
    )


@pytest.mark.parametrize("tap", IDLE, ids=lambda tap: type(tap).__name__)
def test_a_rival_that_changed_nothing_is_no_arm(pairs, sample, tap):
    pair = pairs("sd")
    models = {"base": pair.base, "student": pair.student}
    pipe = compose(models, whole("student", pair.student), [tap])
    with pytest.raises(ValueError, match=f"{type(tap).__name__}.* changed nothing in this call"):
        sample(pipe, "sd", seeds=SEEDS)


def test_a_teacher_of_a_student_of_one_step_is_no_arm(pairs, sample):
    pair = pairs("sd")
    models = {"base": pair.base, "student": pair.student}
    plan = whole("student", pair.student, num_inference_steps=1)
    with pytest.raises(ValueError, match="TeacherGuidance.* changed nothing"):
        sample(compose(models, plan, [TeacherGuidance()]), "sd")


def test_a_rival_says_at_its_first_call_that_it_changed_the_run(pairs, sample, caplog):
    pipe = rival("cads", pairs("sd"))
    with caplog.at_level("INFO", logger="xhat"):
        sample(pipe, "sd")
        sample(pipe, "sd")
    assert [r.getMessage().split(") ")[1] for r in caplog.records] == ["changed 2 of 4 steps"]


class Replaced(Tap):
    """x̂₀ given back as another tensor of the same values."""

    def estimate(self, run, x_t, x0):
        return x0.clone()


def test_an_estimate_given_back_is_the_step_itself(pairs, sample):
    pair = pairs("sd")
    models, plan = {"student": pair.student}, whole("student", pair.student)
    found = sample(compose(models, plan, [Replaced()]), "sd")
    torch.testing.assert_close(found, sample(compose(models, plan), "sd"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", ["cads", "teacher", "modes", "ensemble"])
def test_a_sample_does_not_depend_on_its_batch(pairs, sample, way):
    pair = pairs("sd")
    pipe = rival(way, pair, **SMALL.get(way, {}))
    both = sample(pipe, "sd", seeds=range(3))
    torch.testing.assert_close(sample(pipe, "sd", seeds=[1])[0], both[1], rtol=1e-3, atol=1e-3)


# CADS


def test_cads_without_a_prompt_to_anneal_is_refused():
    run = SimpleNamespace(share=1.0, next_share=0.75, draw=lambda like, key: torch.zeros_like(like))
    x, prompt = torch.zeros(1, 4, 8, 8), torch.randn(2, 3, 4)
    changed = CADS().condition(run, {"x": x, "added": {"text_embeds": prompt}})
    assert changed["x"] is x
    assert not torch.equal(changed["added"]["text_embeds"], prompt)
    with pytest.raises(ValueError, match=r"arguments \(x, words\) there is none"):
        CADS().condition(run, {"x": x, "words": prompt})


def test_cads_anneals_a_list_of_prompts_each_by_its_own_noise():
    """As Z-Image's network takes them: each of its own length."""
    run = Run([])
    run.begin(torch.randn(2, 4, 8, 8))
    run.__class__ = type("Early", (Run,), {"share": 1.0, "next_share": 0.75})
    prompts = [torch.randn(3, 4), torch.randn(5, 4)]
    both = CADS().condition(run, {"cap_feats": prompts})["cap_feats"]
    assert [p.shape for p in both] == [p.shape for p in prompts]
    assert not any(torch.equal(a, b) for a, b in zip(both, prompts, strict=True))
    noises = run.draw_each(prompts, "cads cap_feats")
    expected = CADS().anneal(prompts[1][None], noises[1][None], CADS().gamma(1.0, 0.75))[0]
    assert torch.equal(both[1], expected)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.8), st.floats(0.01, 0.6))
def test_gamma_of_a_step_is_the_mean_over_its_time(one, other, tau1, width):
    end, start = sorted((one, other))
    cads = CADS(tau1=tau1, tau2=tau1 + width)
    times = torch.linspace(end, start, 4001, dtype=torch.float64).tolist()
    mean = sum(cads.gamma(t) for t in times) / len(times)
    assert cads.gamma(start, end) == pytest.approx(mean, abs=2e-3)


def test_four_steps_leave_some_of_the_prompt_in_each():
    """999, 749, 499, 249: at the schedule's own values, the first step had none of it."""
    times = [1.0, 0.75, 0.5, 0.25, 0.0]
    means = [CADS().gamma(a, b) for a, b in zip(times, times[1:], strict=False)]
    assert means == pytest.approx([0.15, 0.85, 1.0, 1.0])
    assert CADS().gamma(1.0) == 0


def test_gamma_is_one_then_falls_to_zero():
    cads = CADS(tau1=0.6, tau2=0.9)
    assert [cads.gamma(t) for t in (0.0, 0.6, 0.9, 1.0)] == [1, 1, 0, 0]
    assert cads.gamma(0.75) == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.99), st.floats(0.01, 3), st.floats(-3, 3), st.floats(0.1, 5))
def test_a_rescaled_condition_keeps_mean_and_deviation(gamma, scale, shift, spread):
    y = shift + spread * torch.randn(
        2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    n = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = CADS(scale=scale).anneal(y, n, gamma)
    dims = (1, 2)
    torch.testing.assert_close(found.mean(dims), y.mean(dims))
    torch.testing.assert_close(found.std(dims), y.std(dims))
    plain = CADS(scale=scale, mixing=0.0).anneal(y, n, gamma)
    torch.testing.assert_close(plain, math.sqrt(gamma) * y + scale * math.sqrt(1 - gamma) * n)


def test_cads_noises_the_conditional_half_alone(pairs, sample):
    pair = pairs("sdxl")
    given, plain = [], []
    for taps, seen in (([CADS()], given), ([], plain)):
        pipe = compose({"base": pair.base}, Plan([Segment("base", 0, 2, 4, 3.0)]), taps)
        hook = pair.base.unet.register_forward_pre_hook(
            lambda m, a, kwargs, seen=seen: seen.append(kwargs), with_kwargs=True
        )
        sample(pipe, "sdxl")
        hook.remove()
    for name in ("encoder_hidden_states", "text_embeds"):
        ours, theirs = ({**x[0], **x[0]["added_cond_kwargs"]}[name] for x in (given, plain))
        assert torch.equal(ours[:2], theirs[:2])
        assert not torch.equal(ours[2:], theirs[2:])
    assert torch.equal(
        given[0]["added_cond_kwargs"]["time_ids"], plain[0]["added_cond_kwargs"]["time_ids"]
    )


@pytest.mark.parametrize("wrong", [{"tau1": 0.9, "tau2": 0.6}, {"mixing": 2.0}])
def test_cads_refuses_what_has_no_meaning(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CADS(**wrong)


# particle guidance


@pytest.mark.parametrize("n", [2, 3, 7])
def test_repulsion_is_the_gradient_of_the_kernel_sum(n):
    """By autograd, with the bandwidths held fixed."""
    x = torch.randn(
        n, 2, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64, requires_grad=True
    )
    flat = x.flatten(1)
    with torch.no_grad():
        distances = torch.cdist(flat, flat)
        medians = torch.stack([d[torch.arange(n) != i].median() for i, d in enumerate(distances)])
        h = medians**2 / math.log(n)
    for i in range(n):
        kernel = (-((flat[i] - flat.detach()) ** 2).sum(1) / h[i]).exp()
        others = kernel[torch.arange(n) != i].sum()
        (gradient,) = torch.autograd.grad(-others, x, retain_graph=True)
        torch.testing.assert_close(repulsion(x.detach())[i], gradient[i])


def test_two_samples_push_each_other_apart_and_equal_ones_stay():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    push = repulsion(x)
    assert torch.allclose(push[0], -push[1])
    assert torch.dot(push[1], x[1] - x[0]) > 0
    assert torch.equal(repulsion(torch.ones(3, 4)), torch.zeros(3, 4))


def test_particles_of_another_prompt_are_not_seen(pairs, sample):
    pair = pairs("sd")
    pipe = rival("particles", pair)
    together = sample(pipe, "sd", seeds=range(2))
    apart = sample(pipe, "sd", seeds=range(2), prompts=["a red planet"])
    torch.testing.assert_close(together[:2], apart, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="ParticleGuidance.* changed nothing in this call"):
        sample(pipe, "sd", seeds=[0])


# teacher


def test_a_full_weight_hands_the_first_estimate_to_the_teacher(pairs, sample):
    """At λ = 1 the student's first x̂₀ is the teacher's at the next level, of a state re-noised
    from the student's.
    """
    pair = pairs("sd")
    seen = {}

    class Spy(Tap):
        def estimate(self, run, x_t, x0):
            seen.setdefault(run.position, x0)
            return x0

    plan, models = whole("student", pair.student), {"base": pair.base, "student": pair.student}
    pipe = compose(models, plan, [Spy(), TeacherGuidance(weight=1.0), Watch(seen)])
    sample(pipe, "sd")
    level = pipe.scheduler.run.entries[0].target
    run = pipe.scheduler.run
    run.position = 0
    x_s = level.alpha_bar**0.5 * seen[0] + (1 - level.alpha_bar) ** 0.5 * run.draw(
        seen[0], "teacher"
    )
    with torch.no_grad():
        cond = pair.base.encode_prompt(["a red planet", "the quiet face"], "cpu", 1, False)[0]
        eps = pair.base.unet(x_s, 749, cond, return_dict=False)[0]
    expected = (x_s - (1 - level.alpha_bar) ** 0.5 * eps) / level.alpha_bar**0.5
    torch.testing.assert_close(seen["after"], expected, rtol=1e-3, atol=1e-3)


class Watch(Tap):
    def __init__(self, seen):
        self.seen = seen

    def estimate(self, run, x_t, x0):
        self.seen.setdefault("after", x0)
        return x0


def test_a_guided_teacher_costs_two_evaluations(pairs, sample):
    pipe = rival("teacher", pairs("sd"), guidance_scale=3.0, steps=2)
    sample(pipe, "sd")
    assert pipe.scheduler.run.evaluations == 4 + 2 * 2


# modes


def test_centres_of_clear_clusters_are_their_means():
    spots = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = torch.cat(
        [
            spot + 0.01 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
            for spot in spots
        ]
    )
    found = centres(samples, 3)
    assert torch.cdist(spots.double(), found).min(1).values.max() < 0.05


def test_modes_pull_until_they_stop(pairs, sample):
    pair = pairs("sd")
    tap = ModeGuidance(modes=2, weight=1.0, stop=0.0, pilots=4, pilot_steps=2)
    pipe = compose(
        {"base": pair.base, "student": pair.student}, whole("student", pair.student), [tap]
    )
    found = sample(pipe, "sd", seeds=range(3))
    modes = pipe.scheduler.run.memory["modes"]
    torch.testing.assert_close(found, modes.to(found), rtol=1e-2, atol=1e-2)
    assert len({tuple(row) for row in modes.flatten(1)[:3].round(decimals=3).tolist()}) <= 2


def test_pilots_are_paid_once(pairs, sample):
    pipe = rival("modes", pairs("sd"), modes=2, pilots=4, pilot_steps=2)
    costs = []
    for _ in range(2):
        sample(pipe, "sd")
        costs.append(pipe.scheduler.run.evaluations)
    assert costs == [4 + 2 * 2 * 4 / 2, 4]  # 2 prompts × 2 steps × 4 pilots, over 2 samples


def test_more_modes_than_pilots_are_refused():
    with pytest.raises(ValueError, match="pilots"):
        ModeGuidance(modes=9, pilots=4)


# plans


def test_the_guidance_interval_is_where_it_should_be(pairs):
    pair = pairs("sd")
    pipe = rival("guidance_interval", pair, sigma_low=0.5, sigma_high=5.0, guidance_scale=2.5)
    levels = noise_levels(pair.base.scheduler, 6).sigma
    scales = [s.guidance_scale for s in pipe.scheduler.plan.segments for _ in s.steps]
    assert scales == [2.5 if 0.5 < sigma <= 5.0 else 1.0 for sigma in levels]
    assert pipe.scheduler.plan.evaluations == 6 + scales.count(2.5)


def test_the_guidance_interval_goes_with_the_side_of_the_latents(pairs):
    """8 of the paper's 128: σ in (0.0175, 0.339]; as published, in (0.28, 5.42]."""
    pair = pairs("sd")
    levels = noise_levels(pair.base.scheduler, 40).sigma
    for name, low, high in (
        ("guidance_interval", 0.0175, 0.33875),
        ("guidance_interval_published", 0.28, 5.42),
    ):
        pipe = rival(name, pair, num_inference_steps=40)
        scales = [s.guidance_scale for s in pipe.scheduler.plan.segments for _ in s.steps]
        assert scales == [3.0 if low < sigma <= high else 1.0 for sigma in levels]
    with pytest.raises(ValueError, match="no step lies in the guidance interval"):
        rival("guidance_interval", pair, sigma_low=20.0, sigma_high=30.0)


def test_an_interval_that_holds_all_is_the_guided_base(pairs, sample):
    pair = pairs("sd")
    everywhere = rival("guidance_interval", pair, sigma_low=0.0, sigma_high=math.inf)
    assert torch.equal(
        sample(everywhere, "sd"), sample(pair.base, "sd", **xhat.defaults(pair.base))
    )


def test_one_to_many_deals_out_the_steps(pairs):
    pair = pairs("sd")
    assert rival("one_to_many", pair).scheduler.segment_of_step == ["one", "one", "two", "two"]
    with_base = rival("one_to_many", pair, base_steps=1, names=["two", "one"])
    assert with_base.scheduler.segment_of_step[0] == "base"
    assert set(with_base.scheduler.segment_of_step) == {"base", "one", "two"}
    with pytest.raises(ValueError, match="2 students for 1 steps"):
        rival("one_to_many", pair, base_steps=3)
    with pytest.raises(ValueError, match="did you mean 'two'"):
        rival("one_to_many", pair, names=["twoo"])


def test_each_sample_of_an_ensemble_is_one_students_own(pairs, sample):
    pair = pairs("sd")
    found = sample(rival("ensemble", pair), "sd", seeds=range(6))
    by_student = [
        sample(pipe, "sd", seeds=range(6), **xhat.defaults(pipe)) for pipe in pair.students.values()
    ]
    owners = [
        [torch.allclose(x, own[i], rtol=1e-3, atol=1e-3) for own in by_student]
        for i, x in enumerate(found)
    ]
    assert all(sum(row) == 1 for row in owners)
    assert len({tuple(row) for row in owners}) == 2  # twelve samples, both students


def test_students_of_other_schedules_are_no_ensemble(fresh_pair):
    pair = fresh_pair("sd")
    pair.students["two"].scheduler = type(pair.student.scheduler).from_config(
        pair.student.scheduler.config, original_inference_steps=8
    )
    with pytest.raises(ValueError, match="schedulers of 'one' and 'two' differ"):
        rival("ensemble", pair)


def test_a_dial_of_full_rank_is_the_dial(pairs, sample):
    pair = pairs("sd")
    dialled = [
        sample(rival("strength", pair, strength=0.5, rank=rank), "sd") for rank in (None, 10_000)
    ]
    torch.testing.assert_close(*dialled, rtol=1e-3, atol=1e-3)


def test_rivals_are_traced_like_any_pipeline(pairs):
    traced = xhat.trace(
        rival("cads", pairs("sd")), ["a robot"], seeds=range(2), progress=False, height=16, width=16
    )
    assert traced["segment"].values.tolist() == ["student"] * 4
    assert "CADS(tau1=0.6" in traced.attrs["description"]
