"""The floor of every comparison of representations: a network of the same shape whose weights were
drawn anew.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from xhat.hooks.points.names import denoiser_of
from xhat.samplers.composite.fit import slot_of


def untrained(pipe: Any, seed: int = 0) -> Any:
    """The same pipeline with its denoiser's weights drawn anew; the other parts are shared, the
    pipeline untouched.
    """
    denoiser: Any = denoiser_of(pipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(denoiser).from_config(denoiser.config).to(denoiser.device).eval()
    if fresh.dtype != denoiser.dtype:
        fresh = fresh.to(denoiser.dtype)
    other = copy.copy(pipe)
    other.register_modules(**{slot_of(pipe): fresh})
    return other
