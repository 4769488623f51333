"""A LoRA's layers looked up in the network they are for: under any names, with every shape checked
before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from xhat.hooks.factors import Factors
from xhat.zoo.lora.blocks import diffusers_name, layers_per_block
from xhat.zoo.lora.files import LoraFile


def fit_factors(file: LoraFile, network: nn.Module) -> dict[str, Factors]:
    """Layer of ``network`` → its factors.

    Kohya's names, with ``_`` for every dot, are looked up among the network's own, as diffusers and
    as the original code call them.

    Raises
    ------
    ValueError
        For a file that fits no layer or not all of them, naming keys and the family it looks made
        for, for factors of another shape than the layer they adapt, and for numbers that are not
        finite in the precision of the layer.
    """
    layers = {
        name.replace(".base_layer", ""): module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and "lora_" not in name
    }
    flat = {name.replace(".", "_"): name for name in layers}
    fits: dict[str, Factors] = {}
    lost = []
    for name, parts in file.layers.items():
        target = next((flat[alias] for alias in _aliases(name, network) if alias in flat), None)
        if target is None:
            lost.append(name)
        elif target in fits:
            raise ValueError(f"{file.path} adapts {target!r} twice, under two names: {name!r}")
        else:
            fits[target] = _shaped(file, target, parts, layers[target])
    if lost:
        share = "no layer" if not fits else f"only {len(fits)} of its {len(file.layers)} layers"
        raise ValueError(
            f"{file.path} fits {share} of this {type(network).__name__}: there is no {lost[0]!r}"
            + (f", nor {len(lost) - 1} others" if len(lost) > 1 else "")
            + f". {family(file)}"
        )
    return fits


_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def _aliases(name: str, network: nn.Module) -> Iterator[str]:
    """What a layer may be called in the network, with ``_`` for every dot: as it is, by the
    original code's numbers of blocks, and as old and new versions of transformers name CLIP's.
    """
    flat = name.replace(".", "_")
    yield flat
    numbered = diffusers_name(name, layers_per_block(network))
    if numbered is not None:
        yield numbered
    stem, _, last = flat.rpartition("_self_attn_")
    if stem and last in _ATTENTION:
        flat = f"{stem}_self_attn_{_ATTENTION[last]}"
    yield from (flat, flat.removeprefix("text_model_"), f"text_model_{flat}")


def _shaped(
    file: LoraFile, target: str, parts: Mapping[str, torch.Tensor], layer: nn.Module
) -> Factors:
    """The factors of a layer of the network; some tools keep linear layers as 1 × 1
    convolutions.
    """
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    factors = factors_of(file, target, parts)
    down, up = parts["down"], parts["up"]
    if weight.ndim == 2:
        shape: tuple[int, ...] = (factors.down.shape[1],)
    else:
        shape = tuple(down.shape[1:]) if down.ndim == 4 else (factors.down.shape[1], 1, 1)
    if shape != weight.shape[1:] or factors.up.shape != (weight.shape[0], factors.rank):
        raise ValueError(
            f"{file.path} does not fit {target!r}: the layer is {tuple(weight.shape)}, the "
            f"factors are {tuple(down.shape)} and {tuple(up.shape)}. {family(file)}"
        )
    if weight.dtype.is_floating_point and not all(
        half.to(weight.dtype).isfinite().all() for half in (factors.up, factors.down)
    ):
        raise ValueError(
            f"{file.path}: factors of {target!r} are too large for its precision, {weight.dtype}: "
            "load the pipeline in float32"
        )
    return replace(factors, kernel=None if weight.ndim == 2 else tuple(weight.shape[1:]))


def factors_of(file: LoraFile, layer: str, parts: Mapping[str, torch.Tensor]) -> Factors:
    """The factors of a layer as the file has them, alpha/rank in the upper one.

    Raises ValueError for numbers that are not finite."""
    down, up = parts["down"].float(), parts["up"].float()
    scale = _strength(file, layer, parts)
    if not (math.isfinite(scale) and down.isfinite().all() and up.isfinite().all()):
        raise ValueError(
            f"{file.path} holds numbers that are not finite: factors of {layer!r}, with alpha/rank "
            f"{scale:g}. The file is damaged, or its training diverged"
        )
    kernel = tuple(down.shape[1:]) if down.ndim == 4 else None
    return Factors(up.flatten(1) * scale, down.flatten(1), kernel)


def _strength(file: LoraFile, layer: str, parts: Mapping[str, torch.Tensor]) -> float:
    """alpha/rank: of the file's ``alpha`` keys, or of the settings that PEFT and newer diffusers
    write beside the weights.
    """
    rank = len(parts["down"])
    if "alpha" not in parts:
        return file.settings.strength(layer, rank)
    alpha = parts["alpha"]
    if alpha.numel() != 1:
        raise ValueError(
            f"{file.path}: alpha of {layer!r} has shape {tuple(alpha.shape)}, expected one number"
        )
    return float(alpha) / rank


_WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL", 1152: "PixArt"}


def family(file: LoraFile) -> str:
    """Which family of models a LoRA looks made for, in a sentence, from the names of its layers and
    their widths.
    """
    names = " ".join(name.replace(".", "_") for name in file.layers)
    guess = None
    if re.search("single_transformer_blocks|single_blocks|double_blocks", names):
        guess = "FLUX"
    elif "joint_blocks" in names or ("transformer_blocks" in names and "add_k_proj" in names):
        guess = "SD 3"
    else:
        for name, parts in file.layers.items():
            if re.search(r"attn2[._]to_[kv]$", name):  # its width is the text encoder's
                guess = _WIDTHS.get(parts["down"].shape[1])
                break
    if guess is None:
        return "The family it was made for is not known from its keys"
    return f"It looks made for {guess}"
