"""The x̂₀ player: model × prompt × seed, moved along the steps, models side by side at equal
noise.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.traces.frames import frames_of
from xhat.figures.kit.style import colour, label


@dataclass(frozen=True)
class Player:
    """A player that a notebook shows, and :attr:`html` of which stands by itself."""

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        import html

        page = html.escape(
            f"<!doctype html><meta charset=utf-8><body>{self.html}</body>", quote=True
        )
        style = "width:100%;height:21rem;border:0"
        attributes = f'title="x̂₀ player" srcdoc="{page}" style="{style}" loading="lazy"'
        return f"<iframe {attributes}></iframe>"


def x0_player(
    traces: xr.DataTree | Mapping[str, xr.DataTree], *, vae: Any, prompts: int = 4, seeds: int = 2
) -> Player:
    """A widget that shows x̂₀ along the steps of one trace, or of several by name, side by side at
    equal σ.

    The first ``prompts`` and ``seeds`` of the traces are decoded by ``vae`` (``pipe.vae``). It
    needs no server, and stays alive in a saved notebook. Raises ValueError for traces without
    ``pred_x0``, and of other prompts or seeds."""
    named = (
        traces
        if isinstance(traces, Mapping) and not isinstance(traces, xr.DataTree)
        else {"model": traces}
    )
    return player(frames_of(named, vae, prompts=prompts, seeds=seeds))


def player(data: xr.Dataset) -> Player:
    """The player of frames as :func:`frames_of` makes them."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("xhat.figures.report"), autoescape=select_autoescape(["html", "j2"])
    )
    template = environment.get_template("player.html.j2")
    return Player(template.render(data=player_data(data), samples=sample_names(data)))


def player_data(data: xr.Dataset) -> dict[str, Any]:
    """What the player's script reads: for each model its noise levels, and a WebP picture a sample
    and step.
    """
    names, models = data["model"].values, []
    for name in dict.fromkeys(names.tolist()):
        mine = data.isel(frame=np.flatnonzero(names == name)).transpose(
            "prompt", "seed", "frame", ...
        )
        pictures = mine["frames"].values.reshape(-1, *mine["frames"].shape[2:])
        frames = [[_webp(picture) for picture in steps] for steps in pictures]
        levels = mine["sigma"].values
        models.append(
            {
                "name": label(name),
                "colour": colour(name),
                "frames": frames,
                "sigma": [float(f"{s:.3g}") for s in levels],
                "logSigma": np.log(np.maximum(levels, 1e-3)).round(4).tolist(),
            }
        )
    return {"models": models}


def sample_names(data: xr.Dataset) -> list[str]:
    """A name for each sample, in the order of the frames."""
    return [f"“{p}”, seed {s}" for p in data["prompt"].values for s in data["seed"].values]


def _webp(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
