"""LoRA files of every make, read as pairs of factors a layer: diffusers and PEFT keys, Kohya's, old
and new; of the denoiser and of the text encoders.

Nothing in a file is run: ``.safetensors`` holds tensors alone, and ``.pt`` is read with
``weights_only=True``. Every key is read, or the file is refused by naming those that are not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from xhat.zoo.load.files import metadata, read_tensors, unpickled
from xhat.zoo.lora.settings import WEIGHTS, Settings, settings_of

Parts = Mapping[str, torch.Tensor]
"""``down``, ``up`` and, where the file has it, ``alpha`` of a layer."""

_PREFIXES = (
    "unet.",
    "transformer.",
    "diffusion_model.",
    "base_model.model.",
    "model.",
    "lora_unet_",
    "lora_transformer_",
)
_TEXT = re.compile(r"^(?:text_encoder_?|lora_te|te(?=\d))(?P<number>\d?)[._]")
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
_ENDINGS = "|".join(f"(?P<{role}{i}>{end})" for i, (end, role) in enumerate(_ROLES.items()))
_ROLE = re.compile(f"(?:{_ENDINGS})$")
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
    """A LoRA as its file has it.

    Parameters
    ----------
    path
        Where it was read.
    layers
        Layer as the file names it → its parts.
    settings
        alpha where no key gives it.
    text
        ``"text_encoder"``, ``"text_encoder_2"``, … → what the file holds for that encoder.
    """

    path: Path
    layers: Mapping[str, Parts]
    settings: Settings = field(default_factory=Settings)
    text: Mapping[str, LoraFile] = field(default_factory=dict)


def read_lora(path: str | Path) -> LoraFile:
    """Read a LoRA file, ``.safetensors`` or ``.pt``/``.bin``/``.ckpt``/``.pth``, or PEFT's folder
    of one.

    Raises
    ------
    ValueError
        For a file that is not there, holds code, is a full checkpoint, holds no LoRA, or one of a
        kind that is not supported, for a factor without its partner, and for keys that are not
        understood: their effect would be left out.
    """
    path = _weights_of(Path(path))
    tensors, notes = _tensors(path)
    by_network = _by_network(tensors)
    denoiser = by_network.pop("")
    layers, unread = _by_layer(path, denoiser)
    text = {slot: _by_layer(path, keys) for slot, keys in by_network.items()}
    _check_is_lora(path, tensors, denoiser, layers)
    _check_all_read(path, tensors, [*unread, *(key for _, keys in text.values() for key in keys)])
    for parts_of_layer in (layers, *(theirs for theirs, _ in text.values())):
        for name, parts in parts_of_layer.items():
            _check_partners(path, name, parts)
    encoders = {
        slot: LoraFile(path, theirs, settings_of(path, notes, (slot,)))
        for slot, (theirs, _) in text.items()
    }
    return LoraFile(path, layers, settings_of(path, notes), encoders)


def _by_network(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Text encoder → its keys; ``""``: those of the denoiser.

    >>> alpha = torch.ones(())
    >>> list(_by_network({"lora_te2_text_model.alpha": alpha, "conv.alpha": alpha}))
    ['', 'text_encoder_2']
    """
    by_network: dict[str, dict[str, torch.Tensor]] = {"": {}}
    for key, value in tensors.items():
        match = _TEXT.match(key)
        if match is None:
            by_network[""][key] = value
        else:
            number = match["number"]
            slot = "text_encoder" if number in ("", "1") else f"text_encoder_{number}"
            by_network.setdefault(slot, {})[key] = value
    return by_network


def _weights_of(path: Path) -> Path:
    """The file of weights where a folder is given."""
    there = [path / name for name in WEIGHTS if (path / name).is_file()]
    return there[0] if path.is_dir() and there else path


def _by_layer(
    path: Path, tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, dict[str, torch.Tensor]], list[str]]:
    """Layer → its parts, and the keys that are none. Raises ValueError for a part given twice."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    unread = []
    for key, value in tensors.items():
        match = _ROLE.search(key)
        if not match:
            unread.append(key)
            continue
        role = re.sub(r"\d", "", str(match.lastgroup))
        parts = layers.setdefault(_layer_of(key[: match.start()]), {})
        if role in parts:
            raise ValueError(f"{path} holds the same factor twice: {key!r} is the second")
        parts[role] = value
    return layers, unread


def _tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"no LoRA file {path}: expected a .safetensors or .pt file")
    if path.suffix == ".safetensors":
        return read_tensors(path), metadata(path)
    loaded = unpickled(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(
            f"{path} holds no state dict: expected names and tensors, got {type(loaded).__name__}"
        )
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor | float | int):
            raise ValueError(
                f"{path} holds no state dict: expected names and tensors, got "
                f"{type(value).__name__} under {key!r}"
            )
    return {key: torch.as_tensor(value) for key, value in loaded.items()}, {}


def _layer_of(stem: str) -> str:
    """A layer's name without what tools put before it.

    >>> _layer_of("unet.mid_block.attn1.to_q"), _layer_of("lora_unet_mid_block_attn1_to_q")
    ('mid_block.attn1.to_q', 'mid_block_attn1_to_q')
    >>> _layer_of("unet.mid_block.attn1.processor.to_out")
    'mid_block.attn1.to_out.0'
    """
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    stem = _TEXT.sub("", stem)
    if ".processor." in stem:  # diffusers' first format, the projection behind its processor
        stem = re.sub(r"to_out$", "to_out.0", stem.replace(".processor.", "."))
    return stem


def _check_is_lora(
    path: Path, tensors: Parts, denoiser: Mapping[str, Any], layers: Mapping[str, Any]
) -> None:
    for mark, kind in _OTHER_KINDS.items():
        hits = [key for key in tensors if mark in key]
        if hits:
            raise ValueError(
                f"{path} is {kind}, which is not supported (key {hits[0]!r}): expected a plain LoRA"
            )
    if layers:
        return
    if tensors and not denoiser:
        raise ValueError(
            f"{path} adapts a text encoder alone ({len(tensors)} keys): a slider adapts the unet "
            "or transformer"
        )
    example = ", ".join(repr(key) for key in list(denoiser)[:2]) or "none"
    if any(key.endswith((".weight", ".bias")) for key in denoiser):
        raise ValueError(
            f"{path} is a full checkpoint, not a LoRA: {len(tensors)} tensors under keys such as "
            f"{example}. Load it as a model"
        )
    raise ValueError(f"{path} holds no LoRA weights: its keys are {example}")


def _check_all_read(path: Path, tensors: Parts, unread: list[str]) -> None:
    if unread:
        raise ValueError(
            f"{path}: {len(unread)} of its {len(tensors)} keys are no factors of a LoRA and would "
            f"be left out: {', '.join(map(repr, unread[:3]))}{', …' if len(unread) > 3 else ''}. "
            "Expected lora_A and lora_B, or lora_down, lora_up and alpha, of each layer"
        )


def _check_partners(path: Path, name: str, parts: Mapping[str, torch.Tensor]) -> None:
    missing = {"down", "up"} - set(parts)
    if missing:
        raise ValueError(f"{path}: layer {name!r} has no {' and no '.join(sorted(missing))} factor")
    a, b = parts["down"], parts["up"]
    if a.ndim < 2 or b.ndim < 2 or not a.shape[0] == b.shape[1] > 0:
        raise ValueError(
            f"{path}: the ranks of layer {name!r} differ: down {tuple(a.shape)} has {a.shape[0]}, "
            f"up {tuple(b.shape)} has {b.shape[1] if b.ndim > 1 else 'none'}"
        )
