"""Two denoisers that take turns: a plan says which one, and under which guidance."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

import xhat
from xhat.hooks.points.names import denoisers_of
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.plan import Plan, Segment

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 6


@pytest.fixture(scope="module")
def made(tiny, loops):
    """(base, student, call, how many steps the first network makes)."""
    (base, call), (student, _) = (loops.wan(tiny, seed, boundary_ratio=0.8) for seed in (0, 1))
    student.register_modules(vae=base.vae)
    base.scheduler.set_timesteps(STEPS)
    high = int((base.scheduler.timesteps >= 800).sum())
    assert 0 < high < STEPS
    return base, student, call, high


def latents(pipe, call, **extra):
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    return pipe(generator=generators, output_type="latent", **call | extra)[0]


def wan(base, first, second):
    parts = {**base.components, "transformer": first, "transformer_2": second}
    return diffusers.WanPipeline(**parts, boundary_ratio=0.8)


@pytest.mark.parametrize(("g", "second"), [(1.0, None), (3.0, None), (4.0, 2.0)])
def test_a_plan_of_one_model_asks_both_of_its_networks(made, g, second):
    base, student, call, _ = made
    for pipe in (base, student):
        pipe = wan(base, pipe.transformer, pipe.transformer_2)
        xhat.set_defaults(pipe, num_inference_steps=STEPS, guidance_scale=g)
        if second is not None:
            xhat.set_defaults(pipe, guidance_scale_2=second)
        alone = latents(pipe, call, **xhat.defaults(pipe))
        hybrid = xhat.hybrid(pipe, student, plan=whole("base", pipe))
        assert torch.equal(latents(hybrid, call, guidance_scale=g), alone)
        assert len(hybrid.scheduler.plan.segments) == (1 if second is None else 2)


def test_base_at_high_noise_and_student_at_low_is_one_plan(made):
    """With a solver of one step; one of several begins anew with another model."""
    base, student, call, _ = made
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    base, student = (wan(p, p.transformer, p.transformer_2) for p in (base, student))
    for pipe in (base, student):
        pipe.register_modules(scheduler=euler, vae=base.vae)
    euler.set_timesteps(STEPS)
    high = int((euler.timesteps >= 800).sum())
    alone = latents(
        wan(base, base.transformer, student.transformer_2),
        call,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        guidance_scale_2=1.0,
    )
    late = {"num_inference_steps": STEPS}
    for expert in (None, "transformer_2"):
        plan = Plan(
            [
                Segment("base", 0, high, guidance_scale=3.0, **late),
                Segment("student", high, STEPS, expert=expert, **late),
            ]
        )
        hybrid = xhat.hybrid(base, student, plan=plan)
        torch.testing.assert_close(latents(hybrid, call), alone, rtol=1e-4, atol=1e-5)
        assert hybrid.scheduler.run.evaluations == STEPS + high
        assert Plan.from_json(plan.to_json()) == plan


def test_an_expert_is_asked_whatever_the_noise(made):
    base, student, call, _ = made
    for name in ("transformer", "transformer_2"):
        one = wan(base, getattr(base, name), getattr(base, name))
        alone = latents(one, call, num_inference_steps=STEPS, guidance_scale=2.0)
        plan = Plan([Segment("base", 0, STEPS, STEPS, 2.0, expert=name)])
        assert torch.equal(latents(xhat.hybrid(base, student, plan=plan), call), alone)
        assert name in str(plan)


def test_an_expert_of_a_model_of_one_network_is_refused(tiny, loops, made):
    pipe, _ = loops.wan(tiny, 0)
    with pytest.raises(ValueError, match="which has one network: leave it out"):
        xhat.hybrid(pipe, pipe, plan=Plan([Segment("base", 0, 2, 2, expert="transformer_2")]))
    with pytest.raises(ValueError, match="expert of a segment is None or one of transformer"):
        Segment("base", 0, 2, 2, expert="second")


def test_both_networks_of_both_models_are_traced(made):
    base, student, call, high = made
    plan = Plan([Segment("base", 0, high, STEPS, 3.0), Segment("student", high, STEPS, STEPS)])
    hybrid = xhat.hybrid(base, student, plan=plan)
    assert len(denoisers_of(hybrid)) == 1
    assert len(denoisers_of(hybrid)[0].xhat_parts) == 4
    plain = latents(hybrid, call)
    with xhat.Tracer(hybrid, hooks={"block.1": "mean"}) as tracer:
        traced = latents(hybrid, call)
    assert torch.equal(plain, traced)
    trace = tracer.trace
    assert trace["pred_x0"].dims[2:] == ("channel", "frame", "y", "x")
    cond = trace["activations/block.1/value"].sel(branch="cond").values
    assert np.isfinite(cond).all()
    assert trace["segment"].values.tolist() == ["base"] * high + ["student"] * (STEPS - high)
