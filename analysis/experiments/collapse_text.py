"""What a demo found, in two sentences, and what its curves say, a sentence a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from xhat.analysis.experiments.arm_table import contrast
from xhat.analysis.intervals import format_interval

ROWS = ("base", "student", "hybrid")
CONTRASTED = {
    "yes": "has more than",
    "opposite": "has less than",
    "equivalent": "is equivalent to",
    "undecided": "is not told apart from",
}


def two_sentences(measured: xr.Dataset, of: str = "", bold: bool = False) -> str:
    """How many different pictures base, student and hybrid draw, and what is told apart. ``of``:
    whose pictures, in words; ``bold``: the numbers, in Markdown.
    """
    mark = "**" if bold else ""
    mean = {arm: float(measured["vendi_q2"].sel(arm=arm).mean()) for arm in ROWS}
    cost = {arm: f"{float(measured['evaluations'].sel(arm=arm)):g}" for arm in ROWS}
    number = {arm: f"{mark}{mean[arm]:.2f}{mark}" for arm in ROWS}
    size = f"{measured.sizes['prompt']} open prompts × {measured.attrs['n_seeds']} seeds"
    return (
        f"On {size}{of}, the base draws {number['base']} different pictures a "
        f"prompt (Vendi, q = 2) with {cost['base']} evaluations of its network, and its student "
        f"{measured.attrs['student']} {number['student']} with {cost['student']}: "
        f"{_told(measured, 'student', 'base')}. "
        f"The hybrid, in which the base makes the first step, draws {number['hybrid']} with "
        f"{cost['hybrid']}: {_told(measured, 'hybrid', 'student')}."
    )


def _told(measured: xr.Dataset, more: str, less: str) -> str:
    judged = contrast(measured, more, less, "vendi_q2")
    if judged is None:
        return f"the {more} and the {less} cannot be compared"
    numbers = format_interval(judged.interval.array(), signed=True)
    return f"the {more} {CONTRASTED[judged.kind]} the {less} ({numbers})"


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
