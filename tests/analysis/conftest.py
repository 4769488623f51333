"""A small pair of base and student, for tests that sample several arms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import LCMScheduler

import xhat

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def lcm(**extra: Any) -> LCMScheduler:
    """A student's schedule of timesteps 999, 749, 499, 249."""
    return LCMScheduler(**{**STABLE, "original_inference_steps": 4, **extra})


def make_pair(tiny: Any, steps: int = 4) -> Any:
    base, student = tiny.build("sd", 0), tiny.build("sd", 1, lcm())
    student.register_modules(
        **{n: p for n, p in base.components.items() if n not in ("unet", "scheduler")}
    )
    xhat.set_defaults(base, num_inference_steps=steps + 2, guidance_scale=3.0)
    xhat.set_defaults(student, num_inference_steps=steps, guidance_scale=1.0)
    return SimpleNamespace(
        name="small", base=base, student=student, students={"dmd": student}, chosen="dmd"
    )


@pytest.fixture(scope="session")
def small_pair(tiny):
    """A pair that no test may change."""
    return make_pair(tiny)


@pytest.fixture(scope="session")
def short_pair(tiny):
    """A pair of two steps that no test may change."""
    return make_pair(tiny, steps=2)


@pytest.fixture
def own_pair(tiny):
    """A pair of the test's own."""
    return make_pair(tiny)
