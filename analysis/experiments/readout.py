"""When the embedded family's attributes are decided: base against student, every layer, with
untrained networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.untrained import untrained_trace
from xhat.analysis.traces.attribute_labels import final_labels
from xhat.analysis.traces.decision_levels import decision_levels
from xhat.analysis.traces.probe_curves import probe_curves
from xhat.hooks.trace import trace
from xhat.probes.features import JudgeSpace

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
READ_AT = ("h", "down.*.res.*", "up.*.res.*")


def measure_readout(
    base: Any,
    student: Any,
    prompts: Sequence[str],
    seeds: Iterable[int],
    *,
    layer: str = "h",
    out: Path,
    batch_size: int = 24,
) -> xr.Dataset:
    """Curves of an embedded base and student, each read at its own noise levels, and of untrained
    networks of both.

    Traces and curves of every layer are kept in ``out``, where a run that was stopped goes on.
    Returns :func:`decision_levels` at ``layer``."""
    space, curves = JudgeSpace(base.vae), {}
    for name, pipe in (("base", base), ("student", student)):
        hooks = dict.fromkeys(READ_AT, "project(256)")
        traced = trace(
            pipe,
            prompts,
            seeds=seeds,
            hooks=hooks,
            store=out / "traces" / f"{name}.zarr",
            batch_size=batch_size,
        )

        def probed(name: str = name, pipe: Any = pipe, traced: Any = traced) -> xr.Dataset:
            print(f"{name}: probes of {traced.sizes['step']} steps", flush=True)
            untrained = untrained_trace(pipe, traced, batch_size=batch_size)
            return probe_curves(
                traced, final_labels(traced, space), untrained=untrained, progress=True
            )

        key = {"trace": traced.attrs["checksum"], **space.attrs, "folds": "prompts × seeds"}
        curves[name] = Cache(out / "curves").get(name, key, probed)
    return decision_levels(curves, layer)


def statement(found: xr.Dataset) -> list[str]:
    """Per attribute, the noise level at which x̂₀ first gives away half of what there is to know,
    in sentences.
    """
    lines = []
    for name in found["attribute"].values:
        levels = {
            str(m): float(found["decided_sigma"].sel(attribute=name, model=m))
            for m in found["model"].values
        }
        if all(np.isnan(v) for v in levels.values()):
            of = found.sel(attribute=name)
            best, chance = of["x0"].max("step"), float(of["chance"].max())
            shown = " and ".join(f"{m} {float(best.sel(model=m)):.2f}" for m in levels)
            lines.append(
                f"{name}: no x̂₀ gives away half of it; accuracy at best {shown}, chance "
                f"{chance:.2f}."
            )
            continue
        said = [
            f"{m} at σ = {v:.3g}" if np.isfinite(v) else f"{m} never" for m, v in levels.items()
        ]
        lines.append(f"{name}: half decided in {', '.join(said)}.")
    return [*lines, *_beside(found)]


def _beside(found: xr.Dataset) -> list[str]:
    """What an untrained network leaves of the accuracies, and whether the control task is at
    chance, per model.
    """
    lines = []
    for model in found["model"].values:
        of = found.sel(model=model)
        task, control, fresh, chance = (
            float(of[name].mean()) for name in ("task", "control", "untrained", "chance")
        )
        line = (
            f"{model}, layer {found.attrs['layer']}: mean accuracy {task:.2f} beside an untrained "
            f"network's {fresh:.2f} and chance {chance:.2f}; control task {control:.2f}"
        )
        if task <= fresh:
            line += (
                ": not above the untrained network, so that training has not made it easier to read"
            )
        lines.append(f"{line}.")
    return lines
