"""Where a picture looks at each token of its prompt, by layer and noise level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange

from xhat.hooks.points.text_tokens import token_names

READING = "@tokens"


def token_maps(trace: xr.DataTree, pipe: Any, size: int | None = None) -> xr.Dataset:
    """Cross-attention maps of every token, the mean over heads, brought to one size.

    As in DAAM (Tang et al. 2023, arXiv 2210.04885, Eq. 5): probabilities of the conditional branch
    from every place to every token, resampled bicubically, below 0 cut off. Their heat map of a
    token is the mean of these over layers and steps; here the layers and steps are kept.

    Parameters
    ----------
    trace
        with readings ``"…@tokens"``, kept in ``full``.
    pipe
        the pipeline that was traced; only its tokenizers are asked.
    size
        rows of the maps. None: those of the finest layer.

    Returns
    -------
    Dataset
        ``attention`` (prompt, seed, layer, step, token, y, x) and the coordinates ``token_name``
        (prompt, token) and ``sigma`` (step).

    Raises
    ------
    ValueError
        For a trace without such readings, or with reduced ones.

    Examples
    --------
    ``token_maps(trace, pipe)["attention"].mean(("layer", "step"))`` is DAAM's heat map.
    """
    layers = _layers(trace)
    shape = trace["latents"].sizes
    grids = {name: grid_of(layer.sizes["query"], shape["y"], shape["x"]) for name, layer in layers}
    rows, columns = max(grids.values())
    if size is not None:
        rows, columns = size, round(size * shape["x"] / shape["y"])
    maps = [_resampled(layer, grids[name], (rows, columns)) for name, layer in layers]
    prompts = [str(prompt) for prompt in np.asarray(trace["prompt"])]
    count = maps[0].sizes["token"]
    names = np.array([token_names(pipe, prompt, count) for prompt in prompts])
    attention = xr.concat(maps, "layer").transpose(
        "prompt", "seed", "layer", "step", "token", "y", "x"
    )
    coords: dict[str, Any] = {
        "layer": [name for name, _ in layers],
        "token_name": (("prompt", "token"), names),
        "sigma": ("step", trace["sigma"].values),
    }
    return xr.Dataset({"attention": attention}).assign_coords(coords)


def heat(maps: xr.Dataset, text: str) -> xr.DataArray:
    """The heat map of a word: the mean over layers, steps and its tokens (prompt, seed, y, x); NaN
    for prompts without it. Raises ValueError where no prompt has a token of this text.

    A tokenizer's marks of a word's beginning and end (``▁``, ``Ġ``, ``</w>``) are not looked at.
    """
    plain = np.vectorize(_plain)(maps["token_name"].values)
    has = xr.DataArray(plain == _plain(text), dims=("prompt", "token"))
    if not has.any():
        there = sorted(set(plain.ravel()) - {""})
        raise ValueError(f"no token is {text!r}; there are {', '.join(there[:20])}")
    return maps["attention"].where(has).mean(("layer", "step", "token"))


def grid_of(places: int, rows: int, columns: int) -> tuple[int, int]:
    """The (y, x) in which a layer has its places, of the same shape as latents of (rows, columns).

    >>> grid_of(16, 8, 8), grid_of(32, 16, 8)
    ((4, 4), (8, 4))
    """
    y = round(math.sqrt(places * rows / columns))
    if y == 0 or places % y:
        raise ValueError(
            f"{places} places are no map of the shape of latents of {rows} × {columns}"
        )
    return y, places // y


def _plain(name: str) -> str:
    return name.removesuffix("</w>").lstrip("▁Ġ ").lower()


def _layers(trace: xr.DataTree) -> list[tuple[str, xr.DataArray]]:
    """(layer, its (prompt, seed, step, query, text_token) of the conditional branch)."""
    found: list[tuple[str, xr.DataArray]] = []
    activations: Any = trace.children.get("activations", xr.DataTree())
    for name, node in activations.children.items():
        if not name.endswith(READING):
            continue
        value = node["value"]
        if not {"query", "text_token"} <= set(value.dims):
            raise ValueError(f"{name!r} is reduced to {value.dims[3:]}: trace it with 'full'")
        value = value.sel(branch="cond") if "branch" in value.dims else value
        found.append((name.removesuffix(READING), value))
    if not found:
        raise ValueError(
            "the trace has no attention to tokens: trace with hooks={'**.cross@tokens': 'full'}, "
            "or '**.attn@tokens' where prompt and picture attend together"
        )
    return found


def _resampled(layer: xr.DataArray, grid: tuple[int, int], size: tuple[int, int]) -> xr.DataArray:
    leading = layer.transpose("prompt", "seed", "step", "query", "text_token")
    values = torch.from_numpy(np.asarray(leading.values, dtype=np.float32))
    maps = rearrange(
        values, "prompt seed step (y x) token -> (prompt seed step) token y x", y=grid[0]
    )
    if grid != size:
        maps = torch.nn.functional.interpolate(maps, size=size, mode="bicubic").clamp(min=0)
    maps = maps.unflatten(0, values.shape[:3])
    coords = {name: layer[name] for name in ("prompt", "seed") if name in layer.coords}
    dims = ("prompt", "seed", "step", "token", "y", "x")
    return xr.DataArray(maps.numpy(), dims=dims, coords=coords)
