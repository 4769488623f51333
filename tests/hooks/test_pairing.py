"""Pictures, masks and embeddings go to the prompt that they were given for; ``final`` is what a
call ends with; a reading that cannot be told apart takes nothing with it.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import xhat

PROMPTS = ["a red planet", "a blue dog", "a face"]
CALL = {"seeds": range(2), "num_inference_steps": 2, "progress": False, "guidance_scale": 1.0}
SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def img2img(tiny):
    parts = tiny.sd().components
    return diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)


@pytest.fixture(scope="module")
def inpaint(tiny):
    parts = tiny.sd().components
    return diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)


def pictures():
    dice = np.random.default_rng(0)
    shape = (len(PROMPTS), 32, 32, 3)
    return [Image.fromarray(x) for x in dice.integers(0, 255, shape, dtype=np.uint8)]


def masks():
    return [Image.fromarray(np.full((32, 32), v, np.uint8)) for v in (0, 255, 0)]


def arrays():
    return torch.stack([torch.from_numpy(np.array(p) / 255.0) for p in pictures()]).movedim(3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 3, 6])
@pytest.mark.parametrize("given", [pictures, arrays, lambda: arrays().movedim(1, 3).numpy()])
def test_one_picture_a_prompt(img2img, given, batch_size):
    call = CALL | {"strength": 0.8}
    image = given()
    many = xhat.trace(img2img, PROMPTS, image=image, batch_size=batch_size, **call)
    for i, prompt in enumerate(PROMPTS):
        one = xhat.trace(img2img, prompt, image=image[i : i + 1], batch_size=1, **call)
        np.testing.assert_allclose(many["final"][i], one["final"][0], atol=1e-5)


def test_one_picture_for_all(img2img):
    call = CALL | {"strength": 0.8}
    many = xhat.trace(img2img, PROMPTS, image=pictures()[0], **call)
    one = xhat.trace(img2img, PROMPTS[1], image=pictures()[0], batch_size=1, **call)
    np.testing.assert_allclose(many["final"][1], one["final"][0], atol=1e-5)


def test_one_picture_and_mask_a_prompt(inpaint):
    call = CALL | {"strength": 0.8, "output_type": "latent"} | SIZE
    given = {"image": pictures(), "mask_image": masks()}
    many = xhat.trace(inpaint, PROMPTS, batch_size=4, **given, **call)
    for i, prompt in enumerate(PROMPTS):
        own = {name: value[i] for name, value in given.items()}
        one = xhat.trace(inpaint, prompt, batch_size=1, **own, **call)
        np.testing.assert_allclose(many["final"][i], one["final"][0], atol=1e-5)


def test_negative_embeddings_a_prompt(tiny):
    pipe = tiny.sd()
    call = CALL | SIZE | {"guidance_scale": 3.0}
    texts = ["blurry", "grey", "flat"]
    embeds = torch.cat([pipe.encode_prompt(t, "cpu", 1, False)[0] for t in texts])
    many = xhat.trace(pipe, PROMPTS, negative_prompt_embeds=embeds, batch_size=4, **call)
    told = xhat.trace(pipe, PROMPTS, negative_prompt=texts, batch_size=4, **call)
    np.testing.assert_allclose(many["final"], told["final"], atol=1e-5)


@pytest.mark.parametrize("number", [2, 4])
def test_any_other_number_of_pictures_is_refused(img2img, tmp_path, number):
    image = (pictures() * 2)[:number]
    with pytest.raises(ValueError, match=rf"image has {number} entries for 3 prompts"):
        xhat.trace(img2img, PROMPTS, image=image, store=tmp_path / "a.zarr", **CALL)
    assert not list(tmp_path.iterdir())


# What a call ends with


def halved(pipe, step, t, kwargs):
    return {"latents": kwargs["latents"] * 0.5}


def halved_at_the_end(pipe, step, t, kwargs):
    return {"latents": kwargs["latents"] * (0.5 if step == 1 else 1.0)}


@pytest.mark.parametrize("callback", [None, halved, halved_at_the_end])
def test_final_is_what_is_returned_or_not_there(tiny, callback):
    pipe = tiny.sd()
    call = {
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "callback_on_step_end": callback,
    } | SIZE
    generator = torch.Generator().manual_seed(3)
    want = pipe("a face", generator=generator, output_type="latent", **call).images.numpy()
    latent, decoded = (
        xhat.trace(pipe, "a face", seeds=[3], progress=False, output_type=kind, **call)
        for kind in ("latent", "np")
    )
    np.testing.assert_array_equal(latent["final"][0], want)
    if callback is None:
        np.testing.assert_array_equal(decoded["final"][0], want)
        assert "final" not in decoded.attrs
    else:
        assert "final" not in decoded
        assert decoded.attrs["final"].startswith("left out: the pipeline changed the latents")


@pytest.mark.parametrize("mask", [0, 128, 255])
def test_what_inpainting_ends_with(inpaint, mask):
    """It blends the picture in after each step; where everything is painted, nothing is blended."""
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, "strength": 1.0} | SIZE
    half = np.zeros((32, 32), np.uint8)
    half[:, :16] = mask
    given = {"image": pictures()[0], "mask_image": Image.fromarray(half)}
    generator = torch.Generator().manual_seed(3)
    want = inpaint("a face", generator=generator, output_type="latent", **given, **call).images
    decoded = xhat.trace(inpaint, "a face", seeds=[3], progress=False, **given, **call)
    if "final" in decoded:
        np.testing.assert_allclose(decoded["final"][0], want.numpy(), atol=1e-5)
    else:
        assert "left out" in decoded.attrs["final"]


@pytest.mark.slow
def test_a_tracer_leaves_out_what_it_cannot_tell(tiny):
    pipe = tiny.sd()
    for kind in ("latent", "np"):
        with xhat.Tracer(pipe) as tracer:
            pipe(
                "a face",
                num_inference_steps=2,
                output_type=kind,
                callback_on_step_end=halved,
                **SIZE,
            )
        assert "final" not in tracer.trace
        with xhat.Tracer(pipe) as tracer:
            pipe("a face", num_inference_steps=2, output_type=kind, **SIZE)
        assert "final" in tracer.trace


# Readings


def test_a_reading_that_cannot_be_told_apart_is_left_out_and_named(tiny):
    pipe, call = tiny.sd(), CALL | {"seeds": [0]}
    block = pipe.unet.mid_block
    inner, forward = torch.nn.Identity(), pipe.unet.mid_block.forward
    block.add_module("odd", inner)

    def odd(h, *args, **kwargs):
        inner(torch.cat([h] * 16))
        return forward(h, *args, **kwargs)

    block.forward = odd
    with pytest.warns(UserWarning, match=r"'mid_block.odd' fires with 32 rows .* left out"):
        got = xhat.trace(pipe, PROMPTS[:2], hooks={"mid_block.odd": "full", "h": "mean"}, **call)
    want = xhat.trace(tiny.sd(), PROMPTS[:2], hooks={"h": "mean"}, **call)
    assert list(got["activations"].children) == ["h"]
    np.testing.assert_array_equal(got["activations/h/value"], want["activations/h/value"])
    np.testing.assert_array_equal(got["pred_x0"], want["pred_x0"])
