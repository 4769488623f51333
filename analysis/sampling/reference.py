"""The generated pictures of an arm, all prompts together, held against reference pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.measures.reference import (
    OVERALL,
    kernel_distance_by_sample,
    precision_by_sample,
)

THOUSAND = 1000.0


def held_against_reference(
    final: xr.DataArray, space: Any
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Prompt → name → (seed,) of what has values by picture, and name → number of what has none.

    Distances are of distributions: the pictures of all prompts are taken together, as the reference
    pictures are. Empty where ``space`` has no reference.
    """
    if not hasattr(space, "compared"):
        return {}, {}
    final = final.transpose("prompt", "seed", ...)
    latents = np.asarray(final.values, dtype=np.float32)
    features = np.concatenate([space.compared(of_prompt) for of_prompt in latents])
    by_picture = {
        "kid": THOUSAND * kernel_distance_by_sample(features, space.reference),
        "precision": precision_by_sample(features, space.reference),
    }
    grid = {name: values.reshape(latents.shape[:2]) for name, values in by_picture.items()}
    prompts = [str(prompt) for prompt in final["prompt"].values]
    each = {p: {name: values[i] for name, values in grid.items()} for i, p in enumerate(prompts)}
    return each, {name: of(features, space.reference) for name, of in OVERALL.items()}
