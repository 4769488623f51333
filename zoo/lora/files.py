"""LoRA files of every make, read as pairs of factors a layer: diffusers and PEFT keys, Kohya's, old
and new.

Nothing in a file is run: ``.safetensors`` holds tensors alone, and ``.pt`` is read with
``weights_only=True``. What is adapted is found in the model itself, so a key that fits nowhere, or
a factor of another shape, is told before loading."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

Factors = tuple[torch.Tensor, torch.Tensor]
"""(A, B) of ΔW = B·A: A (rank, in, …), B (out, rank, …), alpha/rank multiplied into B."""

_PREFIXES = (
    "unet.",
    "transformer.",
    "diffusion_model.",
    "base_model.model.",
    "model.",
    "lora_unet_",
    "lora_transformer_",
)
_TEXT = ("text_encoder", "lora_te", "text_model", "te1_", "te2_")
_ROLES = {
    r"\.lora_A(\.\w+)?\.weight": "down",
    r"\.lora_B(\.\w+)?\.weight": "up",
    r"\.lora_down\.weight": "down",
    r"\.lora_up\.weight": "up",
    r"\.lora\.down\.weight": "down",
    r"\.lora\.up\.weight": "up",
    r"_lora\.down\.weight": "down",
    r"_lora\.up\.weight": "up",
    r"\.lora_linear_layer\.down\.weight": "down",
    r"\.lora_linear_layer\.up\.weight": "up",
    r"\.alpha": "alpha",
}
_ROLE = re.compile(
    "|".join(f"(?P<{role}{i}>{ending})" for i, (ending, role) in enumerate(_ROLES.items())) + "$"
)
_OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "lora_mid": "a Tucker-decomposed LoRA",
}


@dataclass(frozen=True)
class LoraFile:
    """``layers``: layer as the file names it → its parts (``down``, ``up``, ``alpha``). ``notes``:
    what the file says of itself. ``text``: how many keys adapt a text encoder; they are not
    read."""

    path: Path
    layers: Mapping[str, Mapping[str, torch.Tensor]]
    notes: Mapping[str, str] = field(default_factory=dict)
    text: int = 0


def read_lora(path: str | Path) -> LoraFile:
    """Read a LoRA file, ``.safetensors`` or ``.pt``/``.bin``/``.ckpt``/``.pth``.

    Raises ValueError for a file that is not there, holds code, is a full checkpoint, holds no LoRA,
    or one of a kind that is not supported, or a factor without its partner."""
    path = Path(path)
    tensors, notes = _tensors(path)
    kept = {key: value for key, value in tensors.items() if not key.startswith(_TEXT)}
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in kept.items():
        found = _ROLE.search(key)
        if found:
            role = re.sub(r"\d", "", str(found.lastgroup))
            layers.setdefault(_layer_of(key[: found.start()]), {})[role] = value
    _check_is_lora(path, kept, layers, len(tensors) - len(kept))
    for name, parts in layers.items():
        _check_partners(path, name, parts)
    return LoraFile(path, layers, notes, len(tensors) - len(kept))


def _tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"no LoRA file {path}: expected a .safetensors or .pt file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()  # safe_open is no mapping: it cannot be iterated over itself
                return {n: file.get_tensor(n) for n in names}, dict(file.metadata() or {})
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported" not in str(
            error
        ):  # of an unsupported class, function or operand: code, that is
            raise ValueError(f"{path} is no torch file: it could not be unpickled") from None
        raise ValueError(
            f"{path} is refused: it is a pickle that holds more than tensors, and loading it "
            "could run code. Ask for the file as .safetensors"
        ) from None
    except (RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} could not be read as a torch file: {error}") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(
        isinstance(v, torch.Tensor) for v in loaded.values()
    ):
        raise ValueError(
            f"{path} holds no state dict: expected names and tensors, got {type(loaded).__name__}"
        )
    return loaded, {}


def _layer_of(stem: str) -> str:
    """A layer's name without what tools put before it.

    >>> _layer_of("unet.mid_block.attn1.to_q"), _layer_of("lora_unet_mid_block_attn1_to_q")
    ('mid_block.attn1.to_q', 'mid_block_attn1_to_q')
    >>> _layer_of("unet.mid_block.attn1.processor.to_out")
    'mid_block.attn1.to_out.0'
    """
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    if (
        ".processor." in stem
    ):  # diffusers' first format: the projection is named behind its processor
        stem = re.sub(r"to_out$", "to_out.0", stem.replace(".processor.", "."))
    return stem


def _check_is_lora(
    path: Path, tensors: Mapping[str, Any], layers: Mapping[str, Any], text: int
) -> None:
    for mark, kind in _OTHER_KINDS.items():
        hits = [key for key in tensors if mark in key]
        if hits:
            raise ValueError(
                f"{path} is {kind}, which is not supported (key {hits[0]!r}): expected a plain LoRA"
            )
    if layers:
        return
    if text and not tensors:
        raise ValueError(
            f"{path} adapts a text encoder alone ({text} keys): a slider adapts the unet or "
            "transformer"
        )
    example = ", ".join(repr(key) for key in list(tensors)[:2]) or "none"
    if any(key.endswith((".weight", ".bias")) for key in tensors):
        raise ValueError(
            f"{path} is a full checkpoint, not a LoRA: {len(tensors)} tensors under keys such as "
            f"{example}. Load it as a model"
        )
    raise ValueError(f"{path} holds no LoRA weights: its keys are {example}")


def _check_partners(path: Path, name: str, parts: Mapping[str, torch.Tensor]) -> None:
    missing = {"down", "up"} - set(parts)
    if missing:
        raise ValueError(f"{path}: layer {name!r} has no {' and no '.join(sorted(missing))} factor")
    a, b = parts["down"], parts["up"]
    if a.ndim < 2 or b.ndim < 2 or a.shape[0] != b.shape[1]:
        raise ValueError(
            f"{path}: the ranks of layer {name!r} differ: down {tuple(a.shape)} has {a.shape[0]}, "
            f"up {tuple(b.shape)} has {b.shape[1] if b.ndim > 1 else 'none'}"
        )


def fitted(file: LoraFile, network: nn.Module) -> dict[str, Factors]:
    """Layer of ``network`` → (A, B). Kohya's names, with ``_`` for every dot, are looked up among
    the network's own.

    Raises ValueError for a file that fits no layer or not all of them, naming keys and the family
    it looks made for, and for factors of another shape than the layer they adapt."""
    own = {
        name.replace(".base_layer", ""): module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and "lora_" not in name
    }
    flat = {name.replace(".", "_"): name for name in own}
    found: dict[str, Factors] = {}
    lost = []
    for name, parts in file.layers.items():
        target = name if name in own else flat.get(name.replace(".", "_"))
        if target is None:
            lost.append(name)
        else:
            found[target] = _factors(file, target, parts, own[target])
    if lost:
        share = "no layer" if not found else f"only {len(found)} of its {len(file.layers)} layers"
        raise ValueError(
            f"{file.path} fits {share} of this {type(network).__name__}: there is no {lost[0]!r}"
            + (f", nor {len(lost) - 1} others" if len(lost) > 1 else "")
            + f". {family(file)}"
        )
    return found


def _factors(
    file: LoraFile, target: str, parts: Mapping[str, torch.Tensor], layer: nn.Module
) -> Factors:
    a, b = parts["down"].float(), parts["up"].float()
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if weight.ndim == 2:  # some tools keep linear layers as 1 × 1 convolutions
        a, b = a.flatten(1), b.flatten(1)
    elif a.ndim == 2:
        a, b = a[:, :, None, None], b[:, :, None, None]
    if a.shape[1:] != weight.shape[1:] or b.shape[0] != weight.shape[0]:
        raise ValueError(
            f"{file.path} does not fit {target!r}: the layer is {tuple(weight.shape)}, the "
            f"factors are {tuple(a.shape)} and {tuple(b.shape)}. {family(file)}"
        )
    return a, b * strength(file, target, parts, len(a))


def strength(file: LoraFile, target: str, parts: Mapping[str, torch.Tensor], rank: int) -> float:
    """alpha/rank: of the file's ``alpha`` keys, or of the settings that newer diffusers writes
    beside the weights.
    """
    if "alpha" in parts:
        return float(parts["alpha"]) / rank
    settings = json.loads(file.notes.get("lora_adapter_metadata", "{}"))
    for slot in ("unet", "transformer"):
        alpha = settings.get(f"{slot}.alpha_pattern", {}).get(
            target, settings.get(f"{slot}.lora_alpha")
        )
        if alpha is not None:
            return float(alpha) / (rank**0.5 if settings.get(f"{slot}.use_rslora") else rank)
    return 1.0


_WIDTHS = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL", 1152: "PixArt"}


def family(file: LoraFile) -> str:
    """Which family of models a LoRA looks made for, in a sentence, from the names of its layers and
    their widths.
    """
    names = " ".join(name.replace(".", "_") for name in file.layers)
    guess = None
    if any(
        mark in names for mark in ("single_transformer_blocks", "single_blocks", "double_blocks")
    ):
        guess = "FLUX"
    elif "joint_blocks" in names or ("transformer_blocks" in names and "add_k_proj" in names):
        guess = "SD 3"
    else:
        for name, parts in file.layers.items():
            if re.search(
                r"attn2[._]to_[kv]$", name
            ):  # reads the prompt: its width is the text encoder's
                guess = _WIDTHS.get(parts["down"].shape[1])
                break
    return (
        f"It looks made for {guess}"
        if guess
        else "The family it was made for is not known from its keys"
    )
