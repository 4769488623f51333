"""A network under adapters of its own for as long as a call lasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from xhat.hooks.adapters import adapted, check_loaded, lora_layers
from xhat.samplers.composite.facade import Facade


class Adapted(Facade):
    """A network in whose calls these LoRAs alone are on, at these scales.

    Outside of a call it is as its pipeline has it: a base and its student, which are one copy of
    the weights without and with a LoRA, take turns in a plan. Raises ValueError for a LoRA that is
    not loaded."""

    def __init__(self, network: nn.Module, adapters: Mapping[str, float]) -> None:
        super().__init__()
        check_loaded(lora_layers(network), adapters)
        self.network, self.adapters = network, dict(adapters)

    def front(self) -> nn.Module:
        return self.network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with adapted(self.network, self.adapters):
            return self.network(*args, **kwargs)
