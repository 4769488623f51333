"""LoRA layers put into a network and taken out again, by PEFT itself.

Every network of linear and convolution layers will do: some of diffusers' own (PixArt's
transformer) lack the methods that load LoRAs. What is taken out leaves the very modules that were
there before."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from xhat.hooks.adapters import lora_layers
from xhat.hooks.factors import Factors


def inject(network: nn.Module, name: str, ranks: Mapping[str, int], seed: int = 0) -> None:
    """A fresh LoRA: in each layer of ``ranks`` W·x + B·A·x, A random, B = 0. Other adapters stay on
    or off.
    """
    from peft import LoraConfig, inject_adapter_in_model

    usual = Counter(ranks.values()).most_common(1)[0][0]
    other = {f"^{re.escape(layer)}": rank for layer, rank in ranks.items() if rank != usual}
    config = LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=other,
        alpha_pattern=dict(other),
        target_modules="|".join(re.escape(layer) for layer in ranks),
    )
    before = [(layer, list(layer.active_adapters)) for layer in lora_layers(network)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, network, adapter_name=name)
    for layer, active in before:
        layer.set_adapter(
            [*active, *([name] if name in layer.scaling else [])], inference_mode=True
        )
    _tell_diffusers(network, True)


def set_factors(network: nn.Module, name: str, layers: Mapping[str, Factors]) -> None:
    """Give an injected LoRA its factors, in the precision of the layers that they adapt."""
    for path, factors in layers.items():
        layer: Any = network.get_submodule(path)
        like = layer.base_layer.weight
        for half, value in zip(_halves(layer, name), factors.layers(), strict=True):
            half.data = value.to(like).clone()
            half.requires_grad_(False)


def injected(network: nn.Module, name: str) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """layer → (up, down), the parameters of a LoRA in the network."""
    return {
        path: _halves(layer, name)
        for path, layer in network.named_modules()
        if name in getattr(layer, "lora_A", {})
    }


def _halves(layer: Any, name: str) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.lora_B[name].weight, layer.lora_A[name].weight


def take_out(network: Any, name: str) -> None:
    """Remove a LoRA; with the last one, the layers are the plain ones that were there before."""
    for layer in lora_layers(network):
        if name in layer.scaling:
            active = [other for other in layer.active_adapters if other != name]
            layer.delete_adapter(name)
            layer.set_adapter(
                active, inference_mode=True
            )  # peft would switch on another in its place
    network.peft_config.pop(name)
    if network.peft_config:
        return
    del network.peft_config
    for path, layer in list(network.named_modules()):
        if hasattr(layer, "base_layer") and hasattr(layer, "lora_A"):
            network.set_submodule(path, layer.base_layer)
    _tell_diffusers(network, False)


def sliders_in(network: nn.Module) -> list[str]:
    """The LoRAs that a network has."""
    return list(getattr(network, "peft_config", None) or {})


def _tell_diffusers(network: Any, loaded: bool) -> None:
    if hasattr(network, "_hf_peft_config_loaded"):
        network._hf_peft_config_loaded = loaded
