"""One source of noise at a time: what is held is held, what varies is of the seed itself."""

import numpy as np
import pytest
import torch

from xhat.analysis.sampling.noise_sources import sample_noise_sources

PROMPTS = ["a red planet", "the blue dog"]
CALL = {"num_inference_steps": 3, "guidance_scale": 1.0, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def stochastic(tiny):
    """A pipeline whose steps draw noise."""
    from diffusers import LCMScheduler

    pipe = tiny.sd()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    return pipe


@pytest.fixture(scope="module")
def samples(stochastic):
    return sample_noise_sources(stochastic, PROMPTS, [3, 5, 8], call=CALL, progress=False)["final"]


def test_each_source_alone_leaves_the_other_as_it_was(samples):
    """Prompt p holds the noise of its seed p: there every source gives one picture."""
    for p in range(2):
        both, x_t, later = (samples.sel(source=s).isel(prompt=p, seed=p) for s in samples.source)
        np.testing.assert_array_equal(both, x_t)
        np.testing.assert_array_equal(both, later)


def test_every_source_varies_the_pictures(samples):
    for source in samples["source"].values:
        one = samples.sel(source=source).isel(prompt=0).values
        assert len(np.unique(one.reshape(3, -1).round(5), axis=0)) == 3, source


@pytest.mark.slow
def test_a_deterministic_sampler_has_no_later_noise(tiny):
    pipe = tiny.sd()  # DDIM, η = 0
    samples = sample_noise_sources(pipe, PROMPTS[:1], [0, 1], call=CALL, progress=False)["final"]
    later = samples.sel(source="later").isel(prompt=0)
    np.testing.assert_array_equal(later.isel(seed=0), later.isel(seed=1))
    np.testing.assert_array_equal(samples.sel(source="both"), samples.sel(source="x_T"))


@pytest.mark.slow
def test_a_seed_does_not_depend_on_its_batch(stochastic, samples):
    alone = sample_noise_sources(
        stochastic, PROMPTS, [3, 5, 8], call=CALL, batch_size=1, progress=False
    )["final"]
    np.testing.assert_allclose(alone, samples, rtol=1e-4, atol=1e-4)


def test_x_t_is_that_of_the_seed(stochastic, samples):
    shape = samples.shape[3:]
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(5))[None]
    later = torch.Generator().manual_seed((1 << 31) + 3)  # prompt 0 holds the later noise of seed 3
    call = {**CALL, "output_type": "latent", "latents": latents, "generator": later}
    expected = stochastic(PROMPTS[0], **call).images
    got = samples.sel(source="x_T", seed=5).isel(prompt=0)
    np.testing.assert_allclose(got, expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("seeds", "message"), [([0], "two or more"), ([0, 2**31], "2³¹"), ([-1, 2], "from 0")]
)
def test_bad_seeds_are_refused(tiny, seeds, message):
    with pytest.raises(ValueError, match=message):
        sample_noise_sources(tiny.sd(), PROMPTS, seeds, call=CALL, progress=False)
