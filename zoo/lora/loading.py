"""LoRAs in a pipeline's networks: loading one from any file, setting the scales of those that are
loaded.

A slider is a LoRA whose scale is turned, below zero as well as above. A scale of 0 takes its layers
out of the computation: not a bit of the pipeline's pictures changes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xhat.hooks.adapters import check_effective, check_loaded, lora_layers, put_back, set_layer
from xhat.hooks.factors import Factors
from xhat.hooks.points.names import denoiser_of, parts_of
from xhat.zoo.lora.files import LoraFile, read_lora
from xhat.zoo.lora.fitting import fit_factors
from xhat.zoo.lora.injection import inject, injected, set_factors, sliders_in, take_out
from xhat.zoo.lora.shipped import file_of

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class UnusableLora(ValueError):
    """A file that is no LoRA, or does not fit the network it is meant for."""


def load_slider(pipe: Any, path: str | Path, name: str | None = None, *, scale: float = 0.0) -> str:
    """Load a slider or any other LoRA into every network of a pipeline, and return its name there.

    Keys of diffusers, PEFT and Kohya are read, from ``.safetensors`` or from ``.pt`` without
    running what is in it; those of text encoders too. Networks that have this LoRA by this name
    already keep it, so that base, student and a hybrid of both may be given it in turn.

    Parameters
    ----------
    pipe
        Any pipeline, a hybrid too.
    path
        A file, a folder of PEFT's, or the name of a slider that is shipped (``"square"``).
    name
        What to call it; the name of the file where none is given.
    scale
        What it starts at. At 0, nothing changes until :func:`sliding` or :func:`set_scales` turns
        it.

    Raises
    ------
    UnusableLora
        For a file that is no LoRA or does not fit (:mod:`xhat.zoo.lora.files`).
    ValueError
        For a name that another LoRA has, and while LoRAs are fused or switched off.
    """
    path = file_of(str(path))
    name = _name_from(path) if name is None else name
    if not name or "." in name or _means_something(name):
        raise ValueError(
            f"{name!r} cannot name a LoRA: it means something to torch. Give another name"
        )
    _check_finite({name: scale})
    check_effective(_layers(pipe), [name])
    try:
        file = read_lora(path)
        every = [
            (network, fit_factors(theirs, network)) for network, theirs in _networks_for(pipe, file)
        ]  # all checked before any is changed
    except ValueError as error:
        raise UnusableLora(str(error)) from error
    for network, layers in every:
        if name in sliders_in(network):
            _check_same(network, name, layers)
    for network, layers in every:
        if name not in sliders_in(network):
            inject(network, name, {layer: factors.rank for layer, factors in layers.items()})
            set_factors(network, name, layers)
    set_scales(pipe, {name: scale})
    return name


def _networks_for(pipe: Any, file: LoraFile) -> Iterator[tuple[Any, LoraFile]]:
    """The networks of a pipeline that a file adapts, each with what the file holds for it."""
    for part in parts_of(denoiser_of(pipe)):
        yield part, file
    for slot, theirs in file.text.items():
        encoder = getattr(pipe, slot, None)
        if encoder is None:
            raise ValueError(
                f"{file.path} adapts {slot}, which this {type(pipe).__name__} has not, in "
                f"{len(theirs.layers)} layers such as {next(iter(theirs.layers))!r}"
            )
        yield encoder, theirs


def _check_same(network: Any, name: str, layers: Mapping[str, Factors]) -> None:
    """Raises ValueError unless the LoRA that a network has by this name has these factors."""
    there = injected(network, name)
    same = there.keys() == layers.keys() and all(
        torch.equal(half, value.to(half))
        for layer, factors in layers.items()
        for half, value in zip(there[layer], factors.layers(), strict=True)
    )
    if not same:
        raise ValueError(
            f"another LoRA is loaded as {name!r} already: give this one another name, or remove "
            "that one first"
        )


def _name_from(path: Path) -> str:
    name = re.sub(r"\W+", "_", path.stem)
    return f"{name}_lora" if _means_something(name) else name


def _means_something(name: str) -> bool:
    """Whether a module cannot be called that in torch: ``train``, ``half``, …"""
    return hasattr(nn.ModuleDict(), name)


def scales_of(pipe: Any) -> dict[str, float]:
    """name → scale of every LoRA that is loaded, 0 for those that are switched off."""
    scales: dict[str, float] = {}
    for layer in _layers(pipe):
        for name in layer.scaling:
            on = name in layer.active_adapters and not layer.disable_adapters
            scale = layer.scaling[name] / _unit(layer, name) if on else 0.0
            scales[name] = max(scales.get(name, 0.0), scale, key=abs)
    return scales


def set_scales(pipe: Any, scales: Mapping[str, float]) -> None:
    """Set the scales of loaded LoRAs, in every network of the pipeline that has them; others stay
    as they are.

    The layers compute W·x + Σ s·B·A·x, with s the scale.

    Raises
    ------
    ValueError
        For a name that is not loaded, a scale that is not finite, and while a LoRA is fused into
        the weights or LoRAs are switched off: no scale has any effect then.
    """
    check_names(pipe, scales)
    _check_finite(scales)
    check_effective(_layers(pipe), scales)
    for layer in _layers(pipe):
        set_layer(layer, scales)


@contextmanager
def sliding(pipe: Any, scales: Mapping[str, float]) -> Iterator[Any]:
    """Within the block the named LoRAs have these scales, then those they had before. Works on
    hybrids too.

    >>> with sliding(pipe, {"horns": 1.5}):  # doctest: +SKIP
    ...     pipe("a critter")
    """
    with put_back(_layers(pipe)):
        set_scales(pipe, scales)
        yield pipe


def remove(pipe: Any, name: str) -> None:
    """Take a LoRA out of every network of the pipeline; with the last one, the layers are the plain
    ones again.
    """
    check_names(pipe, [name])
    check_effective(_layers(pipe), [name])
    for network in _networks(pipe):
        if name in sliders_in(network):
            take_out(network, name)


def check_names(pipe: Any, names: Mapping[str, float] | Sequence[str]) -> None:
    """Raises ValueError for a LoRA that is not loaded, with the nearest that are."""
    check_loaded(_layers(pipe), names)


def _check_finite(scales: Mapping[str, float]) -> None:
    for name, scale in scales.items():
        if not math.isfinite(scale):
            raise ValueError(f"the scale of {name!r} is a finite number, got {scale!r}")


def _networks(pipe: Any) -> list[Any]:
    """Every network of a pipeline that a LoRA may be in."""
    encoders = [getattr(pipe, slot, None) for slot in TEXT_ENCODERS]
    return [*parts_of(denoiser_of(pipe)), *(e for e in encoders if e is not None)]


def _layers(pipe: Any) -> list[Any]:
    """Every layer that has a LoRA, in every network of the pipeline."""
    return [layer for network in _networks(pipe) for layer in lora_layers(network)]


def _unit(layer: Any, name: str) -> float:
    """What B·A is multiplied by at scale 1."""
    rank = layer.r[name]
    return float(layer.lora_alpha[name] / (rank**0.5 if layer.use_rslora.get(name) else rank))
