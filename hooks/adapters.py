"""The LoRAs in a network's layers, as PEFT keeps them: which are on, and at what scale.

A layer computes W·x + Σ s·B·A·x over those that are on, with s the scale and alpha/rank in B."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from xhat.hooks.naming import suggestion


def lora_layers(network: nn.Module) -> list[Any]:
    """The layers of a network that have a LoRA."""
    from peft.tuners.lora import LoraLayer

    return [module for module in network.modules() if isinstance(module, LoraLayer)]


def check_loaded(layers: Sequence[Any], names: Iterable[str]) -> None:
    """Raises ValueError for a LoRA that none of the layers has, with the nearest that they have."""
    there = sorted({name for layer in layers for name in layer.scaling})
    for name in names:
        if name not in there:
            hint = suggestion(name, there) or f"; loaded: {', '.join(there) or 'none'}"
            raise ValueError(f"no LoRA {name!r} is loaded{hint}")


def check_effective(layers: Sequence[Any], names: Iterable[str]) -> None:
    """Raises ValueError where LoRAs are part of the weights, or all switched off: no scale has any
    effect then.
    """
    fused = sorted({name for layer in layers for name in layer.merged_adapters})
    asked = ", ".join(map(repr, names)) or "any other"
    if fused:
        raise ValueError(
            f"{', '.join(map(repr, fused))} is fused into the weights, and while it is, no scale "
            f"of {asked} has any effect: call pipe.unfuse_lora() first"
        )
    if any(layer.disable_adapters for layer in layers):
        raise ValueError(
            f"LoRAs are switched off in this pipeline, and while they are, no scale of {asked} has "
            "any effect: call pipe.enable_lora() first"
        )


def set_layer(layer: Any, scales: Mapping[str, float]) -> None:
    """Set scales of a layer's LoRAs; 0 switches one off. Others stay as they are."""
    mine = {name: float(scale) for name, scale in scales.items() if name in layer.scaling}
    for name, scale in mine.items():
        layer.set_scale(name, scale)
    active = [name for name in layer.active_adapters if mine.get(name, 1.0) != 0]
    active += [name for name, scale in mine.items() if scale != 0 and name not in active]
    _switch(layer, active)


@contextmanager
def put_back(layers: Sequence[Any]) -> Iterator[None]:
    """After the block, also after an error in it, the layers' LoRAs are on and at the scales that
    they were before; those removed in it stay removed.
    """
    before = [(layer, list(layer.active_adapters), dict(layer.scaling)) for layer in layers]
    try:
        yield
    finally:
        for layer, active, scaling in before:
            layer.scaling.update({n: s for n, s in scaling.items() if n in layer.scaling})
            _switch(layer, [name for name in active if name in layer.scaling])


@contextmanager
def adapted(network: nn.Module, adapters: Mapping[str, float]) -> Iterator[None]:
    """Within the block these LoRAs alone are on in a network, at these scales: in ``peft``'s words
    its adapters, each with its weight.

    Raises
    ------
    ValueError
        For one that is not loaded, while LoRAs are fused, and while they are switched off.
    """
    layers = lora_layers(network)
    check_loaded(layers, adapters)
    check_effective(layers, adapters)
    with put_back(layers):
        for layer in layers:
            _switch(layer, [])
            set_layer(layer, adapters)
        yield


def _switch(layer: Any, active: list[str]) -> None:
    # peft's set_adapter would change which weights are trained, too
    if active != layer.active_adapters:
        layer._active_adapter = active
