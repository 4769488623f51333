"""x̂₀ under settings that few pipelines use: σ that rise, a timestep a token, a learned variance."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from xhat.hooks.families import refuse_mean_velocity
from xhat.hooks.noise import noise_levels, pred_x0
from xhat.hooks.noise.x0 import clipping, x0_of_tokens
from xhat.hooks.record.recorder import Recorder, unpacked
from xhat.hooks.tracer import Tracer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Loop:
    """A denoising loop around a given prediction."""

    def __init__(self, scheduler, predict, x, **step):
        self.scheduler, self.predict, self.x, self.step = scheduler, predict, x, step
        self.unet = nn.Identity()
        self.unet.weight = nn.Parameter(torch.ones(1))

    def __call__(self, steps=4):
        self.scheduler.set_timesteps(steps)
        x = self.x
        for i, t in enumerate(self.scheduler.timesteps):
            step = {k: v(t) if callable(v) else v for k, v in self.step.items()}
            x = self.scheduler.step(self.predict(self.unet(x), i), t, x, **step).prev_sample
        return x


def test_rising_sigmas_lead_to_the_picture_too():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True, shift=1.0)
    x0, noise = drawn(1, 1, 4, 8, 8), drawn(2, 1, 4, 8, 8)
    # x_t = (1 − σ)·noise + σ·x₀, and v = x₀ − noise
    pipe = Loop(scheduler, lambda x, i: x0 - noise, noise)
    with Tracer(pipe) as tracer:
        torch.testing.assert_close(pipe(), x0)
    for step in range(4):
        assert np.allclose(tracer.trace["pred_x0"].values[:, step], x0.numpy(), atol=1e-5)
    levels = noise_levels(scheduler)
    assert (np.diff(levels.sigma) < 0).all()  # the noise falls all the same
    np.testing.assert_allclose(levels.sigma[1:], (1 - (s := scheduler.sigmas[1:-1])) / s, rtol=1e-5)


def test_a_timestep_a_token_is_a_noise_level_a_token():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    x0, noise = drawn(1, 2, 6, 4), drawn(2, 2, 6, 4)
    share = torch.linspace(0, 1, 6).expand(2, -1)
    x_t = (1 - share[..., None]) * x0 + share[..., None] * noise
    got = x0_of_tokens(scheduler, x0 - noise, share * 1000, x_t)
    torch.testing.assert_close(got, x0)


def test_a_step_with_a_timestep_a_token_is_recorded_right():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    share = torch.cat([torch.full((1, 2), 0.3), torch.ones(1, 4)], 1)
    x = drawn(0, 1, 6, 4)
    pipe = Loop(scheduler, lambda x, i: 0.1 * x, x, per_token_timesteps=lambda t: share * t)
    with Recorder(pipe) as recorder:
        pipe(3)
        (record,) = recorder.take()
    for step in record.steps:
        sigma = share[..., None] * step.level.timestep / 1000
        torch.testing.assert_close(step.pred_x0, step.latents * (1 + 0.1 * sigma))


def test_a_timestep_a_token_under_another_scheduler_is_refused():
    with pytest.raises(ValueError, match="a timestep a token"):
        x0_of_tokens(diffusers.DDIMScheduler(), *[torch.zeros(1, 2, 2)] * 3)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_learned_variance_is_left_out_of_the_trace(channels):
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    generator = torch.Generator().manual_seed(0)
    x = drawn(0, 1, channels, 8, 8)
    pipe = Loop(scheduler, lambda x, i: torch.cat([x, 0.1 * x], 1), x, generator=generator)
    with Tracer(pipe) as tracer:
        pipe(3)
    trace = tracer.trace
    assert trace["model_output"].shape == trace["pred_x0"].shape == (1, 3, channels, 8, 8)
    t = int(trace["timestep"][1])
    x_t = torch.as_tensor(trace["latents"].values[:, 1])
    torch.testing.assert_close(
        torch.as_tensor(trace["pred_x0"].values[:, 1]), pred_x0(scheduler, x_t, t, x_t)
    )


@pytest.mark.parametrize("flag", ["use_meanflow", "flow_map"])
def test_a_mean_velocity_is_refused_by_name(flag):
    denoiser = nn.Identity()
    denoiser.config = {flag: True}
    with pytest.raises(ValueError, match=f"Identity with {flag}=True predicts the mean velocity"):
        refuse_mean_velocity(denoiser)
    denoiser.config = {flag: False}
    refuse_mean_velocity(denoiser)


def test_a_pipeline_of_mean_velocities_is_refused_before_it_runs():
    pipe = Loop(diffusers.FlowMatchEulerDiscreteScheduler(), lambda x, i: x, drawn(0, 1, 4, 2, 2))
    pipe.unet.config = {"use_meanflow": True}
    with pytest.raises(ValueError, match="mean velocity"):
        Recorder(pipe).__enter__()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip_sample": True}, "clipping to ±1"),
        ({"clip_sample": False, "thresholding": True}, "dynamic thresholding"),
        ({"clip_sample": False}, "clips nothing"),
    ],
)
def test_a_trace_says_whether_the_scheduler_clips_x0(settings, words):
    scheduler = diffusers.DDIMScheduler(**settings)
    pipe = Loop(scheduler, lambda x, i: x, 3 * drawn(0, 1, 3, 4, 4))
    with Tracer(pipe) as tracer:
        pipe(2)
    assert words in tracer.trace.attrs["pred_x0"]
    assert words in clipping(scheduler.config)
    assert float(abs(tracer.trace["pred_x0"]).max()) > 1  # what is recorded is not clipped


def test_latents_of_frames_before_channels_are_named_so():
    pipe = Loop(diffusers.DDIMScheduler(), lambda x, i: x, drawn(0, 1, 5, 4, 2, 3))
    pipe.unet.__class__ = type("CogVideoXTransformer3DModel", (nn.Identity,), {})
    with Tracer(pipe) as tracer:
        pipe(2)
    sizes = tracer.trace["pred_x0"].sizes
    assert [sizes[d] for d in ("frame", "channel", "y", "x")] == [5, 4, 2, 3]


def test_tokens_of_videos_stay_tokens():
    """As LTX has them: a square number of tokens, and no ``vae_scale_factor``."""

    class Pipe:
        @staticmethod
        def _unpack_latents(latents, num_frames, height, width, patch_size=1, patch_size_t=1): ...

    x = drawn(0, 1, 16, 8)
    assert unpacked(Pipe(), x, None) is x
    Pipe.vae_scale_factor = 8
    assert unpacked(Pipe(), x, (32, 32)) is x
