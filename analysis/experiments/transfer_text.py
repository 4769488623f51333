"""What a study of controls says: the retention table beside the paper's, and sentences, all from
its data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.intervals import BOUNDS, format_number
from xhat.analysis.table import Column, Table

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
        lines += [_alignment(aligned, student), *_energy(used, aligned, student)]
    twins = _twins(data["twins"]) if "twins" in data else []
    return (*lines, *twins, *_saturation(data["dose_response"]))


def _transfer(data: xr.Dataset) -> list[str]:
    lines = []
    for model in data["model"].values:
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
    if undecided := those(kinds == "undecided"):
        least = part["detectable"].values[kinds == "undecided"]
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
    same, low, high = (finite_mean(at["same_random"].sel(bound=b)) for b in BOUNDS)
    aligned = finite_mean(at["cosine"].sel(bound="estimate"))
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
        f"cosine of {aligned:.2f}"
    )
    text += f" ({', '.join(unlike)})" if unlike else ""
    if not np.isfinite(same):
        return text + "."
    shared = (
        f"a random LoRA of equal norm changes x̂₀ alike in both with {same:.2f} ({low:.2f} to "
        f"{high:.2f})"
    )
    if aligned > high:
        return f"{text}. Shared weights do not explain all of it: {shared}."
    return f"{text}. That is no more than shared weights give: {shared}."


def _energy(data: xr.Dataset, aligned: xr.Dataset, student: str) -> list[str]:
    at = data.sel(point="x0", control=base_controls(data))
    lines = [_used(at.isel(step=step), student) for step in (0, at.sizes["step"] - 1)]
    p = aligned["p"].sel(point="x0", control=at["control"]).max("step").values
    idle = (at["absolute"].sel(bound="high").isel(step=0).values < 1) & (p <= 0.05)
    names = [str(n) for n in at["control"].values[idle]]
    if names:
        exist, are = ("exists", "is") if len(names) == 1 else ("exist", "are")
        lines.append(
            f"{student}: {', '.join(names)} {exist} there and {are} less used than in the base."
        )
    return lines


def _used(now: xr.Dataset, student: str) -> str:
    """How much the student's seeds vary along the directions of controls, at one noise level."""
    less, more = (
        int((now["absolute"].sel(bound="high") < 1).sum()),
        int((now["absolute"].sel(bound="low") > 1).sum()),
    )
    variance, share = (
        float(np.exp(np.log(now[name].sel(bound="estimate")).mean()))
        for name in ("absolute", "ratio")
    )
    return (
        f"{student}, σ = {float(now['sigma']):.3g}: of {now.sizes['control']} directions of "
        f"controls, its seeds vary less than the base's along {less}, more along {more}; variance "
        f"along them is {variance:.2f} of the base's, their share of all variance {share:.2f} of "
        "it (geometric means)."
    )


def _twins(twins: xr.Dataset) -> list[str]:
    names = ("weights", "left", "left_random", "effects")
    weights, left, chance, effects = (finite_mean(twins[n]) for n in names)
    text = (
        "Trained on base and student apart, sliders of one attribute have a weight cosine of "
        f"{weights:.2f} and share {left:.2f} of the space they write to (random: {chance:.2f}); "
        f"what they do to x̂₀ has cosine {effects:.2f}"
    )
    return [
        f"{text}: weights alone do not show that they do the same."
        if weights < effects / 2
        else f"{text}."
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
