"""The registry says what its cards say, and schedulers made from it step where the cards say."""

from __future__ import annotations

import inspect

import diffusers
import pytest
import torch

from xhat.zoo.load.catalogue import bases, find_published, published
from xhat.zoo.load.entries import Published

pytestmark = pytest.mark.filterwarnings("ignore")

# scheduler/scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0, in what matters here
SDXL_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
WITH_SCHEDULER = [e for e in published().values() if e.scheduler and e.timesteps]


def test_names_are_unique_and_of_their_family():
    from xhat.zoo.load.catalogue import CHECKPOINTS

    assert len(published()) == len(CHECKPOINTS)
    assert all(name.split("/")[0] == entry.base.name for name, entry in published().items())
    assert set(bases()) == {
        "sdxl",
        "sd15",
        "sd21",
        "pixart",
        "sd35",
        "flux",
        "zimage",
        "qwen",
        "krea2",
    }


@pytest.mark.parametrize("entry", published().values(), ids=lambda e: e.name)
def test_an_entry_is_whole(entry: Published):
    assert entry.source == f"https://huggingface.co/{entry.repo}"
    assert entry.checked
    assert (entry.file is None) == (entry.kind in ("pipeline", "denoiser"))
    assert entry.steps == len(entry.timesteps or range(entry.steps))
    pipeline = getattr(diffusers, entry.base.pipeline)
    known = inspect.signature(pipeline.__call__).parameters
    assert set(entry.call) | set(entry.base.call) <= set(known), (
        "keywords that the pipeline does not take"
    )


@pytest.mark.parametrize("entry", WITH_SCHEDULER, ids=lambda e: e.name)
def test_the_scheduler_steps_on_the_published_timesteps(entry: Published):
    kind = getattr(diffusers, entry.scheduler)
    scheduler = kind.from_config(
        diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULER).config, **dict(entry.scheduler_config)
    )
    if "timesteps" in entry.call:
        scheduler.set_timesteps(timesteps=entry.call["timesteps"])
    else:
        scheduler.set_timesteps(entry.steps)
    assert tuple(scheduler.timesteps.round().to(torch.int64).tolist()) == entry.timesteps


# What the cards print, typed from them once more: name → (timesteps given in the call or None,
# steps, guidance)
CARDS = {
    "sdxl/dmd2": ((999, 749, 499, 249), 4, 0),
    "sdxl/dmd2-lora": ((999, 749, 499, 249), 4, 0),
    "sdxl/dmd2-1": ((399,), 1, 0),
    "sdxl/hyper-1": ((800,), 1, 0),
    "sdxl/lightning": (None, 4, 0),
    "sdxl/hyper-2": (None, 2, 0),
    "sdxl/tcd": (None, 4, 0),
    "sd35/turbo": (None, 4, 0),
    "flux/schnell": (None, 4, 0),
    "qwen/lightning-8": (None, 8, 1),
}


@pytest.mark.parametrize("name", CARDS)
def test_values_are_those_of_the_cards(name):
    timesteps, steps, guidance = CARDS[name]
    entry = find_published(name)
    assert entry.steps == steps
    assert entry.guidance_scale == guidance
    assert timesteps is None or entry.timesteps == timesteps


def test_unknown_names_show_the_nearest():
    with pytest.raises(ValueError, match="nearest: .*sdxl/dmd2"):
        find_published("sdxl/dmd")
    with pytest.raises(ValueError, match="xhat models"):
        find_published("nothing")
