"""The seed wall as a page, a part of a report, or a notebook's cell; and the page that asks which
of two sets of pictures varies more.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.files import check_file, write_text
from xhat.analysis.traces.wall import sheet_bytes, wall_of
from xhat.figures.kit.data import load_data
from xhat.figures.kit.style import colour, label
from xhat.figures.report.render import render_template

TITLE = "Seeds, from noise to picture"
SAME = 0.01
"""Noise levels nearer than that, as a share, are one stop of the wall."""


@dataclass(frozen=True)
class Wall:
    """A wall that a notebook shows, and :attr:`html` of which stands by itself."""

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        import html

        page = html.escape(
            f"<!doctype html><meta charset=utf-8><body>{self.html}</body>", quote=True
        )
        style = "width:100%;height:50rem;border:0"
        attributes = f'title="seed wall" srcdoc="{page}" style="{style}" loading="lazy"'
        return f"<iframe {attributes}></iframe>"


def seed_wall(
    traces: xr.DataTree | Mapping[str, xr.DataTree],
    *,
    vae: Any,
    features: Any = None,
    prompts: int = 3,
    seeds: int = 24,
) -> Wall:
    """A widget of x̂₀ along the steps of one trace, or of several by name, every seed side by side.

    Parameters
    ----------
    traces
        One, or several by name, of the same prompts and seeds.
    vae
        Decodes (``pipe.vae``).
    features
        Where seeds are compared: latents (n, channel, y, x) → (n, d) (default: the latents).
    prompts, seeds
        How many of the first are shown.

    Returns
    -------
    Wall
        Needs no server and no network, and stays alive in a saved notebook.

    Raises
    ------
    ValueError
        For traces without ``pred_x0``, and of other prompts or seeds.
    """
    named = (
        traces
        if isinstance(traces, Mapping) and not isinstance(traces, xr.DataTree)
        else {"model": traces}
    )
    return wall(wall_of(named, vae, features=features, prompts=prompts, seeds=seeds))


def wall(data: xr.Dataset) -> Wall:
    """The widget of data as :func:`~xhat.analysis.traces.wall.wall_of` makes them."""
    return Wall(render_template("wall.html.j2", data=wall_data(data)))


def write_wall(run: Path | None, out: Path) -> list[Path]:
    """Write the wall of a run, or of the embedded family, as a page, and the blind comparison.

    Returns
    -------
    list of Path
        ``out``, and ``blind.html`` beside it where there are two models to compare.

    Raises
    ------
    ValueError
        Where the run has no data of a wall.
    """
    check_file(out)
    data = wall_data(load_data("wall", run))
    blind = out.with_name("blind.html") if len(data["models"]) > 1 else None
    widget = render_template("wall.html.j2", data=data)
    link = blind.name if blind else ""
    write_text(out, render_template("explore.html.j2", title=TITLE, wall=widget, blind=link))
    if blind is None:
        return [out]
    write_text(blind, render_template("blind.html.j2", data=data))
    return [out, blind]


def wall_data(data: xr.Dataset) -> dict[str, Any]:
    """What the scripts read: prompts, seeds, stops of the noise, and of each model its pictures."""
    shown = data["place"].values
    low, high = (np.nanmin(shown, (0, 2, 3)), np.nanmax(shown, (0, 2, 3)))  # (prompt, axis)
    scale = 100 / np.maximum((high - low).max(-1), 1e-9)  # of a prompt, the same both ways
    models = [_model(data.sel(model=name), low, scale) for name in data["model"].values]
    levels = sorted({s for model in models for s in model["sigma"]}, reverse=True)
    stops = [s for i, s in enumerate(levels) if i == 0 or s < levels[i - 1] * (1 - SAME)]
    return {
        "prompts": data["prompt"].values.tolist(),
        "seeds": data["seed"].values.tolist(),
        "stops": stops,
        "shape": _shape(data),
        "models": models,
    }


def _model(one: xr.Dataset, low: np.ndarray, scale: np.ndarray) -> dict[str, Any]:
    steps = int(np.isfinite(one["sigma"]).sum())
    name = str(one["model"].values)
    some = one.isel(step=slice(steps)).transpose("prompt", "step", ...)
    place = (some["place"].values - low[:, None, None]) * scale[:, None, None, None]
    vendi = some["vendi_q2"].values
    return {
        "key": name,
        "name": label(name),
        "colour": colour(name),
        "sigma": [float(f"{s:.4g}") for s in some["sigma"].values],
        "vendi": [[round(v, 3) if np.isfinite(v) else None for v in row] for row in vendi.tolist()],
        "place": place.round(1).tolist(),
        "sheets": [
            base64.b64encode(sheet_bytes(one["sheet"].sel(prompt=prompt))).decode()
            for prompt in one["prompt"].values
        ],
    }


def _shape(data: xr.Dataset) -> str:
    """Width / height of a picture, in the style sheet's notation."""
    import io

    from PIL import Image

    first = data.isel(model=0)
    width, height = Image.open(io.BytesIO(sheet_bytes(first["sheet"].isel(prompt=0)))).size
    steps = int(np.isfinite(first["sigma"]).sum())
    return f"{width // data.sizes['seed']} / {height // steps}"
