"""What a demo run leaves behind for its figures, its tables and the player: small arrays, no
model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.experiments.collapse import DemoResult
from xhat.figures.kit.curves import together
from xhat.figures.kit.data import save_data
from xhat.figures.kit.style import label
from xhat.figures.report.player import frames_of
from xhat.figures.schematic import schematic_data

SHOWN_PROMPTS, SHOWN_SEEDS, PLAYED_PROMPTS, PLAYED_SEEDS = 2, 8, 3, 2


def save_demo_data(result: DemoResult, pair: Any, run: Path) -> None:
    """Write ``RUN/data/*.nc``: measures, samples, filmstrip (which the player shows too), curves,
    schematic.
    """
    of_run = {
        "prompts": len(result.prompts),
        "seeds": result.seeds,
        "pair": pair.name,
        "student": pair.chosen,
    }
    every = {
        "measured": result.measured,
        "samples": samples_data(result),
        "filmstrip": frames_of(
            result.traces, pair.base.vae, prompts=PLAYED_PROMPTS, seeds=PLAYED_SEEDS
        ),
        "diversity": with_finding(together(result.diversity), said_of_diversity),
        "commitment": with_finding(
            together({name: committed(curve) for name, curve in result.commitment.items()}),
            said_of_commitment,
        ),
        "schematic": schematic_data(pair),
    }
    for name, data in every.items():
        save_data(data.assign_attrs(of_run), run, name)


def samples_data(result: DemoResult) -> xr.Dataset:
    """``images``: uint8 (model, prompt, seed, y, x, rgb) of a few prompts and seeds."""
    few = np.unique(np.linspace(0, len(result.prompts) - 1, SHOWN_PROMPTS).astype(int))
    first = next(iter(result.traces.values())).to_dataset()
    pictures = [
        tree.to_dataset()["images"].isel(prompt=few, seed=slice(SHOWN_SEEDS)).values
        for tree in result.traces.values()
    ]
    dims = ("model", "prompt", "seed", "y", "x", "rgb")
    coords = {
        "model": list(result.traces),
        "prompt": [result.prompts[i] for i in few],
        "seed": first["seed"].values[:SHOWN_SEEDS],
    }
    return xr.Dataset({"images": (dims, np.stack(pictures))}, coords)


def committed(curve: xr.Dataset) -> xr.Dataset:
    """``curve`` of :func:`xhat.analysis.traces.commitment.commitment` with the share of runs that
    are committed by a step.
    """
    steps = np.arange(curve.sizes["step"])
    by = (curve["committed_at"].values[..., None] <= steps).mean(1)  # (prompt, step)
    interval = stats.bootstrap_mean(by)
    bounds = {"mean": interval.estimate, "low": interval.low, "high": interval.high}
    attrs = interval.attrs | curve["committed_at"].attrs
    return curve.assign(
        {f"committed_{name}": ("step", values, attrs) for name, values in bounds.items()}
    )


def with_finding(data: xr.Dataset, said: Callable[[str, xr.Dataset], str]) -> xr.Dataset:
    """Curves with what they say, a sentence a model, for the report."""
    models = dict.fromkeys(data["model"].values.tolist())
    parts = [
        said(label(model), data.isel(point=np.flatnonzero(data["model"].values == model)))
        for model in models
    ]
    return data.assign_attrs(finding=" ".join(parts))


def said_of_diversity(name: str, curve: xr.Dataset) -> str:
    """Vendi of x̂₀ at the first and the last step, and where it is least, with intervals."""
    at = [0, int(curve["vendi_q2_mean"].values.argmin()), -1]
    first, least, last = (
        "{:.2f} [{:.2f}, {:.2f}] at σ = {:.2g}".format(
            *(float(curve[f"vendi_q2_{part}"][i]) for part in ("mean", "low", "high")),
            float(curve["sigma"][i]),
        )
        for i in at
    )
    between = f", is least with {least}" if at[1] not in (0, curve.sizes["point"] - 1) else ""
    return (
        f"{name.capitalize()}: Vendi of x̂₀ across seeds begins with {first}{between} and ends "
        f"with {last}."
    )


def said_of_commitment(name: str, curve: xr.Dataset) -> str:
    """From which step on half of the runs stay within the tolerance of their own last x̂₀."""
    share = curve["committed_mean"]
    at = int((share.values >= 0.5).argmax())
    tolerance = share.attrs["tolerance"]
    begins = float(curve["cosine_mean"][0])
    return (
        f"{name.capitalize()}: half of the runs stay within {tolerance:.0%} of their last x̂₀ "
        f"from step {at + 1} of "
        f"{len(share)} on, σ = {float(curve['sigma'][at]):.2g}; the cosine to it is {begins:.2f} "
        "at the first step."
    )
