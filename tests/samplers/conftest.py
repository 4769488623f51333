"""Small pairs of base and student that share their prompt encoders and VAE, and calls of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import LCMScheduler

import xhat

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPTS = ["a red planet", "the quiet face"]


def lcm(**extra: Any) -> LCMScheduler:
    """A student's schedule of timesteps 999, 749, 499, 249."""
    return LCMScheduler(**{**STABLE, "original_inference_steps": 4, **extra})


def sharing(base: Any, other: Any, slot: str) -> Any:
    """``other`` with the encoders and VAE of ``base``."""
    parts = {n: p for n, p in base.components.items() if n not in (slot, "scheduler")}
    other.register_modules(**parts)
    return other


def make_pair(
    tiny: Any, name: str, base_scheduler: Any = None, student_scheduler: Any = None
) -> Any:
    """``base``, ``student``, ``students`` (two), ``name`` and ``slot`` of a small pair."""
    slot = "transformer" if name in ("sd3", "pixart") else "unet"
    own = None if name == "sd3" else lcm()
    base = tiny.build(name, 0, base_scheduler)
    students = {
        label: sharing(base, tiny.build(name, seed, student_scheduler or own), slot)
        for label, seed in (("one", 1), ("two", 2))
    }
    for pipe, steps, guidance in ((base, 6, 3.0), *((s, 4, 1.0) for s in students.values())):
        xhat.set_defaults(pipe, num_inference_steps=steps, guidance_scale=guidance)
    return SimpleNamespace(
        base=base, student=students["one"], students=students, name=name, slot=slot
    )


@pytest.fixture(scope="session")
def pairs(tiny):
    """name → a pair, made once."""
    made: dict[str, Any] = {}

    def pair(name: str) -> Any:
        if name not in made:
            made[name] = make_pair(tiny, name)
        return made[name]

    return pair


@pytest.fixture(scope="session")
def sample(tiny):
    """Latents of a call: two prompts, ``seeds`` samples of each, one generator a sample."""

    def call(
        pipe: Any, name: str, seeds: Any = range(1), prompts: Any = PROMPTS, **call: Any
    ) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for _ in prompts for seed in seeds]
        arguments = {
            "num_images_per_prompt": len(seeds),
            "output_type": "latent",
            **tiny.call_arguments(name),
            **call,
        }
        return pipe(list(prompts), generator=generators, **arguments).images

    return call


@pytest.fixture
def fresh_pair(tiny):
    """name → a pair of its own, for tests that change it."""
    return lambda name: make_pair(tiny, name)
