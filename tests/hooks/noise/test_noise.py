"""x̂₀ and noise levels, against the schedulers' own arithmetic and against a denoiser known in
closed form.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import pkgutil
import sys
import types

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xhat.hooks import noise

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array:DeprecationWarning"
)  # of diffusers, under numpy 2

TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
RAW = {"clip_sample": False}
EPS_V = ("epsilon", "v_prediction")
ALL = ("epsilon", "v_prediction", "sample")

# Schedulers whose step returns pred_original_sample: class, predictions they take, further
# settings.
RETURNING = [
    ("DDIMScheduler", ALL, RAW),
    ("DDIMParallelScheduler", ALL, RAW),
    ("DDPMScheduler", ALL, RAW),
    ("DDPMParallelScheduler", ALL, RAW),
    ("CogVideoXDDIMScheduler", ALL, RAW),
    ("EulerDiscreteScheduler", ALL, {}),
    ("EulerDiscreteScheduler", EPS_V, {"use_karras_sigmas": True}),
    (
        "EulerDiscreteScheduler",
        EPS_V,
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    ("EulerAncestralDiscreteScheduler", EPS_V, {}),
    ("HeunDiscreteScheduler", ALL, {}),
    ("KDPM2DiscreteScheduler", EPS_V, {}),
    ("KDPM2AncestralDiscreteScheduler", EPS_V, {}),
    ("LMSDiscreteScheduler", ALL, {}),
    ("DPMSolverSDEScheduler", EPS_V, {}),
    ("EDMEulerScheduler", EPS_V, None),
    ("SCMScheduler", ("trigflow",), None),
]
# Schedulers that return nothing, but whose solver converts the output to x̂₀ first.
CONVERTING = [
    ("DPMSolverMultistepScheduler", ALL, {}),
    ("DPMSolverMultistepScheduler", ALL, {"use_karras_sigmas": True}),
    (
        "DPMSolverMultistepScheduler",
        EPS_V,
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
    ),
    (
        "DPMSolverMultistepScheduler",
        ("flow_prediction",),
        {"use_flow_sigmas": True, "flow_shift": 3.0},
    ),
    ("DPMSolverSinglestepScheduler", ALL, {"lower_order_final": True}),
    ("DEISMultistepScheduler", ("flow_prediction",), {"use_flow_sigmas": True}),
    ("UniPCMultistepScheduler", ALL, {}),
    ("UniPCMultistepScheduler", ("flow_prediction",), {"use_flow_sigmas": True}),
    ("SASolverScheduler", ALL, {}),
    ("EDMDPMSolverMultistepScheduler", EPS_V, None),
]
# Schedulers that say nothing about x̂₀: checked by x_t = a·x₀ + b·ε, with x_t made by their own
# add_noise.
SILENT = [
    ("PNDMScheduler", EPS_V, {"skip_prk_steps": True}),
    ("PNDMScheduler", ("epsilon",), {"skip_prk_steps": False}),
    ("LCMScheduler", ALL, {}),
    ("TCDScheduler", ALL, {}),
    ("DEISMultistepScheduler", ALL, {}),
]
FLOW = [
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchLCMScheduler", {"shift": 3.0}),
    ("LTXEulerAncestralRFScheduler", {}),
]
# Not for the pipelines traced here (tokens, inversion, other arguments), or no x̂₀ from one output.
UNSUPPORTED = {
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "CMStochasticIterativeScheduler",
    "CogVideoXDPMScheduler",
    "ConsistencyDecoderScheduler",
    "DDIMInverseScheduler",
    "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler",
    "DPMSolverMultistepInverseScheduler",
    "EntropyBoundScheduler",
    "FlowMapEulerDiscreteScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "KarrasVeScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "RePaintScheduler",
    "RFD4ProteinaScheduler",
    "ScoreSdeVeScheduler",
    "ScoreSdeVpScheduler",
    "UnCLIPScheduler",
    "VQDiffusionScheduler",
}


@functools.cache
def every_scheduler() -> dict[str, type]:
    """Every scheduler class of diffusers; two import torchsde, for Brownian noise that no test here
    uses.
    """
    if importlib.util.find_spec("torchsde") is None:
        sys.modules["torchsde"] = types.ModuleType("torchsde")
    found = {}
    for module in pkgutil.walk_packages(diffusers.schedulers.__path__, "diffusers.schedulers."):
        if module.name.endswith("flax"):
            continue
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {
            name: cls
            for name, cls in classes
            if name.endswith("Scheduler") and issubclass(cls, diffusers.SchedulerMixin)
        }
    return found


def make(name: str, prediction: str, extra: dict | None, steps: int = 6):
    cls = every_scheduler()[name]
    settings = {} if extra is None else TRAINED | extra
    scheduler = cls(prediction_type=prediction, **settings)
    if name == "DPMSolverSDEScheduler":  # its Brownian tree needs torchsde, its x̂₀ does not
        scheduler.set_timesteps(steps)
        scheduler.noise_sampler = lambda *_: torch.zeros(2, 4, 4, 4)
    else:
        scheduler.set_timesteps(2 if name == "SCMScheduler" else steps)
    return scheduler


def timesteps_of(scheduler):
    return scheduler.timesteps[: len(noise.noise_levels(scheduler))]


def outputs(count: int):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, 4, 4, generator=generator) for _ in range(count)]


def cases(table):
    return [
        pytest.param(n, p, e, id=f"{n}-{p}-{i}") for i, (n, ps, e) in enumerate(table) for p in ps
    ]


@pytest.mark.parametrize(("name", "prediction", "extra"), cases(RETURNING))
def test_equals_the_x0_that_the_scheduler_returns(name, prediction, extra):
    scheduler = make(name, prediction, extra)
    x_t = (
        torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        * scheduler.init_noise_sigma
    )
    steps = timesteps_of(scheduler)
    for t, out in zip(steps, outputs(len(steps)), strict=True):
        if name != "SCMScheduler":  # the only one without
            scheduler.scale_model_input(x_t, t)
        mine = noise.pred_x0(scheduler, out, t, x_t)
        result = scheduler.step(out, t, x_t)
        torch.testing.assert_close(mine, result.pred_original_sample, rtol=2e-4, atol=2e-4)
        x_t = result.prev_sample


@pytest.mark.parametrize(("name", "prediction", "extra"), cases(CONVERTING))
def test_equals_the_x0_that_the_solver_converts_to(name, prediction, extra, monkeypatch):
    scheduler = make(name, prediction, extra)
    converted = []
    original = scheduler.convert_model_output

    def spy(model_output, *args, **kwargs):
        converted.append(original(model_output, *args, **kwargs))
        return converted[-1]

    monkeypatch.setattr(scheduler, "convert_model_output", spy)
    x_t = (
        torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        * scheduler.init_noise_sigma
    )
    steps = timesteps_of(scheduler)
    for i, (t, out) in enumerate(zip(steps, outputs(len(steps)), strict=True)):
        scheduler.scale_model_input(x_t, t)
        mine = noise.pred_x0(scheduler, out, t, x_t)
        converted.clear()
        x_next = scheduler.step(out, t, x_t).prev_sample
        expected = converted[0]
        if name == "DEISMultistepScheduler":  # works in ε: (x − α·x₀)/σ
            a, b = noise.scales(scheduler, noise.noise_levels(scheduler)[i])
            expected = (x_t - b * expected) / a
        torch.testing.assert_close(mine, expected, rtol=2e-4, atol=2e-4)
        x_t = x_next


@pytest.mark.parametrize(("name", "prediction", "extra"), cases(SILENT))
def test_x_t_is_made_of_x0_and_eps(name, prediction, extra):
    scheduler = make(name, prediction, extra)
    x0, eps = outputs(2)
    levels = noise.noise_levels(scheduler)
    for i, t in enumerate(timesteps_of(scheduler)):
        x_t = scheduler.add_noise(x0, eps, t.repeat(2).long())
        a, b = noise.scales(scheduler, levels[i])
        out = {"epsilon": eps, "v_prediction": a * eps - b * x0, "sample": x0}[prediction]
        mine = noise.pred_x0(scheduler, out, t, x_t)
        torch.testing.assert_close(mine, x0, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            noise.eps_from_x0(scheduler, x0, t, x_t), eps, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(("name", "extra"), FLOW)
def test_flow_is_a_straight_line_from_x0_to_noise(name, extra):
    scheduler = every_scheduler()[name](**extra)
    scheduler.set_timesteps(5)
    x0, eps = outputs(2)
    levels = noise.noise_levels(scheduler)
    for i, t in enumerate(timesteps_of(scheduler)):
        own = scheduler.sigmas[i]
        x_t = (1 - own) * x0 + own * eps
        torch.testing.assert_close(
            noise.pred_x0(scheduler, eps - x0, t, x_t, step=i), x0, rtol=1e-4, atol=1e-4
        )
        assert levels.sigma[i] == pytest.approx(
            float(own / (1 - own)) if own < 1 else np.inf, rel=1e-4
        )


def test_ipndm_walks_to_the_only_image_there_is():
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(8)
    scheduler.set_begin_index(1)  # its first step divides by a signal of zero
    x0, x_t = outputs(2)
    for i, t in enumerate(scheduler.timesteps[1:], start=1):
        signal, sigma = (float(table[i]) for table in (scheduler.alphas, scheduler.betas))
        v = signal * (x_t - signal * x0) / sigma - sigma * x0
        torch.testing.assert_close(noise.pred_x0(scheduler, v, t, x_t), x0, rtol=1e-3, atol=1e-3)
        x_t = scheduler.step(v, t, x_t).prev_sample
    torch.testing.assert_close(x_t, x0, rtol=1e-3, atol=1e-3)


def test_every_scheduler_of_diffusers_is_named_here_or_supported():
    names = set(every_scheduler())
    tested = {n for n, *_ in RETURNING + CONVERTING + SILENT + FLOW} | {"IPNDMScheduler"}
    untestable = {"CosineDPMSolverMultistepScheduler"}  # needs torchsde even to be made
    assert tested | untestable == noise.SUPPORTED
    assert names - noise.SUPPORTED == UNSUPPORTED & names


def test_every_karras_scheduler_is_supported():
    from diffusers.schedulers import (
        KarrasDiffusionSchedulers,
    )  # what a Stable Diffusion pipeline is annotated with

    assert {s.name for s in KarrasDiffusionSchedulers} <= noise.SUPPORTED


@pytest.mark.parametrize(
    "name", ["UnCLIPScheduler", "CMStochasticIterativeScheduler", "RePaintScheduler"]
)
def test_an_unsupported_scheduler_is_named(name):
    scheduler = every_scheduler()[name]()
    with pytest.raises(ValueError, match=f"{name} is not supported.*Use one of.*DDIMScheduler"):
        noise.noise_levels(scheduler)


def test_a_subclass_is_recognised_by_its_parent():
    class Mine(diffusers.DDIMScheduler):
        pass

    assert noise.kind(Mine()) == "DDIMScheduler"


class GaussianDenoiser:
    """Data N(0, s²): E[x₀ | x_t] = s²√ᾱ·x_t / (s²ᾱ + 1 − ᾱ), exactly."""

    s = 0.5

    def eps(self, scheduler, t, x_t):
        alpha_bar = noise.noise_level(scheduler, t).alpha_bar
        x0 = self.s**2 * alpha_bar**0.5 * x_t / self.variance(alpha_bar)
        return (x_t - alpha_bar**0.5 * x0) / (1 - alpha_bar) ** 0.5

    def variance(self, alpha_bar):
        return self.s**2 * alpha_bar + 1 - alpha_bar

    def error(self, steps):
        """|x_end − exact| after DDIM: the probability flow of a Gaussian keeps x/std."""
        scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **TRAINED)
        scheduler.set_timesteps(steps)
        x = torch.ones(1, 1, dtype=torch.float64)
        start = noise.noise_level(scheduler, scheduler.timesteps[0]).alpha_bar
        for t in scheduler.timesteps:
            x = scheduler.step(self.eps(scheduler, t, x), t, x).prev_sample
        end = float(scheduler.final_alpha_cumprod)
        exact = (self.variance(end) / self.variance(start)) ** 0.5
        return abs(float(x) - exact)


def test_ddim_on_a_gaussian_converges_at_first_order():
    errors = [GaussianDenoiser().error(n) for n in (20, 40, 100, 200)]
    order = np.polyfit(np.log([20, 40, 100, 200]), np.log(errors), 1)[0]
    assert order == pytest.approx(-1, abs=0.15)


def test_pred_x0_of_the_exact_gaussian_denoiser_is_the_posterior_mean():
    scheduler = diffusers.DDIMScheduler(clip_sample=False, **TRAINED)
    scheduler.set_timesteps(10)
    gaussian, x_t = (
        GaussianDenoiser(),
        torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(1, 1, 3, 3),
    )
    for t in scheduler.timesteps:
        alpha_bar = float(scheduler.alphas_cumprod[t])
        mean = gaussian.s**2 * alpha_bar**0.5 * x_t / gaussian.variance(alpha_bar)
        mine = noise.pred_x0(scheduler, gaussian.eps(scheduler, t, x_t), t, x_t)
        torch.testing.assert_close(mine, mean, rtol=1e-6, atol=1e-8)


ONE_OF_EACH = [
    ("DDIMScheduler", {}),
    ("EulerDiscreteScheduler", {}),
    ("HeunDiscreteScheduler", {}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
]


@given(which=st.sampled_from(ONE_OF_EACH), step=st.integers(0, 7), value=st.floats(-5, 5))
@settings(max_examples=40, deadline=None)
def test_vp_and_own_scale_are_inverse_and_keep_the_noise_level(which, step, value):
    name, extra = which
    scheduler = every_scheduler()[name](**(TRAINED | extra))
    scheduler.set_timesteps(8)
    t = scheduler.timesteps[step]
    x = torch.full((1, 1), value, dtype=torch.float64)
    vp = noise.to_vp(scheduler, x, t, step)
    torch.testing.assert_close(noise.from_vp(scheduler, vp, t, step), x)
    level = noise.noise_levels(scheduler)[step]
    a, b = noise.scales(scheduler, level)
    assert b / a == pytest.approx(level.sigma, rel=1e-6)
    assert noise.to_vp(scheduler, torch.tensor(a), t, step) == pytest.approx(
        level.alpha_bar**0.5, rel=1e-5
    )


def test_ddim_and_euler_are_at_the_same_level_at_the_same_timestep():
    ddim, euler = diffusers.DDIMScheduler(**TRAINED), diffusers.EulerDiscreteScheduler(**TRAINED)
    ddim.set_timesteps(4)
    euler.set_timesteps(timesteps=ddim.timesteps.tolist())
    np.testing.assert_allclose(
        noise.noise_levels(ddim).sigma, noise.noise_levels(euler).sigma, rtol=1e-5
    )
    np.testing.assert_allclose(
        noise.noise_levels(ddim).log_snr, -2 * np.log(noise.noise_levels(euler).sigma)
    )


def test_sensitivity_at_the_first_steps_of_sdxl():
    """(1−ᾱ)/ᾱ of SDXL's schedule at 999, 759, 499, 259: 213.6, 18.2, 2.6, 0.52 (from its published
    betas).
    """
    scheduler = diffusers.DDIMScheduler(**TRAINED)
    found = [noise.noise_level(scheduler, t).sigma ** 2 for t in (999, 759, 499, 259)]
    assert found == pytest.approx([213.6, 18.2, 2.6, 0.52], rel=0.03)


def test_one_timestep_a_sample():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    x0, eps = outputs(2)
    t = torch.tensor([100, 900])
    torch.testing.assert_close(
        noise.pred_x0(scheduler, eps, t, scheduler.add_noise(x0, eps, t)), x0, rtol=1e-3, atol=1e-3
    )


def test_half_precision_is_computed_in_single():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    x = torch.randn(1, 4, 4, 4).half()
    found = noise.pred_x0(scheduler, x, 999, x)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_learned_variance_is_left_out():
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type="learned_range")
    x0, eps = outputs(2)
    x_t = scheduler.add_noise(x0, eps, torch.tensor([300]))
    found = noise.pred_x0(scheduler, torch.cat([eps, torch.ones_like(eps)], dim=1), 300, x_t)
    torch.testing.assert_close(found, x0, rtol=1e-4, atol=1e-4)


def test_eps_without_signal_has_no_x0():
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="not defined for an ε-prediction at ᾱ = 0"):
        noise.pred_x0(scheduler, x, 999, x)


def test_a_timestep_outside_the_training_schedule_is_refused():
    with pytest.raises(ValueError, match="outside the schedule of 1000"):
        noise.noise_level(diffusers.DDIMScheduler(), 1000)


def test_unknown_prediction_is_named():
    with pytest.raises(ValueError, match="prediction_type 'noise'"):
        noise.prediction(diffusers.DDIMScheduler(prediction_type="noise"))


def test_steps_asked_for_leave_the_scheduler_alone():
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    assert len(noise.noise_levels(scheduler, steps=4)) == 4
    assert len(scheduler.timesteps) == 10


def test_a_begin_index_tells_equal_timesteps_apart():
    """Heun's method makes every timestep but the first twice, the second at another noise level."""
    scheduler = diffusers.HeunDiscreteScheduler(**TRAINED)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps[1] == scheduler.timesteps[2]
    assert noise.step_index(scheduler, scheduler.timesteps[1]) == 1
    scheduler.set_begin_index(2)
    assert noise.step_index(scheduler, scheduler.timesteps[1]) == 2


def test_a_composite_delegates_each_step():
    class Composite:
        inner = (diffusers.DDIMScheduler(**TRAINED), diffusers.EulerDiscreteScheduler(**TRAINED))
        timesteps = torch.tensor([999.0, 799.2])
        step_index = None

        def delegate(self, step):
            return self.inner[step or 0], step

    composite = Composite()
    composite.inner[1].set_timesteps(6)
    levels = noise.noise_levels(composite)
    assert levels.sigma[0] == pytest.approx(14.6, rel=0.01)
    x0, eps = outputs(2)
    x_t = x0 + levels.sigma[1] * eps
    torch.testing.assert_close(
        noise.pred_x0(composite, eps, 799.2, x_t, step=1), x0, rtol=1e-3, atol=1e-3
    )


def test_midway_between_timesteps_log_sigma_is_interpolated():
    scheduler = diffusers.DDIMScheduler(**TRAINED)
    low, mid, high = (noise.noise_level(scheduler, t) for t in (500, 500.5, 501))
    assert mid.log_snr == pytest.approx((low.log_snr + high.log_snr) / 2, rel=1e-9)
