"""Gram matrices of all samples of a run, a step and branch at a time, from activations that need
not fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK = 1 << 26  # bytes of float64 held at once


def centred_gram(read: Callable[[slice], np.ndarray], features: int, samples: int) -> np.ndarray:
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
