"""LoRAs: reading any file, putting one into a network, scales, and the training of sliders."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "load_slider": "xhat.zoo.lora.loading",
    "UnusableLora": "xhat.zoo.lora.loading",
    "remove": "xhat.zoo.lora.loading",
    "scales_of": "xhat.zoo.lora.loading",
    "set_scales": "xhat.zoo.lora.loading",
    "sliding": "xhat.zoo.lora.loading",
    "Factors": "xhat.hooks.factors",
    "read_lora": "xhat.zoo.lora.files",
    "train_slider": "xhat.zoo.lora.slider",
    "save_lora": "xhat.zoo.lora.slider",
    "train_lora": "xhat.zoo.lora.training",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
