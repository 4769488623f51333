"""The judge's feature space over latents."""

import numpy as np
import pytest
import torch

import xhat
from xhat.probes.features import JudgeSpace, decode_latents


@pytest.fixture(scope="module")
def base():
    return xhat.load_pair("demo").base


@pytest.mark.slow
def test_decoding_is_the_pipelines_own(base):
    call = {"num_inference_steps": 2, "guidance_scale": 1.0}
    latents, images = (
        base("a planet", generator=torch.Generator().manual_seed(0), output_type=o, **call).images
        for o in ("latent", "np")
    )
    np.testing.assert_allclose(
        decode_latents(base.vae, latents.numpy()), images.transpose(0, 3, 1, 2), atol=1e-6
    )


def test_labels_are_of_what_the_prompt_leaves_open(base):
    space, latents = (
        JudgeSpace(base.vae),
        np.random.default_rng(0).normal(size=(4, 4, 16, 16)).astype(np.float32),
    )
    labels = space.labels(latents, "a blue planet with a ring")
    assert set(labels) == {"background", "size", "surface", "moons"}
    for values, count in labels.values():
        assert values.shape == (4,)
        assert values.max() < count
    assert space.features(latents).shape == (4, 128)
    with pytest.raises(ValueError, match="a cat"):
        space.labels(latents, "a cat")


def test_the_picture_kept_is_never_a_stale_one(base):
    space = JudgeSpace(base.vae)
    one, other = np.random.default_rng(0).normal(size=(2, 2, 4, 16, 16)).astype(np.float32)
    first = space.features(one)
    assert not np.allclose(first, space.features(other))
    np.testing.assert_array_equal(first, space.features(one))
