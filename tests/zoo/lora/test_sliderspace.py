"""Directions of a model's own: principal axes in closed form, and sliders that move features along
them.
"""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from xhat.zoo.lora import sliderspace
from xhat.zoo.lora import styles as custom
from xhat.zoo.lora.inputs import condition, predict, seen_x0, states
from xhat.zoo.lora.latents import to_images, to_latents
from xhat.zoo.lora.loading import load_slider, sliding
from xhat.zoo.lora.slider import save_lora

CALL = {"height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 1.0}


def colours(images):
    """Features: the mean of each colour over each quarter of the picture."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.fixture(scope="module")
def found(tiny):
    pipe = tiny.sd(0)
    return pipe, sliderspace.directions(pipe, "a planet", colours, 2, samples=20, seed=7, **CALL)


@pytest.mark.slow
def test_axes_are_the_principal_components_of_the_samples(found):
    pipe, directions = found
    features = []
    for seed in range(7, 27):
        made = pipe(
            "a planet", generator=torch.Generator().manual_seed(seed), output_type="np", **CALL
        ).images
        features.append(colours(torch.from_numpy(made).permute(0, 3, 1, 2)).numpy()[0])
    pca = PCA(2).fit(np.stack(features).astype(np.float64))
    assert np.allclose(np.abs((directions.axes.numpy() * pca.components_).sum(1)), 1, atol=1e-3)
    assert np.allclose(directions.spread, pca.explained_variance_**0.5, rtol=1e-3)
    assert np.allclose(directions.share, pca.explained_variance_ratio_, rtol=1e-3)


@pytest.mark.slow
def test_a_direction_moves_features_along_its_axis(found, tmp_path):
    pipe, directions = found
    state = sliderspace.train_direction(
        pipe, directions, 0, colours, rank=2, layers="all", steps=20, rate=1e-2, seeds=2, call=CALL
    )
    assert all(p.grad is None for part in (pipe.unet, pipe.vae) for p in part.parameters())
    name = load_slider(pipe, save_lora(tmp_path / "axis.safetensors", state, {}))
    seen, given = (
        states(pipe, ["a planet"], [90, 91], **CALL),
        condition(pipe, "a planet", height=16, width=16),
    )
    read = {}
    for scale in (-1, 0, 1):
        with sliding(pipe, {name: scale}), torch.no_grad():
            x0 = seen_x0(pipe.scheduler, seen, predict(pipe.unet, given, seen.x_t, seen.timestep))
            read[scale] = colours(to_images(pipe, x0)).mean(0)
    for sign in (1, -1):
        moved = sign * (read[sign] - read[0])
        assert torch.nn.functional.cosine_similarity(moved, directions.axes[0], dim=0) > 0.3


def test_more_directions_than_samples_span_are_refused(found):
    with pytest.raises(ValueError, match="20 samples span at most 19"):
        sliderspace.directions(found[0], "a planet", colours, 20, samples=20, **CALL)


@pytest.mark.parametrize("name", ["sd", "sd3", "pixart"])
def test_the_wanted_output_recovers_the_picture(tiny, name):
    """x̂₀ of the customisation target is x₀, for ε-, v- and flow-prediction."""
    scheduler = tiny.build(name).scheduler
    x0, eps = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([900, 400, 20])
    x_t, target = custom.noised(scheduler, x0, eps, t)
    from xhat.hooks.noise.levels import noise_level
    from xhat.zoo.lora.inputs import States

    levels = tuple(noise_level(type(scheduler).from_config(scheduler.config), float(u)) for u in t)
    torch.testing.assert_close(
        seen_x0(scheduler, States(x_t, t, levels), target), x0, rtol=1e-3, atol=1e-3
    )


@pytest.mark.slow
def test_customisation_lowers_its_own_loss_and_refuses_packed_latents(tiny, tmp_path):
    pipe = tiny.sd(0)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    state = custom.train_custom(
        pipe, images, "a robot", rank=2, steps=20, rate=1e-2, call={"height": 16, "width": 16}
    )
    name = load_slider(pipe, save_lora(tmp_path / "style.safetensors", state, {}))
    with torch.no_grad():
        x0 = to_latents(pipe, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
        eps, t = (
            torch.randn(x0.shape, generator=torch.Generator().manual_seed(3)),
            torch.full((6,), 500),
        )
        x_t, target = custom.noised(pipe.scheduler, x0, eps, t)
        given, loss = condition(pipe, "a robot", height=16, width=16), {}
        for scale in (0, 1):
            with sliding(pipe, {name: scale}):
                loss[scale] = float((predict(pipe.unet, given, x_t, t) - target).square().mean())
    assert loss[1] < 0.95 * loss[0]
    with pytest.raises(ValueError, match="expected pictures .*got \\(6, 16, 16\\)"):
        custom.train_custom(pipe, images[..., 0], "a robot")
    with pytest.raises(ValueError, match="packs its latents"):
        custom.train_custom(tiny.flux(), images, "a robot")
    with pytest.raises(ValueError, match="robot, face"):
        custom.style_pictures("manga")
