"""The seed wall: x̂₀ of every step of several models under the same seeds, as sheets of pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.analysis.measures.by_seed import LEAST_SEEDS, vendi_q2_by_seed
from xhat.analysis.measures.diversity import similarities
from xhat.analysis.traces.frames import matching_x0
from xhat.probes.features import LatentSpace, decode_latents

PIXELS = 96
"""Side of a picture at most; larger ones are made smaller."""
BYTES = 3_200_000
"""All sheets together, so that a page that holds them stays under 5 MB."""
QUALITIES = (85, 65, 45, 25, 10)
"""Of WebP, tried until the sheets fit."""


def wall_of(
    traces: Mapping[str, xr.DataTree],
    vae: Any,
    *,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
    prompts: int = 3,
    seeds: int = 64,
) -> xr.Dataset:
    """x̂₀ of every step and seed of some traces, and how far apart the seeds are.

    Parameters
    ----------
    traces
        By name, of the same prompts and seeds.
    vae
        Decodes (``pipe.vae``).
    features
        Latents (n, channel, y, x) → (n, d), where seeds are compared (default: the latents).
    prompts, seeds
        How many of the first are shown.

    Returns
    -------
    xarray.Dataset
        ``sheet``, uint8 (model, prompt, byte): a WebP picture with a row a step and a column a
        seed, filled up with zeros. ``sigma`` (model, step). ``vendi_q2`` (model, prompt, step) of
        x̂₀ across seeds. ``place`` (model, prompt, step, seed, axis): the two principal components
        of the features of a prompt, scaled to unit length, of all models together. Models with
        fewer steps than others are filled up with NaN.

    Raises
    ------
    ValueError
        For traces without ``pred_x0``, and of other prompts or seeds.
    """
    x0 = matching_x0(traces, prompts, seeds)
    first = next(iter(x0.values()))
    every = range(first.sizes["prompt"])
    sheets = [[_sheet(array.isel(prompt=p), vae) for p in every] for array in x0.values()]
    most = max(array.sizes["step"] for array in x0.values())
    how = features or LatentSpace().features
    spreads = [_spread([array.isel(prompt=p) for array in x0.values()], how, most) for p in every]
    vendi, place = zip(*spreads, strict=True)
    sigma = np.stack([_filled(array["sigma"].values, most) for array in x0.values()])
    coords = {
        "model": list(x0),
        "prompt": [str(prompt) for prompt in first["prompt"].values],
        "seed": first["seed"].values,
    }
    variables = {
        "sheet": (("model", "prompt", "byte"), encoded(sheets)),
        "sigma": (("model", "step"), sigma),
        "vendi_q2": (("model", "prompt", "step"), np.stack(vendi, 1)),
        "place": (("model", "prompt", "step", "seed", "axis"), np.stack(place, 1)),
    }
    return xr.Dataset(variables, coords)


def sheet_bytes(sheet: xr.DataArray) -> bytes:
    """One model's and prompt's sheet of :func:`wall_of` as the bytes of a WebP file."""
    data = sheet.values.tobytes()
    return data[: int.from_bytes(data[4:8], "little") + 8]  # RIFF: the size stands in the head


def _sheet(x0: xr.DataArray, vae: Any) -> np.ndarray:
    """uint8 (step·y, seed·x, rgb) of one prompt's (step, seed, …), decoded a step at a time."""
    steps = [_small(decode_latents(vae, step)) for step in x0.values]
    return rearrange(steps, "t s y x rgb -> (t y) (s x) rgb")


def _small(images: np.ndarray) -> np.ndarray:
    """(n, rgb, y, x) in [0, 1] → uint8 (n, y, x, rgb), no larger than :data:`PIXELS`."""
    from PIL import Image

    pictures = np.round(rearrange(images, "n rgb y x -> n y x rgb") * 255).astype("uint8")
    height, width = pictures.shape[1:3]
    share = PIXELS / max(height, width)
    if share >= 1:
        return pictures
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.stack([np.asarray(Image.fromarray(picture).resize(size)) for picture in pictures])


def encoded(sheets: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """(model, prompt, byte) WebP files, in the best quality in which all fit :data:`BYTES`."""
    for quality in QUALITIES:
        files = [[_webp(sheet, quality) for sheet in row] for row in sheets]
        sizes = [len(file) for row in files for file in row]
        if sum(sizes) <= BYTES:
            break
    longest = max(sizes)
    return np.array(
        [[np.frombuffer(file.ljust(longest, b"\0"), "uint8") for file in row] for row in files]
    )


def _webp(sheet: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def _spread(
    x0: Sequence[xr.DataArray], features: Callable[[np.ndarray], np.ndarray], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """(model, step) Vendi and (model, step, seed, axis) places of one prompt's (step, seed, …)."""
    parts = [np.stack([_unit(features(step)) for step in array.values]) for array in x0]
    flat = np.concatenate([rearrange(part, "t s d -> (t s) d") for part in parts])
    centre = flat.mean(0)
    axes = np.linalg.svd(flat - centre, full_matrices=False)[2][:2]
    places = [_filled((part - centre) @ axes.T, steps) for part in parts]
    vendi = [_filled(np.array([_vendi(step) for step in part]), steps) for part in parts]
    return np.stack(vendi), np.stack(places).astype("float32")


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _vendi(features: np.ndarray) -> float:
    if len(features) < LEAST_SEEDS:
        return float("nan")
    return float(vendi_q2_by_seed(similarities(features)).mean())


def _filled(values: np.ndarray, steps: int) -> np.ndarray:
    """(step, …) with NaN behind, up to ``steps``."""
    rest = np.full((steps - len(values), *values.shape[1:]), np.nan)
    return np.concatenate([values, rest])
