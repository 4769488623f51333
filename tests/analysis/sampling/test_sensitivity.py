"""What is left of a seed: exact on identities, and on denoisers whose x̂₀ is known in closed
form.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from xhat.analysis.sampling.final_latents import Arm
from xhat.analysis.sampling.sensitivity import (
    identifiability,
    measure_sensitivity,
    paired_ranks,
    pairing,
    x0_gain,
)

PROMPTS = ["a red planet", "the quiet face"]


def test_ranks_of_the_same_and_of_turned_rows():
    x = np.random.default_rng(0).normal(size=(9, 40))
    rank, matched = paired_ranks(x, 3 * x + 5)  # by direction, after the mean is taken away
    assert rank.tolist() == [0] * 9
    assert matched.tolist() == [1] * 9
    rank, matched = paired_ranks(x, -x)
    assert rank.tolist() == [1] * 9
    assert matched.tolist() == [0] * 9


def test_unrelated_rows_are_at_chance():
    rng = np.random.default_rng(1)
    found = [paired_ranks(rng.normal(size=(20, 30)), rng.normal(size=(20, 30))) for _ in range(200)]
    assert np.mean([rank for rank, _ in found]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([matched for _, matched in found]) == pytest.approx(1 / 20, abs=0.012)


def test_rows_that_are_all_alike_are_at_chance_exactly():
    rank, matched = paired_ranks(np.ones((4, 4)), np.eye(4))
    assert rank.tolist() == [0.5] * 4
    assert matched.tolist() == [0.25] * 4


def test_one_seed_cannot_be_told_from_others():
    with pytest.raises(ValueError, match="two or more seeds"):
        paired_ranks(np.ones((1, 3)), np.ones((1, 3)))


def traced(pred_x0, final):
    dims = ("prompt", "seed", "step", "channel", "y", "x")
    coords = {"prompt": PROMPTS, "sigma": ("step", [10.0, 1.0]), "segment": ("step", ["a", "a"])}
    return xr.Dataset(
        {"pred_x0": (dims, pred_x0), "final": ((*dims[:2], *dims[3:]), final)}, coords=coords
    )


def test_a_seed_is_told_where_its_x0_is_its_own():
    rng = np.random.default_rng(2)
    final = rng.normal(size=(2, 6, 1, 4, 4))
    collapsed = np.broadcast_to(
        rng.normal(size=(2, 1, 1, 4, 4)), final.shape
    )  # the first step: one x̂₀ for all seeds
    found = identifiability(traced(np.stack([collapsed, final], 2), final))
    means = found.sel(bound="estimate")
    np.testing.assert_allclose(means["identified_mean"], [1 / 6, 1])
    np.testing.assert_allclose(means["rank_mean"], [0.5, 0])
    assert found["rank_by_seed"].sizes == {"prompt": 2, "step": 2, "seed": 6}
    assert found["rank_mean"].attrs["seeds"] == 6
    assert found.attrs["chance"] == 1 / 6
    assert found["sigma"].values.tolist() == [10, 1]


def test_pictures_of_one_seed_are_found_among_the_others():
    rng = np.random.default_rng(3)
    base = xr.DataArray(
        rng.normal(size=(2, 5, 1, 3, 3)), dims=("prompt", "seed", "channel", "y", "x")
    )
    base = base.assign_coords(prompt=PROMPTS)
    turned = base.roll(seed=1)
    found = pairing(
        {"base": base, "same": 2 * base, "turned": turned}, "base", lambda x: x.reshape(len(x), -1)
    )
    means = found.sel(bound="estimate")
    assert means.sel(arm="same")["paired_first_mean"] == 1
    assert means.sel(arm="same")["paired_rank_mean"] == 0
    assert means.sel(arm="turned")["paired_first_mean"] == 0
    assert means.sel(arm="turned")["paired_rank_mean"] > 0
    with pytest.raises(ValueError, match="there are base"):
        pairing({"base": base}, "bsae", lambda x: x)


SPREAD = torch.tensor([2.0, 0.5, 1.0, 0.1]).reshape(4, 1, 1)


def wiener(pipe, monkeypatch):
    """The best denoiser of pictures drawn from N(0, s²), s by channel: x̂₀ = s²·√ᾱ/(ᾱ·s² + 1 −
    ᾱ)·x_t.
    """
    table = pipe.scheduler.alphas_cumprod.double()

    def forward(x, timestep, return_dict=True, **_):
        alpha_bar = table[int(timestep)]
        eps = (x - math.sqrt(alpha_bar) * k_of(alpha_bar) * x) / math.sqrt(1 - alpha_bar)
        return UNet2DConditionOutput(sample=eps.float()) if return_dict else (eps.float(),)

    monkeypatch.setattr(pipe.unet, "forward", forward)


def k_of(alpha_bar):
    return SPREAD**2 * math.sqrt(alpha_bar) / (alpha_bar * SPREAD**2 + 1 - alpha_bar)


def expected(pipe, fresh):
    """‖∂x̂₀/∂x_T‖/√d of the chain of steps; fresh noise between them does not depend on x_T."""
    d, gains = torch.ones(4, 1, 1), []
    levels = [float(pipe.scheduler.alphas_cumprod[int(t)]) for t in pipe.scheduler.timesteps]
    for a, b in zip(levels, [*levels[1:], 1.0], strict=True):
        x0 = k_of(a) * d
        gains.append(float(x0.square().mean().sqrt()))
        eps = (d - math.sqrt(a) * x0) / math.sqrt(1 - a)
        d = math.sqrt(b) * x0 + (0 if fresh else math.sqrt(1 - b) * eps)
    return gains


@pytest.mark.parametrize("which", ["base", "student"])
def test_the_gain_is_the_jacobians_size(own_pair, monkeypatch, which):
    """LCM goes on with fresh noise and boundary-scaled x̂₀, which is x̂₀ itself to a part in ten
    thousand.
    """
    pipe = getattr(own_pair, which)
    wiener(pipe, monkeypatch)
    arm = Arm(pipe, {"num_inference_steps": 4, "guidance_scale": 1.0})
    found = x0_gain(arm, PROMPTS, range(8), batch_size=16)
    theory = expected(pipe, fresh=which == "student")
    gain = found["gain_mean"].sel(bound="estimate")
    np.testing.assert_allclose(gain, theory, rtol=0.06)  # 2 × 8 probes of 256 numbers
    assert (theory[0] < theory[1]) == (which == "base")  # fresh noise is what forgets
    assert found["timestep"].values.tolist() == [999, 749, 499, 249]


def test_a_sampler_that_forgets_its_noise_has_no_gain(own_pair, monkeypatch):
    def forward(x, timestep, return_dict=True, **_):
        """x̂₀ is zero whatever x_t."""
        alpha_bar = float(own_pair.base.scheduler.alphas_cumprod[int(timestep)])
        return (x / math.sqrt(1 - alpha_bar),)

    monkeypatch.setattr(own_pair.base.unet, "forward", forward)
    found = x0_gain(
        Arm(own_pair.base, {"num_inference_steps": 2, "guidance_scale": 1.0}), PROMPTS, [0]
    )
    assert float(found["gain"].max()) < 1e-3


@pytest.mark.slow
def test_packed_latents_are_refused(tiny):
    call = {"num_inference_steps": 1, **tiny.call_arguments("flux")}
    with pytest.raises(ValueError, match=r"expected \(n, channel, y, x\)"):
        x0_gain(Arm(tiny.build("flux"), call), PROMPTS, [0])


@pytest.mark.slow
def test_all_of_it_on_real_samplers(small_pair):
    arms = {"base": Arm(small_pair.base), "student": Arm(small_pair.student)}
    curves, paired = measure_sensitivity(
        arms,
        PROMPTS,
        [0, 1, 2],
        curves=["student"],
        reference="base",
        features=lambda x: x.reshape(len(x), -1),
    )
    curve = curves["student"]
    assert curve["gain_mean"].shape == curve["identified_mean"].shape == (4, 3)
    last = curve["identified_mean"].sel(bound="estimate")[-1]
    assert float(last) == 1  # the last x̂₀ is the final picture
    assert paired["arm"].values.tolist() == ["student"]
