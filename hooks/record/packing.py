"""Latents that a pipeline keeps as a row of patches, as a map again."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch


def unpacked(pipe: Any, x: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """Latents that a pipeline keeps as a row of 2 × 2 patches, as a map again; other latents as
    they are.

    ``size`` is that of the picture in pixels; without it, a square one is meant where the number of
    patches allows."""
    unpack = getattr(pipe, "_unpack_latents", None)
    if x.ndim != 3 or unpack is None or not hasattr(pipe, "vae_scale_factor"):
        return x
    takes = inspect.signature(unpack).parameters
    if "height" not in takes or any("frame" in name for name in takes):
        return x
    if size is None:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            return x
        size = (2 * side * pipe.vae_scale_factor,) * 2
    given = dict(zip(("height", "width"), size, strict=True))
    given["vae_scale_factor"] = pipe.vae_scale_factor
    x = unpack(x, **{name: value for name, value in given.items() if name in takes})
    return x.squeeze(2) if x.ndim == 5 and x.shape[2] == 1 else x
