"""LoRAs in a pipeline's networks: loading one from any file, setting the scales of those that are
loaded.

A slider is a LoRA whose scale is turned, below zero as well as above. A scale of 0 takes its layers
out of the computation: not a bit of the pipeline's pictures changes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from xhat.hooks.naming import nearest
from xhat.hooks.points.names import denoiser_of, parts_of
from xhat.zoo.lora.files import fitted, read_lora
from xhat.zoo.lora.injection import fill, inject, lora_layers, names_in, take_out


class UnusableLora(ValueError):
    """A file that is no LoRA, or does not fit the network it is meant for."""


def load_slider(pipe: Any, path: str | Path, name: str | None = None, *, scale: float = 0.0) -> str:
    """Load a slider or any other LoRA from a file into every network of a pipeline, and return its
    name there.

    Keys of diffusers, PEFT and Kohya are read, from ``.safetensors`` or from ``.pt`` without
    running what is in it. The name is the file's where none is given. It starts at ``scale``: at 0,
    nothing changes until :func:`sliding` or :func:`set_scales` turns it. In a hybrid, networks that
    have the slider already keep it.

    Raises :class:`UnusableLora` for a file that is no LoRA or does not fit
    (:mod:`xhat.zoo.lora.files`), and ValueError for a name in use."""
    name = _name_from(Path(path)) if name is None else name
    parts = [part for part in _networks(pipe) if name not in names_in(part)]
    if not parts:
        raise ValueError(
            f"a LoRA {name!r} is loaded already: give this one another name, or remove that one "
            "first"
        )
    if "." in name or _means_something(name):
        raise ValueError(
            f"{name!r} cannot name a LoRA: it means something to torch. Give another name"
        )
    try:
        file = read_lora(path)
        every = [fitted(file, part) for part in parts]  # all checked before any is changed
    except ValueError as error:
        raise UnusableLora(str(error)) from error
    if file.text:
        warnings.warn(
            f"{path}: {file.text} keys adapt a text encoder and are left out", stacklevel=2
        )
    for part, layers in zip(parts, every, strict=True):
        inject(part, name, {layer: len(a) for layer, (a, _) in layers.items()})
        fill(part, name, layers)
    set_scales(pipe, {name: scale})
    return name


def _name_from(path: Path) -> str:
    name = re.sub(r"\W+", "_", path.stem)
    return f"{name}_lora" if _means_something(name) else name


def _means_something(name: str) -> bool:
    """Whether a module cannot be called that in torch: ``train``, ``half``, …"""
    return hasattr(nn.ModuleDict(), name)


def scales_of(pipe: Any) -> dict[str, float]:
    """name → scale of every LoRA that is loaded, 0 for those that are switched off."""
    found: dict[str, float] = {}
    for layer in _layers(pipe):
        for name in layer.scaling:
            scale = (
                layer.scaling[name] / _unit(layer, name) if name in layer.active_adapters else 0.0
            )
            found[name] = max(found.get(name, 0.0), scale, key=abs)
    return found


def set_scales(pipe: Any, scales: Mapping[str, float]) -> None:
    """Set the scales of loaded LoRAs, in every network of the pipeline that has them; others stay
    as they are.

    The layers compute W·x + Σ s·B·A·x, with s the scale. Raises ValueError for a name that is not
    loaded."""
    check_names(pipe, scales)
    for layer in _layers(pipe):
        mine = {name: float(scale) for name, scale in scales.items() if name in layer.scaling}
        if not mine:
            continue
        for name, scale in mine.items():
            layer.set_scale(name, scale)
        active = [name for name in layer.active_adapters if mine.get(name, 1.0) != 0]
        active += [name for name, scale in mine.items() if scale != 0 and name not in active]
        if active != layer.active_adapters:
            layer.set_adapter(active, inference_mode=True)


@contextmanager
def sliding(pipe: Any, scales: Mapping[str, float]) -> Iterator[Any]:
    """Within the block the named LoRAs have these scales, then those they had before. Works on
    hybrids too.

    >>> with sliding(pipe, {"horns": 1.5}):  # doctest: +SKIP
    ...     pipe("a critter")
    """
    before = [(layer, list(layer.active_adapters), dict(layer.scaling)) for layer in _layers(pipe)]
    try:
        set_scales(pipe, scales)
        yield pipe
    finally:
        for layer, active, scaling in before:
            layer.scaling.update(scaling)
            layer.set_adapter(active, inference_mode=True)


def remove(pipe: Any, name: str) -> None:
    """Take a LoRA out of every network of the pipeline; with the last one, the layers are the plain
    ones again.
    """
    check_names(pipe, [name])
    for part in _networks(pipe):
        if name in names_in(part):
            take_out(part, name)


def check_names(pipe: Any, names: Mapping[str, float] | Sequence[str]) -> None:
    """Raises ValueError for a LoRA that is not loaded, with the nearest that are."""
    there = sorted({name for layer in _layers(pipe) for name in layer.scaling})
    for name in names:
        if name not in there:
            near = nearest(name, there)
            hint = f"did you mean {near[0]!r}?" if near else f"loaded: {', '.join(there) or 'none'}"
            raise ValueError(f"no LoRA {name!r} is loaded; {hint}")


def _networks(pipe: Any) -> list[Any]:
    return list(parts_of(denoiser_of(pipe)))


def _layers(pipe: Any) -> list[Any]:
    """Every layer that has a LoRA, in every network of the pipeline."""
    return [layer for network in _networks(pipe) for layer in lora_layers(network)]


def _unit(layer: Any, name: str) -> float:
    """What B·A is multiplied by at scale 1."""
    return layer.lora_alpha[name] / layer.r[name]
