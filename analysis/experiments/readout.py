"""When an attribute of the final picture can be read: base against student, with untrained networks
beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.setting import Setting
from xhat.analysis.result import Result
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.untrained import untrained_trace
from xhat.analysis.table import Column, Table
from xhat.analysis.traces.attribute_labels import final_labels
from xhat.analysis.traces.decision_levels import decision_levels
from xhat.analysis.traces.probe_curves import probe_curves
from xhat.analysis.verdicts import verdict
from xhat.hooks.naming import UnknownName
from xhat.hooks.points.names import denoiser_of
from xhat.hooks.points.select import select
from xhat.hooks.trace import trace
from xhat.probes.features import JudgeSpace
from xhat.zoo.family.attributes import OPEN_PROMPTS

ATTRIBUTES_SHOWN = (
    "colour",
    "background",
    "critter shape",
    "critter eyes",
    "plant",
    "planet ring",
    "landscape terrain",
    "landscape orb",
)
POINTS = ("h", "down.*.res.*", "up.*.res.*")


@dataclass(frozen=True, kw_only=True)
class Readout(Setting):
    """What :func:`measure_readout` is asked.

    Parameters
    ----------
    seeds
        One half of them teaches the probes, the other is read.
    layer
        The hook point whose curves are drawn.
    """

    prompts: Sequence[str] = OPEN_PROMPTS[:20]
    seeds: Sequence[int] = range(40)
    layer: str = "h"


def measure_readout(config: Readout, *, cache: Path) -> Result:
    """Linear probes of every attribute in an embedded base and student, each at its own noise
    levels, and in untrained networks of both.

    Parameters
    ----------
    cache
        Folder of the traces and of the curves of every layer; a run that was stopped goes on there.

    Returns
    -------
    Result
        ``data["probe_curves"]``: :func:`~xhat.analysis.traces.decision_levels.decision_levels` of
        the attributes that are drawn; ``data["readout"]``: of all.

    Raises
    ------
    ValueError
        For a layer that is not among the points that are read.
    """
    pair = config.models()
    models = {"base": pair.base, "student": pair.student}
    _check_layer(pair.base, config.layer)
    curves = {name: _curves(name, pipe, config, cache) for name, pipe in models.items()}
    levels = decision_levels(curves, config.layer).assign_attrs(student=pair.chosen)
    drawn = [name for name in ATTRIBUTES_SHOWN if name in levels["attribute"].values]
    data = {"probe_curves": levels.sel(attribute=drawn), "readout": levels}
    return Result("readout", data, readout_table(levels), sentences(levels), config.settings())


def _check_layer(pipe: Any, layer: str) -> None:
    named = [selection.name for selection in select(denoiser_of(pipe), POINTS)]
    if layer not in named:
        raise UnknownName("layer", layer, named)


def _curves(name: str, pipe: Any, config: Readout, cache: Path) -> xr.Dataset:
    """:func:`~xhat.analysis.traces.probe_curves.probe_curves` of one model, at every layer."""
    space, size = JudgeSpace(pipe.vae), config.batch_size
    traced = trace(
        pipe,
        config.prompts,
        seeds=config.seeds,
        hooks=dict.fromkeys(POINTS, "project(256)"),
        store=cache / "traces" / f"{name}.zarr",
        batch_size=size,
    )

    def probed() -> xr.Dataset:
        untrained = untrained_trace(pipe, traced, batch_size=size)
        labels = final_labels(traced, space)
        return probe_curves(traced, labels, untrained=untrained, progress=True)

    key = {"trace": traced.attrs["checksum"], **space.attrs, "folds": "prompts × seeds"}
    return Cache(cache / "curves").get(name, key, probed)


def readout_table(levels: xr.Dataset) -> Table:
    """Noise level at which each attribute is half decided, by model."""
    models = [str(m) for m in levels["model"].values]
    sigma = levels["decided_sigma"].transpose("attribute", "model").values
    names = levels["attribute"].values.tolist()
    rows = [[name, *values] for name, values in zip(names, sigma.tolist(), strict=True)]
    notes = ("–: no x̂₀ gives away half of what there is to know.",)
    columns = [Column(title) for title in ("half decided at σ", *models)]
    return Table(columns, rows, "First noise level at which a probe of x̂₀ is half right.", notes)


def sentences(levels: xr.Dataset) -> tuple[str, ...]:
    """When x̂₀ first gives away half of what there is to know, per attribute, and what a layer
    tells beside an untrained network."""
    attributes = [_decided(levels.sel(attribute=n), str(n)) for n in levels["attribute"].values]
    return (*attributes, *(_beside(levels, str(m)) for m in levels["model"].values))


def _decided(one: xr.Dataset, name: str) -> str:
    levels = {str(m): float(one["decided_sigma"].sel(model=m)) for m in one["model"].values}
    if all(np.isnan(v) for v in levels.values()):
        best, chance = one["x0"].max("step"), float(one["chance"].max())
        each = " and ".join(f"{m} {_accuracy(float(best.sel(model=m)))}" for m in levels)
        return f"{name}: no x̂₀ gives away half of it; accuracy at best {each}, chance {chance:.2f}."
    each = ", ".join(
        f"{m} at σ = {v:.3g}" if np.isfinite(v) else f"{m} never" for m, v in levels.items()
    )
    return f"{name}: half decided in {each}."


def _accuracy(value: float) -> str:
    return (
        f"{value:.2f}" if np.isfinite(value) else "not measured (it nearly always draws the same)"
    )


def _beside(levels: xr.Dataset, model: str) -> str:
    """What an untrained network leaves of the accuracies, and whether the control task is at
    chance.
    """
    means = levels.sel(model=model, bound="estimate").mean()
    task, control, fresh, chance = (
        float(means[name]) for name in ("task", "control", "untrained", "chance")
    )
    line = (
        f"{model}, layer {levels.attrs['layer']}: mean accuracy {task:.2f} beside an untrained "
        f"network's {fresh:.2f} and chance {chance:.2f}; control task {control:.2f}"
    )
    one = levels.sel(model=model, bound="estimate")
    more = one["task"] - one["untrained"]
    gain = more.mean([dim for dim in more.dims if dim != "attribute"]).values
    gain = gain[np.isfinite(gain)]
    if not gain.size:
        return f"{line}."
    told = verdict(gain, unit="attribute")
    return f"{line}. {told.sentence('it', 'the untrained network', 'Accuracy over attributes')}"
