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


def frames_of(
    traces: Mapping[str, xr.DataTree], vae: Any, *, prompts: int, seeds: int
) -> xr.Dataset:
    """x̂₀ of every step of some traces as pictures: ``frames`` uint8 (frame, prompt, seed, y, x,
    rgb).

    Along ``frame``: ``model``, ``step``, ``sigma``, ``timestep``. The first ``prompts`` and
    ``seeds`` are kept."""
    from xhat.probes.features import decode

    parts, first = [], None
    for name, tree in traces.items():
        if "pred_x0" not in tree:
            raise ValueError(
                f"the trace of {name!r} has no variable 'pred_x0': it has "
                f"{sorted(map(str, tree.data_vars))}"
            )
        x0 = (
            tree.to_dataset()["pred_x0"]
            .isel(prompt=slice(prompts), seed=slice(seeds))
            .transpose("step", "prompt", "seed", ...)
        )
        first = x0 if first is None else first
        if any(not np.array_equal(x0[dim].values, first[dim].values) for dim in ("prompt", "seed")):
            raise ValueError(
                f"a player compares the same prompts and seeds, and the trace of {name!r} holds "
                "others"
            )
        pictures = decode(vae, x0.values.reshape(-1, *x0.shape[3:]))
        pictures = np.round(pictures.transpose(0, 2, 3, 1) * 255).astype("uint8")
        along = {"model": [name] * x0.sizes["step"], "step": np.arange(x0.sizes["step"])}
        along |= {level: x0[level].values for level in ("sigma", "timestep")}
        coords: dict[str, Any] = {k: ("frame", np.asarray(v)) for k, v in along.items()} | {
            "seed": x0["seed"].values
        }
        coords["prompt"] = [str(p) for p in x0["prompt"].values]
        dims = ("frame", "prompt", "seed", "y", "x", "rgb")
        parts.append(
            xr.Dataset(
                {"frames": (dims, pictures.reshape(*x0.shape[:3], *pictures.shape[1:]))}, coords
            )
        )
    return xr.concat(parts, "frame")


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
