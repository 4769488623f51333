"""Layers of a UNet as the original code numbers its blocks, which Kohya's and ComfyUI's LoRAs keep:
``input_blocks_4_1_…`` is diffusers' ``down_blocks_1_attentions_0_…``.
"""

from __future__ import annotations

import re
from typing import Any

_NUMBERED = re.compile(r"(input|output)_blocks_(\d+)_(\d+)_(\w+)$")
_MIDDLE = re.compile(r"middle_block_(\d+)_(\w+)$")
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}


def diffusers_name(name: str, layers: int = 2) -> str | None:
    """A layer's name in diffusers, with ``_`` for every dot; None for a name that numbers no block.

    ``layers``: resnets of a block on the way down; on the way up there is one more.

    >>> diffusers_name("input_blocks_4_1_transformer_blocks_0_attn1_to_q")
    'down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q'
    >>> diffusers_name("output_blocks_5_2_conv"), diffusers_name("middle_block_2_in_layers_2")
    ('up_blocks_1_upsamplers_0_conv', 'mid_block_resnets_1_conv1')
    >>> diffusers_name("down_blocks_1_attentions_0_proj_in") is None
    True
    """
    name = name.replace(".", "_")
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    middle = _MIDDLE.match(name)
    if middle:
        number, rest = int(middle[1]), middle[2]
        if number == 1:
            return f"mid_block_attentions_0_{rest}"
        return f"mid_block_resnets_{number // 2}_{_RESNET.get(rest, rest)}"
    numbered = _NUMBERED.match(name)
    if not numbered:
        return None
    down, rest = numbered[1] == "input", numbered[4]
    number, inner = int(numbered[2]), int(numbered[3])
    block, layer = divmod(number - down, layers + 1)
    stem = f"{'down' if down else 'up'}_blocks_{block}"
    if rest in ("op", "conv"):
        return f"{stem}_{'downsamplers' if down else 'upsamplers'}_0_conv"
    if inner == 0:
        return f"{stem}_resnets_{layer}_{_RESNET.get(rest, rest)}"
    return f"{stem}_attentions_{layer}_{rest}"


def layers_per_block(network: Any) -> int:
    """Resnets of a block on a network's way down."""
    layers = getattr(getattr(network, "config", None), "layers_per_block", 2)
    return int(layers if isinstance(layers, int) else layers[0])
