"""The policy chooses by what traces of single models say, and by nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import xhat
from xhat.analysis.experiments.policy import FIT_PROMPTS, fit_prompts
from xhat.analysis.measures.by_seed import vendi_q2_by_seed
from xhat.analysis.measures.diversity import similarities, vendi
from xhat.analysis.traces.policy_traces import plan_of, settled_share, trace_alone
from xhat.samplers.plans.look import spread
from xhat.samplers.plans.policy import Policy
from xhat.samplers.rivals.registry import rival

PROMPTS = ["a planet", "a critter"]
SIGMAS = [10.0, 4.0, 1.5, 0.5]


def traced(x0, *, sigma=SIGMAS, guidance=1.0, steps=None, **attrs):
    """A trace of given x̂₀ (prompt, seed, step, d), whose last is the final picture."""
    x0 = np.asarray(x0, dtype=np.float64)[..., None, None]
    call = {"num_inference_steps": steps or len(sigma), "guidance_scale": guidance}
    dims = ("prompt", "seed", "step", "channel", "y", "x")
    return xr.Dataset(
        {"pred_x0": (dims, x0), "final": ((*dims[:2], *dims[3:]), x0[:, :, -1])},
        coords={"prompt": PROMPTS, "seed": range(x0.shape[1]), "sigma": ("step", np.array(sigma))},
        attrs={"call": json.dumps(call), **attrs},
    )


def made(shares, *, alike, seed=0, n=6, d=40):
    """x̂₀ of which a share is already the final picture's; finals are ``alike`` · one direction +
    their own.
    """
    rng = np.random.default_rng(seed)
    own = np.linalg.qr(rng.normal(size=(d, d)))[0][: 2 * n].reshape(2, n, d) * np.sqrt(d)
    other = np.linalg.qr(rng.normal(size=(d, d)))[0][: 2 * n].reshape(2, n, d) * np.sqrt(d)
    final = alike * np.ones(d) + own
    steps = [alike * np.ones(d) + np.sqrt(s) * own + np.sqrt(1 - s) * other for s in shares[:-1]]
    return np.stack([*steps, final], 2)


@pytest.fixture
def traces():
    return {
        "base": traced(made([0.1, 0.6, 0.9, 1], alike=0.1), guidance=3.0),
        "base_few": traced(made([0.3, 0.7, 0.95, 1], alike=0.2, seed=1)),
        "student": traced(made([0.5, 0.8, 0.9, 1], alike=1.5, seed=2)),
    }


def test_what_is_settled_is_the_squared_correlation():
    """Against a least-squares fit of the pooled, centred samples."""
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=(2, 7, 4, 5)) + 3
    found = settled_share(traced(x0), 1)
    for p in range(2):
        a, b = ((v - v.mean(0)).ravel() for v in (x0[p, :, 1], x0[p, :, 3]))
        assert found[p] == pytest.approx(np.corrcoef(a, b)[0, 1] ** 2)
    np.testing.assert_allclose(settled_share(traced(x0), 3), 1)
    assert (settled_share(traced(np.ones((2, 7, 4, 5))), 1) == 0).all()


def test_the_prediction_lies_where_it_says(traces):
    """D̂ = D_student + c·(D_base − D_student), recomputed by hand."""
    policy = Policy.fit(traces, budget=1.2)
    option = policy.option("base_few 2 of 4, then student from step 2")
    final = {
        name: [
            vendi_q2_by_seed(similarities(x)).mean() for x in t["final"].values.reshape(2, 6, -1)
        ]
        for name, t in traces.items()
    }
    expected = []
    for p in range(2):
        a, b = (
            v - v.mean(0)
            for v in traces["base_few"]["pred_x0"]
            .values.reshape(2, 6, 4, -1)[p][:, (1, 3)]
            .swapaxes(0, 1)
        )
        c = (a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum())
        expected.append(final["student"][p] + c * (final["base_few"][p] - final["student"][p]))
    assert option.diversity == pytest.approx(np.mean(expected), rel=1e-6)
    assert policy.goal == pytest.approx(np.mean(final["base"]), rel=1e-6)
    assert option.low <= option.diversity <= option.high


def test_the_most_diverse_within_the_budget_is_chosen(traces):
    policy = Policy.fit(traces, budget=1.2)
    assert (
        policy.chosen == "base_few 3 of 4, then student from step 3"
    )  # the later the hand-over, the more is settled
    assert policy.plan.evaluations == 4
    assert [s.model for s in policy.plan.segments] == ["base", "student"]
    dear = [option for option in policy.options if option.name.startswith("base ")]
    assert [option.evaluations for option in dear] == [2 + 3, 4 + 2, 6 + 1]
    assert Policy.fit(traces, budget=2.0).allowed == 8


def test_where_the_base_is_no_better_the_student_stays(traces):
    alike = {**traces, "base_few": traced(made([0.3, 0.7, 0.95, 1], alike=9.0))}
    policy = Policy.fit(alike)
    assert policy.chosen == "student"
    assert policy.look is None
    assert policy.plan.models == ("student",)


def test_a_budget_that_allows_nothing_says_what_would_do(traces):
    with pytest.raises(ValueError, match=r"allows 2 evaluations.*budget of 1$"):
        Policy.fit(traces, budget=0.5)


class Faithful:
    """Fidelity is 0.9 in the student's pictures, 0.1 in all others."""

    def __init__(self, student):
        self.student = student["final"].values

    def features(self, latents):
        return latents.reshape(len(latents), -1)

    def fidelity(self, latents, prompt):
        of_student = any(np.array_equal(latents, x.astype(latents.dtype)) for x in self.student)
        return np.full(len(latents), 0.9 if of_student else 0.1)


def test_what_would_lose_fidelity_is_left_out(traces):
    space = Faithful(traces["student"])
    strict, lax = (Policy.fit(traces, space=space, margin=m) for m in (0.05, 0.25))
    assert strict.chosen == "student"
    assert strict.least_fidelity == pytest.approx(0.85)
    assert lax.chosen == "base_few 1 of 4, then student from step 1"
    assert lax.option(lax.chosen).fidelity == pytest.approx(0.9 - 0.25 * 0.8)  # one step of four


def test_the_look_takes_the_prompts_that_gain():
    """The first prompt's seeds collapse and gain by the base; the second's do not."""
    student, base = (
        made([0.5, 0.8, 0.9, 1], alike=0.0, seed=2),
        made([0.9, 0.95, 0.97, 1], alike=0.0, seed=3),
    )
    student[0] += 4
    traces = {"base": traced(base), "student": traced(student)}
    policy = Policy.fit(traces, worth=0.1)
    spreads = [spread(x) for x in student[:, :, 0]]
    assert spreads[0] < spreads[1]
    assert policy.look.threshold == pytest.approx(spreads[0])
    assert policy.needs_base(student[0, :, 0])
    assert not policy.needs_base(student[1, :, 0])
    assert policy.look.gains[0] > 0.1 * vendi(student[0, :, -1], q=2)
    assert "1 of the 2 prompts" in policy.explain()


@pytest.mark.slow
def test_traces_of_single_models_give_their_plans():
    pair = xhat.load_pair("demo")
    call = {"seeds": range(2), "progress": False, "output_type": "latent"}
    skip = rival("skip", pair)
    traced_skip = xhat.trace(skip, PROMPTS[:1], **call).to_dataset()
    assert plan_of(traced_skip, "student_skip") == skip.scheduler.plan
    plain = xhat.trace(pair.student, PROMPTS[:1], **call).to_dataset()
    assert plan_of(plain, "student") == rival("student", pair).scheduler.plan
    hybrid = xhat.trace(xhat.hybrid(pair.base, pair.student), PROMPTS[:1], **call).to_dataset()
    with pytest.raises(ValueError, match="base and student: expected student alone"):
        plan_of(hybrid, "student")
    with pytest.raises(ValueError, match="a trace is named"):
        plan_of(plain, "hybrid")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("base"), "traces of 'base' and 'student'"),
        (lambda t: t.update(base=t["base"].isel(seed=slice(3))), "other seeds"),
        (lambda t: t.update(base=t["base"].assign_coords(prompt=["x", "y"])), "other prompts"),
    ],
)
def test_traces_that_do_not_fit_are_refused(traces, change, says):
    change(traces)
    with pytest.raises(ValueError, match=says):
        Policy.fit(traces)


def test_unknown_measures_are_refused(traces):
    with pytest.raises(ValueError, match="expected one of vendi_q2"):
        Policy.fit(traces, measure="vendi")
    with pytest.raises(ValueError, match="reads attributes"):
        Policy.fit(traces, measure="attribute_entropy")


@pytest.mark.slow
def test_fitted_on_the_embedded_pair_and_run(tmp_path):
    """From traces to pictures, through a file."""
    pair = xhat.load_pair("demo")
    xhat.set_defaults(pair.base, num_inference_steps=5)
    traces = trace_alone(pair, PROMPTS, range(3), tmp_path, batch_size=6)
    policy = Policy.fit(traces, budget=1.2)
    names = {option.name for option in policy.options}
    assert {"student", "student_own_noise", "student_skip"} <= names
    assert any(name.startswith("base_few_guided 1 of 4") for name in names)
    again = Policy.load(policy.save(tmp_path / "policy.json"))
    assert again.options == policy.options
    pipe = xhat.hybrid(pair.base, pair.student, policy=again)
    assert pipe("a planet", output_type="latent").images.shape == (1, 4, 16, 16)
    assert pipe.scheduler.plan == policy.plan


@pytest.mark.parametrize(("judged", "fitted"), [(1, 4), (6, 6), (40, 12)])
def test_as_many_prompts_are_fitted_on_as_are_judged_and_none_of_those(judged, fitted):
    assert fit_prompts([f"a star {i}" for i in range(judged)]) == list(FIT_PROMPTS[:fitted])
    assert not set(fit_prompts(FIT_PROMPTS[:3])) & set(FIT_PROMPTS[:3])
    assert fit_prompts(["a star"], 2) == list(FIT_PROMPTS[:2])
    with pytest.raises(ValueError, match="13 prompts to fit on: expected 1 to 12"):
        fit_prompts(["a star"], 13)
