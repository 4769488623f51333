"""The report of a probe: one HTML file with the verdict first, then its evidence, the table, the
figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from xhat.analysis.experiments.collapse import collapse_table
from xhat.analysis.experiments.probe import ProbeResult
from xhat.analysis.traces.curves import join_curves
from xhat.analysis.traces.frames import frames_of
from xhat.analysis.traces.wall import wall_of
from xhat.figures.kit.data import save_data
from xhat.figures.kit.registry import figures, redraw
from xhat.figures.report.page import sections
from xhat.figures.report.render import render_template
from xhat.probes.features import decode_latents

SHOWN_PROMPTS, SHOWN_SEEDS = 2, 8


def write_probe_report(result: ProbeResult, vae: Any, out: Path, name: str) -> Path:
    """Write ``report.html``, ``results.json``, ``data/*.nc`` and ``figures/`` into ``out``; gives
    the report's path.
    """
    _save(result, vae, out)
    (out / "results.json").write_text(result.to_json(), encoding="utf-8")
    there = {e.name: e for e in figures(out) if e.there}
    redraw(run=out, out=out / "figures")
    if not result.verdict.show:
        there.pop("filmstrip", None)
    page = render_template(
        "probe.html.j2",
        title=f"Probe of {name}",
        verdict=result.verdict,
        lines=result.lines,
        notes=result.notes,
        run=result.estimate.text(),
        prompts=result.estimate.prompts,
        table=Markup("" if result.measured is None else collapse_table(result.measured).to_html()),
        **sections(there, out),
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _save(result: ProbeResult, vae: Any, out: Path) -> None:
    save_data(_samples(result.samples, vae), out, "samples")
    if not result.verdict.show:
        return
    save_data(frames_of(result.traces, vae, prompts=1, seeds=1), out, "filmstrip")
    save_data(wall_of(result.traces, vae, prompts=1, seeds=SHOWN_SEEDS), out, "wall")
    save_data(join_curves(result.diversity), out, "diversity")
    save_data(join_curves(result.commitment), out, "commitment")
    if result.measured is not None:
        save_data(result.measured, out, "measured")


def _samples(finals: dict[str, xr.DataArray], vae: Any) -> xr.Dataset:
    """Pictures of a few prompts and seeds of every arm, as the figure ``samples`` takes them."""
    first = next(iter(finals.values()))
    few = first["prompt"].values[:SHOWN_PROMPTS]
    pictures = []
    for final in finals.values():
        some = final.transpose("prompt", "seed", ...).sel(prompt=few).isel(seed=slice(SHOWN_SEEDS))
        images = decode_latents(vae, some.values.reshape(-1, *some.shape[2:]), batch_size=4)
        images = np.round(images.transpose(0, 2, 3, 1) * 255).astype("uint8")
        pictures.append(images.reshape(*some.shape[:2], *images.shape[1:]))
    coords = {
        "model": list(finals),
        "prompt": [str(p) for p in few],
        "seed": first["seed"].values[:SHOWN_SEEDS],
    }
    return xr.Dataset(
        {"images": (("model", "prompt", "seed", "y", "x", "rgb"), np.stack(pictures))}, coords
    )
