"""One slider at several scales on several models, from the same seeds: the pictures, and where they
break.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from xhat.hooks.model import with_defaults
from xhat.hooks.points.names import denoiser_of, parts_of
from xhat.hooks.points.taps import quiet
from xhat.zoo.family.attributes import parse_prompt
from xhat.zoo.family.judge import Judge
from xhat.zoo.lora.injection import sliders_in
from xhat.zoo.lora.loading import load_slider, remove, scales_of, sliding

CLIPPED, UNSURE = 0.15, 0.15
"""By how much, against scale 0, the share of clipped values may rise, and the judge's confidence
fall."""


def slider_grid(
    pipes: Mapping[str, Any],
    path: Path,
    prompt: str,
    scales: Sequence[float],
    seeds: Sequence[int],
    judge: Judge | None = None,
    **call: Any,
) -> xr.Dataset:
    """Pictures (model, scale, seed, row, col, rgb) uint8 of every model with the slider at every
    scale.

    Beside them over (model, scale): ``clipped``, the share of values at 0 or 255; ``confidence``,
    the mean probability that the judge gives to what it reads (nan without a judge that knows the
    prompt); ``saturated``, where against scale 0 the first rose by more than ``CLIPPED`` or the
    second fell by more than ``UNSURE``. Scale 0 is added where it is not among the scales. The
    pipelines are left without the slider.

    Raises ValueError for a file that is no slider of one of the models
    (:func:`xhat.zoo.lora.loading.load_slider`)."""
    every = sorted({0.0, *scales})
    images = []
    with _with_slider(pipes.values(), path) as name:
        for pipe in pipes.values():
            for scale in every:
                with sliding(pipe, {name: scale}):
                    images.append(_sample(pipe, prompt, seeds, call))
    shape = (len(pipes), len(every), *images[0].shape)
    data = xr.Dataset(
        {
            "images": (
                ("model", "scale", "seed", "row", "col", "rgb"),
                np.stack(images).reshape(shape),
            )
        },
        coords={"model": list(pipes), "scale": every, "seed": list(seeds)},
        attrs={"prompt": prompt, "slider": Path(path).stem},
    )
    return with_flags(data, judge)


def with_flags(data: xr.Dataset, judge: Judge | None) -> xr.Dataset:
    """The grid with ``clipped``, ``confidence`` and ``saturated`` over (model, scale)."""
    images = data["images"]
    clipped = ((images == 0) | (images == 255)).mean(("seed", "row", "col", "rgb"))
    scene = parse_prompt(str(data.attrs["prompt"]))
    confidence = xr.full_like(clipped, np.nan)
    if judge is not None and scene is not None:
        for model in data["model"].values:
            for scale in data["scale"].values:
                read = judge.read(images.sel(model=model, scale=scale).values, scene.kind)
                confidence.loc[{"model": model, "scale": scale}] = np.mean(
                    [read.kind_confidence, *read.confidence.values()]
                )
    broken = clipped - clipped.sel(scale=0.0) > CLIPPED
    unsure = confidence.sel(scale=0.0) - confidence > UNSURE
    return data.assign(clipped=clipped, confidence=confidence, saturated=broken | unsure)


@contextmanager
def _with_slider(pipes: Any, path: Path) -> Iterator[str]:
    """The slider loaded into every network of the pipelines, those that hybrids share once, and
    taken out after.
    """
    loaded, name = [], "grid"
    try:
        for pipe in pipes:
            if any(name not in sliders_in(network) for network in parts_of(denoiser_of(pipe))):
                load_slider(pipe, path, name)
                loaded.append(pipe)
        yield name
    finally:
        for pipe in loaded:
            if name in scales_of(
                pipe
            ):  # a hybrid shares its networks with the models it is made of
                remove(pipe, name)


def _sample(pipe: Any, prompt: str, seeds: Sequence[int], call: Mapping[str, Any]) -> np.ndarray:
    generators = [torch.Generator("cpu").manual_seed(int(s)) for s in seeds]
    with quiet(pipe):
        made = pipe(
            prompt=prompt,
            num_images_per_prompt=len(seeds),
            generator=generators,
            output_type="np",
            **with_defaults(pipe, call),
        )
    return (np.asarray(made.images) * 255).round().astype(np.uint8)
