"""What the judge reads from the final pictures of a trace, as labels that probes are to predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.zoo.family.attributes import ATTRIBUTES, KINDS, parse_prompt


def final_labels(trace: Any, space: Any) -> dict[str, xr.DataArray]:
    """What the judge reads from every final picture: attribute → texts (prompt, seed), "" where it
    does not apply.

    An attribute applies where the prompt leaves it open. Those that every kind of picture has go
    under their name, others under kind and name. ``space``: a
    :class:`~xhat.probes.features.JudgeSpace`."""
    final = trace["final"].transpose("prompt", "seed", ...)
    found: dict[str, np.ndarray] = {}
    for p, prompt in enumerate(str(v) for v in final["prompt"].values):
        scene = parse_prompt(prompt)
        read = space.labels(np.asarray(final.isel(prompt=p).values, dtype=np.float32), prompt)
        assert scene is not None, "the space has refused what it cannot parse"
        for name, (labels, _) in read.items():
            common = all(name in ATTRIBUTES[kind] for kind in KINDS)
            values = np.array(ATTRIBUTES[scene.kind][name], dtype="U24")
            key = name if common or name == scene.kind else f"{scene.kind} {name}"
            found.setdefault(key, np.full(final.shape[:2], "", dtype="U24"))[p] = values[labels]
    coords = {dim: final[dim].values for dim in ("prompt", "seed")}
    return {
        name: xr.DataArray(values, coords, ("prompt", "seed")) for name, values in found.items()
    }
