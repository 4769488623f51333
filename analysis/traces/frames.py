"""Pictures of traces for figures and the player: x̂₀ of every step, and the final ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.probes.features import decode_latents


def frames_of(
    traces: Mapping[str, xr.DataTree], vae: Any, *, prompts: int, seeds: int
) -> xr.Dataset:
    """x̂₀ of every step of some traces as pictures.

    Parameters
    ----------
    traces
        By name, of the same prompts and seeds.
    vae
        Decodes (``pipe.vae``).
    prompts, seeds
        How many of the first are kept.

    Returns
    -------
    xarray.Dataset
        ``frames``, uint8 (frame, prompt, seed, y, x, rgb); along ``frame``: ``model``, ``step``,
        ``sigma``, ``timestep``.

    Raises
    ------
    ValueError
        For traces without ``pred_x0``, and of other prompts or seeds.
    """
    x0 = matching_x0(traces, prompts, seeds)
    return xr.concat([_frames(name, array, vae) for name, array in x0.items()], "frame")


def matching_x0(
    traces: Mapping[str, xr.DataTree], prompts: int, seeds: int
) -> dict[str, xr.DataArray]:
    """``pred_x0`` (step, prompt, seed, …) of the first prompts and seeds of every trace.

    Raises
    ------
    ValueError
        For no traces, for traces without ``pred_x0``, and of other prompts or seeds.
    """
    if not traces:
        raise ValueError("no traces to compare: expected {name: trace}")
    few: dict[str, xr.DataArray] = {}
    for name, tree in traces.items():
        if "pred_x0" not in tree:
            raise ValueError(
                f"the trace of {name!r} has no variable 'pred_x0': it has "
                f"{sorted(map(str, tree.data_vars))}"
            )
        array = tree.to_dataset()["pred_x0"].isel(prompt=slice(prompts), seed=slice(seeds))
        few[name] = array.transpose("step", "prompt", "seed", ...)
        first = next(iter(few.values()))
        if not all(np.array_equal(array[d].values, first[d].values) for d in ("prompt", "seed")):
            raise ValueError(
                f"a wall compares the same prompts and seeds, and the trace of {name!r} holds "
                "others"
            )
    return few


def _frames(name: str, x0: xr.DataArray, vae: Any) -> xr.Dataset:
    images = decode_latents(vae, rearrange(x0.values, "t p s ... -> (t p s) ..."))
    shape = dict(zip("tps", x0.shape, strict=False))
    pictures = rearrange(images, "(t p s) rgb y x -> t p s y x rgb", **shape)
    steps = x0.sizes["step"]
    coords: dict[str, Any] = {
        "model": ("frame", [name] * steps),
        "step": ("frame", np.arange(steps)),
        "sigma": ("frame", x0["sigma"].values),
        "timestep": ("frame", x0["timestep"].values),
        "seed": x0["seed"].values,
        "prompt": [str(prompt) for prompt in x0["prompt"].values],
    }
    dims = ("frame", "prompt", "seed", "y", "x", "rgb")
    return xr.Dataset({"frames": (dims, np.round(pictures * 255).astype("uint8"))}, coords)


def final_pictures(
    traces: Mapping[str, xr.DataTree], prompts: Sequence[str], seeds: int
) -> xr.Dataset:
    """``images``, uint8 (model, prompt, seed, y, x, rgb): the final pictures of some prompts and of
    the first ``seeds``.
    """
    few = {
        name: tree.to_dataset()["images"].sel(prompt=list(prompts)).isel(seed=slice(seeds))
        for name, tree in traces.items()
    }
    dims = ("model", "prompt", "seed", "y", "x", "rgb")
    first = next(iter(few.values()))
    coords = {"model": list(few), "prompt": list(prompts), "seed": first["seed"].values}
    return xr.Dataset({"images": (dims, np.stack([x.values for x in few.values()]))}, coords)
