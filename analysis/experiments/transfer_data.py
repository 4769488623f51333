"""A study of controls as the data of its figures: dose–response, retention, alignment map, energy
by noise level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.experiments.paper import CITATION, TABLES, retention
from xhat.analysis.experiments.transfer import Study
from xhat.analysis.measures.alignment import lora_cosine, principal_angles
from xhat.analysis.sampling.control import Control

SHOWN = ("mid.res.1", "x0")
"""Where energy is drawn: the middle of a UNet (h-space), and x̂₀."""


def figure_data(study: Study) -> dict[str, xr.Dataset]:
    """Name of a figure → its data."""
    return {
        "dose_response": dose_data(study),
        "retention": retention_data(study),
        "alignment_map": alignment_data(study),
        "energy": energy_data(study),
    }


def dose_data(study: Study) -> xr.Dataset:
    """(control, model, scale): change of the score and of what else moves, with intervals; NaN
    where not measured.
    """
    kept = ("effect", "other", "distance", "kind_kept", "confidence", "clipped")
    parts = {}
    for key, curve in study.curves.items():
        names = [n for n in curve.data_vars if str(n).rpartition("_")[0] in kept]
        parts[key] = curve[[*names, "saturated"]].astype("float64")
    return _described(grid(parts, study), study)


def retention_data(study: Study) -> xr.Dataset:
    """(control, model): effects and retention with intervals, and what the paper prints, apart and
    with its source.

    ``pooled`` (model): of the controls of the base that have an effect there, mean effect in the
    model over mean effect in the base, with a bootstrap over controls. ``published``
    (published_student): the same of the nine controls of the paper's Table 1; ``published_each``:
    each of them."""
    table = TABLES["1"].to_array()
    base = table.sel(column="base")
    students = [str(c) for c in table["column"].values if c != "base"]
    found = _described(grid(study.retention, study), study)
    found["published"] = ("published_student", [retention()[s] for s in students])
    for name, values in _pooled(found).items():
        found[name] = ("model", values)
    each = (table.sel(column=students) / base).transpose("row", "column").values
    found["published_each"] = (("published_control", "published_student"), each)
    coords = {
        "published_student": students,
        "published_control": [str(r) for r in table["row"].values],
    }
    return found.assign_coords(coords).assign_attrs(
        source=CITATION, published_unit=TABLES["1"].caption
    )


def _pooled(found: xr.Dataset) -> dict[str, np.ndarray]:
    """Mean effect of the base's controls in each model over their mean effect at home, each in its
    own direction.
    """
    ours = found.sel(control=base_controls(found))
    bounds = {
        name: np.full(found.sizes["model"], np.nan)
        for name in ("pooled", "pooled_low", "pooled_high")
    }
    for m in range(found.sizes["model"]):
        one = ours.isel(model=m)
        moved = np.isfinite(one["retention"].values)
        if not moved.any():
            continue
        way = np.sign(one["home"].values[moved])
        interval = stats.paired_ratio(
            way * one["home"].values[moved], way * one["away"].values[moved], unit="control"
        )
        for name, value in zip(
            bounds, (interval.estimate, interval.low, interval.high), strict=True
        ):
            bounds[name][m] = value
    return bounds


def alignment_data(study: Study) -> xr.Dataset:
    """(model, control, point, step): cosine of effects in base and student, with nulls. ``model``:
    the student.
    """
    return _described(_by_student(study.alignment, study), study)


def energy_data(study: Study) -> xr.Dataset:
    """(model, control, point, step): share of variance across seeds along each control's direction,
    at two points.
    """
    found = _by_student(study.energy, study)
    points = [p for p in SHOWN if p in found["point"].values] or [str(found["point"].values[-1])]
    return _described(found.sel(point=points), study)


def twins(study: Study) -> xr.Dataset:
    """Controls of one attribute, trained on the base and on a student: how alike are their weights,
    and their effects?

    (pair): ``weights``, cosine of ΔW; ``left``, ``right``, mean overlap of what they write and
    read, with their random baselines; ``effects``, cosine of what both do to x̂₀ of the base, mean
    over noise levels."""
    pairs = [
        (a, b)
        for b in study.controls
        for a in study.controls
        if a.trained_on == "base" != b.trained_on and a.what == b.what
    ]
    rows: list[dict[str, float]] = []
    for a, b in pairs:
        cosine, angles = lora_cosine(a.file, b.file), principal_angles(a.file, b.file)
        within = study.alignment[b.trained_on]["within"].sel(control=a.name, control_b=b.name)
        row = {"weights": float(cosine["total"]), "effects": float(within.mean())}
        for side in ("left", "right"):
            row[side] = float(angles[f"{side}_overlap"].mean())
            row[f"{side}_random"] = float(angles[f"{side}_random"].mean())
        rows.append(row)
    names = [f"{a.name} / {b.name}" for a, b in pairs]
    found: dict[str, Any] = {k: ("pair", [r[k] for r in rows]) for k in (rows[0] if rows else {})}
    return xr.Dataset(found, coords={"pair": names})


def grid(parts: Mapping[tuple[str, str], xr.Dataset], study: Study) -> xr.Dataset:
    """Datasets of (control, model) as one with these dimensions, NaN where there is none."""
    labelled = [data.expand_dims(control=[c], model=[m]) for (c, m), data in parts.items()]
    merged = xr.merge(labelled, join="outer", compat="no_conflicts", combine_attrs="override")
    order = {"control": [c.name for c in study.controls], "model": study.models}
    return merged.reindex(
        {k: [v for v in wanted if v in merged[k].values] for k, wanted in order.items()}
    )


def _by_student(parts: Mapping[str, xr.Dataset], study: Study) -> xr.Dataset:
    """Students along ``model``. Those of another schedule have levels of their own, so σ goes with
    the student.
    """
    names = [c.name for c in study.controls]
    labelled = []
    for data in parts.values():
        levels = {k: ("step", data[k].values) for k in ("timestep", "sigma", "alpha_bar")}
        have = [n for n in names if n in data["control"].values]
        plain = data.sel(control=have).drop_vars(list(levels)).reindex(control=names)
        labelled.append(plain.assign(levels).assign_coords(step=np.arange(plain.sizes["step"])))
    models = xr.DataArray(list(parts), dims="model", name="model")
    return xr.concat(
        labelled,
        models,
        join="outer",
        coords="minimal",
        compat="override",
        combine_attrs="override",
    )


def _described(data: xr.Dataset, study: Study) -> xr.Dataset:
    """With what each control turns and where it was trained, and how much was measured."""
    by_name = {c.name: c for c in study.controls}
    chosen: list[Control] = [by_name[str(n)] for n in data["control"].values]
    s = study.settings
    data = data.assign_coords(
        what=("control", [c.what or c.name for c in chosen]),
        trained_on=("control", [c.trained_on for c in chosen]),
        reading=("control", [c.reading for c in chosen]),
    )
    return data.assign_attrs(
        seeds=s.seeds, free_seeds=s.free, state_seeds=s.states, randoms=s.randoms
    )


def base_controls(data: xr.Dataset) -> list[str]:
    """Names of the controls that were trained on the base."""
    return [str(n) for n in data["control"].values[data["trained_on"].values == "base"]]


def finite_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of what is there; NaN of nothing."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    return float(array.mean()) if array.size else float("nan")
