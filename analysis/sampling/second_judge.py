"""Headline measures by a second judge, and how far two judges' readings leave entropy open."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.measures.by_seed import BY_SEED
from xhat.analysis.measures.misreading import entropy_bound
from xhat.analysis.measures.registry import DISAGREEMENT, ENTROPY_BOUND, SECOND, headlines
from xhat.analysis.traces.diversity import final_diversity


def second_readings(final: xr.DataArray, space: Any) -> xr.Dataset:
    """What a second judge makes of final latents (prompt, seed, …); empty where there is none.

    Variables (prompt,): the headline measures under ``<name>_second_judge``, with their values by
    seed; ``judges_disagree``, the share of readings of open attributes in which the two differ; and
    ``entropy_bound``, the most by which attribute entropy would be off if the first judge were
    wrong in all of these (:func:`~xhat.analysis.measures.misreading.entropy_bound`).
    ``space``: where it has ``second()``, the space of the second judge.
    """
    other = space.second() if hasattr(space, "second") else None
    if other is None:
        return xr.Dataset()
    measured = final_diversity(
        {"final": final}, features=other.features, labels=other.labels, fidelity=other.fidelity
    )
    renamed = {
        f"{name}{end}": f"{name}{SECOND}{end}"
        for name in headlines(measured.data_vars)
        for end in ("", BY_SEED)
    }
    result = measured[list(renamed)].rename(renamed)
    read = np.array([_differing(final, p, space, other) for p in final["prompt"].values])
    names = (DISAGREEMENT, ENTROPY_BOUND)
    return result.assign({name: ("prompt", read[:, i]) for i, name in enumerate(names)})


def _differing(final: xr.DataArray, prompt: Any, space: Any, other: Any) -> tuple[float, float]:
    """Share of readings that differ, and the bound on entropy, of one prompt."""
    latents = final.sel(prompt=prompt).transpose("seed", "channel", "y", "x").values
    latents = np.asarray(latents, dtype=np.float32)
    first, second = (judge.labels(latents, str(prompt)) for judge in (space, other))
    shares = {name: float((first[name][0] != second[name][0]).mean()) for name in first}
    bounds = [float(entropy_bound(share, first[name][1])) for name, share in shares.items()]
    return float(np.mean(list(shares.values()))), float(np.mean(bounds))
