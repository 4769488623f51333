"""Half precision where this machine computes faster in it, and not elsewhere."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import cache

import torch


def half_precision(device: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where :func:`bfloat16_is_faster`; else nothing changes."""
    return torch.autocast(device, torch.bfloat16, enabled=bfloat16_is_faster(device))


@cache
def bfloat16_is_faster(device: str) -> bool:
    """Whether a matrix product takes less time in bfloat16 than in float32; timed once, in under a
    tenth of a second.

    A processor without bfloat16 instructions emulates them and is about ten times slower, one with
    them twice as fast: no load on the machine turns one into the other. On a GPU the networks of
    the family wait for the launch of their kernels, and casts are more of them."""
    if device != "cpu":
        return False
    return _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype, side: int = 384, repeats: int = 5) -> float:
    x = torch.ones(side, side, dtype=dtype)
    x @ x  # the first product chooses a kernel
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - start)
    return best
