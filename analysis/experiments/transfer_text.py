"""What a study of controls says: the retention table beside the paper's, and sentences, all from
its data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.intervals import BOUNDS, format_interval, format_number
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import FEWEST_PROMPTS, verdict

WEAK = 0.5
"""Retention below this is named."""


def transfer_table(data: xr.Dataset) -> Table:
    """Retention of every control in every other model, with intervals, and all of them pooled.
    ``data``: of the figure ``retention``."""
    models = [str(m) for m in data["model"].values]
    rows: list[list[Any]] = [
        [str(name), *_origin(data.sel(control=name)), *_row(data["retention"].sel(control=name))]
        for name in data["control"].values
    ]
    rows.append(["all, of the base", "", None, *_row(data["pooled"])])
    means = zip(data["published_student"].values, data["published"].values, strict=True)
    paper = ", ".join(f"{student} {mean:.2f}" for student, mean in means)
    notes = (
        "Effect: change of the score from scale -1 to 1 (a style: 0 to 1). 95 % intervals for new "
        f"prompts and new seeds, from {data.attrs['seeds']} seeds; of all, a bootstrap over "
        "controls. No retention where a control's effect in its own model is not told from none.",
        f"The paper, on SDXL, change of CLIP score, all nine controls: {paper} "
        f"({data.attrs['source']}).",
    )
    columns = ["retention", "trained on", "effect there", *models]
    return Table([Column(c, decimals=2) for c in columns], rows, notes=notes)


def _origin(row: xr.Dataset) -> tuple[str, xr.DataArray]:
    """Where a control was trained, and its effect there, the same beside every model."""
    there = int(np.flatnonzero(np.isfinite(row["home"].sel(bound="estimate").values))[0])
    return str(row["trained_on"].values), row["home"].isel(model=there)


def _row(values: xr.DataArray) -> list[xr.DataArray]:
    return [values.sel(model=m) for m in values["model"].values]


def sentences(data: Mapping[str, xr.Dataset]) -> tuple[str, ...]:
    """The study in sentences: transfer there and back, alignment beside its nulls, energy.
    ``data``: of the figures.
    """
    lines = _transfer(data["retention"]) + _small_scales(data["retention"])
    for student in data["alignment_map"]["model"].values.tolist():
        aligned, used = (data[n].sel(model=student) for n in ("alignment_map", "energy"))
        lines += [_alignment(aligned, student), *_energy(used, student)]
    twins = _twins(data["twins"]) if "twins" in data else []
    return (*lines, *twins, *_saturation(data["dose_response"]))


def _transfer(data: xr.Dataset) -> list[str]:
    lines = []
    for model in sorted(data["model"].values, key=lambda name: name == "base"):  # there, then back
        tried = data.sel(model=model)
        tried = tried.isel(
            control=np.flatnonzero(np.isfinite(tried["away"].sel(bound="estimate").values))
        )
        for origin in dict.fromkeys(tried["trained_on"].values.tolist()):
            part = tried.isel(control=np.flatnonzero(tried["trained_on"].values == origin))
            lines.append(_direction_of(part, str(origin), str(model)))
    return lines


def _direction_of(part: xr.Dataset, origin: str, model: str) -> str:
    """One sentence on all controls of a model in another."""
    retained, _, high = (part["retention"].sel(bound=b).values for b in BOUNDS)
    kinds, names = part["verdict"].values.astype(str), part["control"].values
    works = kinds == "yes"

    def those(which: np.ndarray) -> list[str]:
        return [str(n) for n in names[which]]

    dead = those(kinds == "")
    text = f"{origin} → {model}: {works.sum()} of {len(kinds) - len(dead)} controls work"
    text += f", with a median retention of {np.median(retained[works]):.2f}" if works.any() else ""
    if against := those(kinds == "opposite"):
        text += f"; with the opposite effect: {', '.join(against)}"
    if gone := those(kinds == "equivalent"):
        text += f"; shown to keep less than a quarter of it: {', '.join(gone)}"
    detectable = part["detectable"].values
    if few := those((kinds == "undecided") & np.isnan(detectable)):
        text += f"; on fewer than {FEWEST_PROMPTS} prompts, without a verdict: {', '.join(few)}"
    if undecided := those((kinds == "undecided") & ~np.isnan(detectable)):
        least = detectable[(kinds == "undecided") & ~np.isnan(detectable)]
        seen = [f"{n} ({format_number(x)})" for n, x in zip(undecided, least, strict=True)]
        text += f"; undecided (least effect that would be seen): {', '.join(seen)}"
    if weak := those(works & (high < WEAK)):
        text += f"; shown to keep under half of it: {', '.join(weak)}"
    if dead:
        text += f"; no effect on {origin} itself is told from none: {', '.join(dead)}"
    return text + "."


def _small_scales(data: xr.Dataset) -> list[str]:
    """Retention at the smallest scale, where no effect is at its end."""
    scale = float(data.attrs["small_scale"])
    if scale == 1:
        return []
    lines = []
    for model in data["model"].values:
        for origin in dict.fromkeys(data["trained_on"].values.tolist()):
            controls = np.flatnonzero(data["trained_on"].values == origin)
            small = data["small"].sel(model=model, bound="estimate").isel(control=controls).values
            small = small[np.isfinite(small)]
            if small.size:
                spread = f"{np.median(small):.2f} ({small.min():.2f} to {small.max():.2f})"
                lines.append(
                    f"{origin} → {model} at scale ±{scale:g}: median retention of {small.size} "
                    f"controls {spread}."
                )
    return lines


def _alignment(data: xr.Dataset, student: str) -> str:
    at = data.sel(point="x0", control=base_controls(data))
    cosine, same = (at[n].sel(bound="estimate") for n in ("cosine", "same_random"))
    aligned = finite_mean(cosine)
    other, random = (finite_mean(at[n]) for n in ("other", "random"))
    p = data["p_map"].sel(point="x0").values
    unlike = [
        f"{name} {value:.2f}"
        for name, value in (("other controls", other), ("random LoRAs", random))
        if np.isfinite(value)
    ]
    unlike += [f"with controls exchanged p ≤ {np.nanmax(p):.2g}"] if np.isfinite(p).any() else []
    text = (
        f"{student}: given the same input, a control changes x̂₀ as it does in the base, with a "
        f"cosine of {format_number(aligned, decimals=2)}"
    )
    text += f" ({', '.join(unlike)})" if unlike else ""
    beyond = (cosine - same).mean("step").values
    beyond = beyond[np.isfinite(beyond)]
    if not beyond.size:
        return text + "."
    told = verdict(beyond, unit="control").sentence(
        "a control", "a random LoRA of equal norm, which shares the weights alone", "that cosine"
    )
    return f"{text}. Over controls, {told}"


def _energy(data: xr.Dataset, student: str) -> list[str]:
    at = data.sel(point="x0", control=base_controls(data))
    return [_used(at.isel(step=step), student) for step in (0, at.sizes["step"] - 1)]


def _used(now: xr.Dataset, student: str) -> str:
    """How much the student's seeds vary along the directions of controls, at one noise level."""
    logs = np.log(now["absolute"].sel(bound="estimate").values)
    logs = logs[np.isfinite(logs)]
    where = f"{student}, σ = {format_number(float(now['sigma']))}"
    if not logs.size:
        return f"{where}: its variance along the directions of controls is not measured."
    told = verdict(logs, unit="control")
    bounds = xr.ufuncs.exp(told.interval.array())
    share = float(np.exp(np.log(now["ratio"].sel(bound="estimate")).mean()))
    how = {"yes": "more than", "opposite": "less than", "undecided": "neither more nor less than"}
    shown = "" if told.kind in ("yes", "opposite") else "shown to vary "
    number = (
        format_number(float(bounds[0]), decimals=2)
        if np.isnan(told.detectable)
        else (format_interval(bounds))
    )
    return (
        f"{where}: along the directions of {logs.size} controls its seeds {'are ' * bool(shown)}"
        f"{shown or 'vary '}{how[told.kind]} the base's: {number} of the variance, their share of "
        f"all variance {format_number(share, decimals=2)} of it (geometric means)."
    )


def _twins(twins: xr.Dataset) -> list[str]:
    names = ("weights", "left", "left_random", "effects")
    weights, left, chance, effects = (finite_mean(twins[n]) for n in names)
    return [
        "Trained on base and student apart, sliders of one attribute have a weight cosine of "
        f"{weights:.2f} and share {left:.2f} of the space they write to (random: {chance:.2f}); "
        f"what they do to x̂₀ has cosine {effects:.2f}."
    ]


def _saturation(data: xr.Dataset) -> list[str]:
    worn = data["saturated"] == 1
    if not bool(worn.any()):
        return ["No scale that was tried saturates the pictures."]
    cells = worn.stack(cell=("control", "model", "scale"))
    named = [f"{c} at {s:g} on {m}" for c, m, s in cells["cell"].values[cells.values]]
    rest = f", and {len(named) - 6} more" if len(named) > 6 else ""
    return [f"Saturated pictures: {', '.join(named[:6])}{rest}."]


def base_controls(data: xr.Dataset) -> list[str]:
    """Names of the controls that were trained on the base."""
    return [str(n) for n in data["control"].values[data["trained_on"].values == "base"]]


def finite_mean(values: xr.DataArray | Sequence[float]) -> float:
    """Mean of what is there; NaN of nothing."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    return float(array.mean()) if array.size else float("nan")
