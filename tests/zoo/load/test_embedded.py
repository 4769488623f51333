"""The embedded folders are ordinary diffusers pipelines: two plain lines load and run them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline

from xhat.zoo.family.networks import make_tokenizer, make_vae, save_pipeline
from xhat.zoo.load.embedded import embedded
from xhat.zoo.pairs import DEMO, load_model

CALL = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "np"}
NETWORKS = ("unet", "vae", "text_encoder")


def picture(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe("a critter", generator=torch.Generator().manual_seed(0), **CALL).images


@pytest.mark.parametrize("name", embedded())
def test_diffusers_alone_loads_and_runs_it(name):
    """In one precision, and with the very pictures that are drawn here."""
    pipe = DiffusionPipeline.from_pretrained(embedded()[name])
    assert {getattr(pipe, part).dtype for part in NETWORKS} == {torch.float32}
    assert np.array_equal(picture(pipe), picture(load_model(f"{DEMO}/{name}")))


def test_in_half_precision_where_that_is_asked_for():
    pipe = StableDiffusionPipeline.from_pretrained(
        embedded()["base"], dtype=torch.bfloat16, local_files_only=True
    )
    assert {getattr(pipe, part).dtype for part in NETWORKS} == {torch.bfloat16}
    assert np.isfinite(picture(pipe)).all()


def test_what_training_writes_is_such_a_folder(tmp_path):
    """The writer of the folders, on networks that were never trained."""
    there = load_model(f"{DEMO}/base")
    save_pipeline(
        tmp_path,
        vae=make_vae(),
        tokenizer=make_tokenizer(),
        text_encoder=there.text_encoder,
        unet=there.unet,
        scheduler=DDIMScheduler.from_config(there.scheduler.config),
        defaults={"num_inference_steps": 1},
    )
    assert json.loads((tmp_path / "text_encoder" / "config.json").read_text())["dtype"] == "float32"
    assert {there.unet.dtype, there.text_encoder.dtype} == {torch.float32}
    pipe = DiffusionPipeline.from_pretrained(tmp_path)
    assert {getattr(pipe, part).dtype for part in NETWORKS} == {torch.float32}
    assert np.isfinite(picture(pipe)).all()
