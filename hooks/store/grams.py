"""Gram matrices of all samples of a run, a step and branch at a time, from activations that need
not fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from xhat.hooks.store.schema import ACTIVATIONS, SCRATCH

BLOCK = 1 << 26  # bytes of float64 held at once


def streamed_gram(read: Callable[[slice], np.ndarray], features: int, samples: int) -> np.ndarray:
    """K = X_c·X_cᵀ in float64 of samples × features, X_c centred over samples; ``read`` gives
    columns of X.

    Columns are centred before they are multiplied, so that a common offset cancels before it can
    cost digits."""
    gram = np.zeros((samples, samples))
    width = max(1, BLOCK // (8 * samples))
    for start in range(0, features, width):
        block = read(slice(start, min(start + width, features))).astype(np.float64)
        block -= block.mean(0, keepdims=True)
        gram += block @ block.T
    return gram


def write_gram(group: zarr.Group, name: str) -> None:
    """Make the Gram matrices of a point from what its store holds of it in scratch."""
    raw: Any = group[f"{SCRATCH}/{name}/value"]
    samples, features, middle = raw.shape[0] * raw.shape[1], raw.shape[-1], raw.shape[2:-1]
    names = raw.metadata.dimension_names
    target = group.create_array(
        f"{ACTIVATIONS}/{name}/value",
        shape=(*middle, samples, samples),
        chunks=(*(1,) * len(middle), samples, samples),
        dtype="float64",
        compressors=(ZstdCodec(level=0), Crc32cCodec()),
        fill_value=np.nan,
        dimension_names=(*names[2:-1], "sample", "sample_other"),
        config={"write_empty_chunks": True},
        overwrite=True,
    )
    for at in np.ndindex(*middle):

        def read(columns: slice, at: tuple[int, ...] = at) -> np.ndarray:
            return np.asarray(raw[(slice(None), slice(None), *at, columns)]).reshape(samples, -1)

        target[at] = streamed_gram(read, features, samples)
