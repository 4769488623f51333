"""A shipped slider is loaded by its name, on base, student and hybrid in turn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import xhat
from xhat.zoo.lora.loading import load_slider, remove, scales_of, sliding
from xhat.zoo.lora.shipped import SLIDERS, file_of, shipped


@pytest.fixture
def models():
    pair = xhat.load_pair("demo")
    return {
        "base": pair.base,
        "student": pair.student,
        "hybrid": xhat.hybrid(pair.base, pair.student),
    }


def picture(pipe):
    call = xhat.defaults(pipe) | {"num_inference_steps": 2, "output_type": "np"}
    return pipe("a critter", generator=torch.Generator().manual_seed(0), **call).images


@pytest.mark.parametrize("order", itertools.permutations(["base", "student", "hybrid"]))
def test_in_any_order(models, order):
    """Each has it once, and it is one LoRA: turned in the hybrid, it is turned in its models."""
    for name in order:
        assert load_slider(models[name], "square") == "square"
        assert scales_of(models[name]) == {"square": 0.0}
    with sliding(models["hybrid"], {"square": 1.5}):
        assert all(scales_of(pipe) == {"square": 1.5} for pipe in models.values())
    remove(models["hybrid"], "square")
    assert all(scales_of(pipe) == {} for pipe in models.values())


@pytest.mark.slow
def test_it_turns_all_three(models):
    for pipe in models.values():
        plain = picture(pipe)
        load_slider(pipe, "square")
        assert np.array_equal(picture(pipe), plain)
        with sliding(pipe, {"square": 1.5}):
            turned = picture(pipe)
        assert not np.array_equal(turned, plain)
        assert np.array_equal(picture(pipe), plain)


def test_names_and_paths():
    assert set(SLIDERS) <= set(shipped())
    assert file_of("square") == shipped()["square"] == file_of(str(shipped()["square"]))
    with pytest.raises(ValueError, match="nor is it the name of .*did you mean 'square'"):
        file_of("sqare")


def test_a_slider_of_another_family(tiny):
    with pytest.raises(ValueError, match="square.safetensors .* this UNet2DConditionModel|not fit"):
        load_slider(tiny.sd(0), "square")
