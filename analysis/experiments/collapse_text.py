"""What the curves of a run say, a sentence a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from xhat.analysis.intervals import format_interval


def of_each(curves: xr.Dataset, sentence: Callable[[str, xr.Dataset], str]) -> str:
    """A sentence for each model of :func:`~xhat.analysis.traces.curves.join_curves`."""
    models = curves["model"].values
    return " ".join(
        sentence(
            name.replace("_", " ").capitalize(), curves.isel(point=np.flatnonzero(models == name))
        )
        for name in dict.fromkeys(models.tolist())
    )


def of_diversity(name: str, curve: xr.Dataset) -> str:
    """Vendi of x̂₀ at the first and the last step, and where it is least, with intervals."""
    mean = curve["vendi_q2_mean"]
    last = curve.sizes["point"] - 1
    lowest = int(mean.sel(bound="estimate").values.argmin())
    first, least, end = (
        f"{format_interval(mean.isel(point=i))} at σ = {float(curve['sigma'][i]):.2g}"
        for i in (0, lowest, last)
    )
    between = f", is least with {least}" if lowest not in (0, last) else ""
    return f"{name}: Vendi of x̂₀ across seeds begins with {first}{between} and ends with {end}."


def of_commitment(name: str, curve: xr.Dataset) -> str:
    """From which step on half of the runs stay within the tolerance of their own last x̂₀."""
    share = curve["committed_mean"]
    at = int((share.sel(bound="estimate").values >= 0.5).argmax())
    begins = float(curve["cosine_mean"].sel(bound="estimate")[0])
    return (
        f"{name}: half of the runs stay within {share.attrs['tolerance']:.0%} of their "
        f"last x̂₀ from step {at + 1} of {curve.sizes['point']} on, "
        f"σ = {float(curve['sigma'][at]):.2g}; the cosine to it is {begins:.2f} at the first step."
    )
