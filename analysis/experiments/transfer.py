"""Does control survive distillation: effect, retention, alignment and energy of every control, in a
base and its students.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.experiments.paper import CITATION, TABLES, published_retention
from xhat.analysis.experiments.transfer_text import base_controls, sentences, transfer_table
from xhat.analysis.measures.alignment import lora_cosine, principal_angles
from xhat.analysis.result import Result
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.control_bench import Bench
from xhat.analysis.sampling.control_jobs import Extent, Measured
from xhat.analysis.sampling.dose_response import dose_response, retention

SHOWN = ("mid.res.1", "x0")
"""Where energy is drawn: the middle of a UNet (h-space), and x̂₀."""
CURVES = ("effect", "other", "distance", "kind_kept", "confidence", "clipped")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What :func:`measure_transfer` is asked.

    Parameters
    ----------
    models
        Name → pipeline, among them ``base``.
    controls
        Controls that were trained on these models, each with its prompts and its score.
    space
        Where pictures are compared (:mod:`xhat.probes.features`).
    extent
        How much is measured.
    """

    models: Mapping[str, Any]
    controls: Sequence[Control]
    space: Any
    extent: Extent = field(default_factory=Extent)

    def settings(self) -> dict[str, Any]:
        """All that was asked, for :class:`~xhat.analysis.result.Result`."""
        controls = {c.name: {"file": c.identity(), "reading": c.reading} for c in self.controls}
        names = {"models": list(self.models), "controls": controls, "space": self.space.name}
        return names | asdict(self.extent)


def measure_transfer(config: Transfer, *, cache: Path) -> Result:
    """Measure every control in the models: one of the base goes to every student, one of a student
    to the base.

    Parameters
    ----------
    cache
        Folder of the measurements; a run that was stopped goes on there.

    Returns
    -------
    Result
        ``data``: ``retention``, ``dose_response``, ``alignment_map``, ``energy``, and ``twins``
        where base and student have sliders of one attribute.

    Raises
    ------
    ValueError
        Without a base, a student or controls, and where the base has no step at a student's noise
        levels.
    """
    bench = Bench(config.models, config.controls, config.space, cache, config.extent)
    data = figure_data(bench.run(), config.extent)
    table = transfer_table(data["retention"])
    return Result("transfer", data, table, sentences(data), config.settings())


def figure_data(measured: Measured, extent: Extent) -> dict[str, xr.Dataset]:
    """Name of a figure → its data."""
    data = {
        "retention": retention_data(measured, extent),
        "dose_response": dose_data(measured),
        "alignment_map": _by_student(measured.alignment, measured),
        "energy": energy_data(measured),
    }
    amounts = {
        "seeds": extent.seeds,
        "free_seeds": extent.free,
        "state_seeds": extent.states,
        "randoms": extent.randoms,
    }
    described = {n: _described(d, measured).assign_attrs(amounts) for n, d in data.items()}
    twins = twin_data(measured)
    return described | ({"twins": twins} if twins.sizes.get("pair") else {})


def dose_data(measured: Measured) -> xr.Dataset:
    """(control, model, scale): change of the score and of what else moves, with intervals; NaN
    where not measured.
    """
    parts = {}
    for key, doses in measured.doses.items():
        curve = dose_response(doses)
        names = [name for name in CURVES if name in curve]
        parts[key] = curve[[*names, "saturated"]].astype("float64")
    return _grid(parts, measured)


def retention_data(measured: Measured, extent: Extent) -> xr.Dataset:
    """(control, model): effects and retention with intervals and the verdict on each
    (:func:`~xhat.analysis.sampling.dose_response.retention`), and what the paper prints, apart and
    with its source.

    ``small``: retention at the smallest scale ``attrs["small_scale"]``, where no effect is at its
    end, a sharper test than that at scale 1. ``pooled`` (model): of the controls of the base that
    have an effect there, mean effect in the model over mean effect in the base, with a bootstrap
    over controls. ``published`` (published_student): the same of the nine controls of the paper's
    Table 1; ``published_each``: each of them."""
    small = min(s for s in extent.scales if s > 0)
    parts = {}
    for control in measured.controls:
        home = measured.doses[control.name, control.trained_on]
        for name, model in (key for key in measured.doses if key[0] == control.name):
            if model != control.trained_on:
                away = measured.doses[name, model]
                least = retention(home, away, scale=small)["retention"]
                parts[name, model] = retention(home, away).assign(small=least)
    data = _described(_grid(parts, measured), measured)
    data["verdict"] = data["verdict"].fillna("").astype(str)
    data["pooled"] = _pooled(data)
    return data.merge(published_data()).assign_attrs(
        source=CITATION, published_unit=TABLES["1"].caption, small_scale=small
    )


def published_data() -> xr.Dataset:
    """The paper's Table 1 as shares of its base: mean of its controls, and each of them."""
    table = TABLES["1"].to_array()
    students = [str(c) for c in table["column"].values if c != "base"]
    each = (table.sel(column=students) / table.sel(column="base")).transpose("row", "column")
    means = published_retention()
    return xr.Dataset(
        {
            "published": ("published_student", [means[s] for s in students]),
            "published_each": (("published_control", "published_student"), each.values),
        },
        {"published_student": students, "published_control": table["row"].values.astype(str)},
    )


def _pooled(data: xr.Dataset) -> xr.DataArray:
    """Mean effect of the base's controls in each model over their mean effect at home, each in its
    own direction (model, bound).
    """
    ours = data.sel(control=base_controls(data))
    pooled = xr.full_like(ours["retention"].isel(control=0, drop=True), np.nan)
    for model in data["model"].values:
        one = ours.sel(model=model, bound="estimate")
        moved = np.isfinite(one["retention"].values)
        if moved.any():
            home, away = one["home"].values[moved], one["away"].values[moved]
            way = np.sign(home)
            ratio = stats.paired_ratio(way * home, way * away, unit="control").array()
            pooled.loc[{"model": model}] = ratio.values
            pooled.attrs = ratio.attrs
    return pooled


def energy_data(measured: Measured) -> xr.Dataset:
    """(model, control, point, step): share of variance across seeds along each control's direction,
    at two points.
    """
    data = _by_student(measured.energy, measured)
    points = [p for p in SHOWN if p in data["point"].values] or [str(data["point"].values[-1])]
    return data.sel(point=points)


def twin_data(measured: Measured) -> xr.Dataset:
    """Controls of one attribute, trained on the base and on a student: how alike are their weights,
    and their effects?

    (pair): ``weights``, cosine of ΔW; ``left``, ``right``, mean overlap of what they write and
    read, with their random baselines; ``effects``, cosine of what both do to x̂₀ of the base, mean
    over noise levels."""
    pairs = [
        (a, b)
        for b in measured.controls
        for a in measured.controls
        if a.trained_on == "base" != b.trained_on and a.what == b.what
    ]
    rows: list[dict[str, float]] = []
    for a, b in pairs:
        cosine, angles = lora_cosine(a.file, b.file), principal_angles(a.file, b.file)
        within = measured.alignment[b.trained_on]["within"].sel(control=a.name, control_b=b.name)
        row = {"weights": float(cosine["total"]), "effects": float(within.mean())}
        for side in ("left", "right"):
            row[side] = float(angles[f"{side}_overlap"].mean())
            row[f"{side}_random"] = float(angles[f"{side}_random"].mean())
        rows.append(row)
    names = [f"{a.name} / {b.name}" for a, b in pairs]
    columns = {k: ("pair", [row[k] for row in rows]) for k in (rows[0] if rows else {})}
    return xr.Dataset(columns, coords={"pair": names})


def _grid(parts: Mapping[tuple[str, str], xr.Dataset], measured: Measured) -> xr.Dataset:
    """Datasets of (control, model) as one with these dimensions, NaN where there is none."""
    labelled = [data.expand_dims(control=[c], model=[m]) for (c, m), data in parts.items()]
    merged = xr.merge(labelled, join="outer", compat="no_conflicts", combine_attrs="override")
    order = {"control": [c.name for c in measured.controls], "model": measured.models}
    return merged.reindex(
        {k: [v for v in wanted if v in merged[k].values] for k, wanted in order.items()}
    )


def _by_student(parts: Mapping[str, xr.Dataset], measured: Measured) -> xr.Dataset:
    """Students along ``model``. Those of another schedule have levels of their own, so σ goes with
    the student.
    """
    names = [c.name for c in measured.controls]
    labelled = []
    for data in parts.values():
        levels = {k: ("step", data[k].values) for k in ("timestep", "sigma", "alpha_bar")}
        there = [n for n in names if n in data["control"].values]
        plain = data.sel(control=there).drop_vars(list(levels)).reindex(control=names)
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


def _described(data: xr.Dataset, measured: Measured) -> xr.Dataset:
    """With what each control turns, where it was trained and how it is read."""
    by_name = {c.name: c for c in measured.controls}
    controls = [by_name[str(n)] for n in data["control"].values]
    return data.assign_coords(
        what=("control", [c.what or c.name for c in controls]),
        trained_on=("control", [c.trained_on for c in controls]),
        reading=("control", [c.reading for c in controls]),
    )
