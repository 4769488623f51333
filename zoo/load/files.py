"""Files of weights: whether they are whole, what kind they are, and their tensors. No code in a
file is ever run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_LORA = re.compile(
    r"lora_[AB]\b|lora_(up|down)\b|\.lora\.(up|down)\b|lora_linear_layer|lora_magnitude"
)
_WHOLE = ("model.diffusion_model.", "diffusion_model.")  # of files with all of a model in them
_WRAPPERS = ("state_dict", "model", "module", "params_ema")


def read(path: Path) -> dict[str, torch.Tensor]:
    """Name → tensor of a file of weights.

    Raises ValueError for a file that is not whole, that is no such file, or that holds a pickle
    with code in it."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path} is no file of weights: expected one that ends in {', '.join(SUFFIXES)}"
        )
    return _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)


def names_in(path: Path) -> list[str]:
    """Names of the tensors in a file of weights. Raises ValueError as :func:`read` does."""
    if path.suffix == ".safetensors":
        return [name for name in _header(path) if name != "__metadata__"]
    return list(read(path))


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    check_whole(path)
    return load_file(path)


def check_whole(path: Path) -> None:
    """Raises ValueError for a safetensors file whose header cannot be read, or that is shorter or
    longer than it says.

    The header is JSON with the place of every tensor, behind its own length in eight bytes.
    """
    _header(path)


def _header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= size - 8:
            raise ValueError(
                f"{path} is no safetensors file, or is cut off: {_start(path)}. Get it again"
            )
        try:
            header = json.loads(file.read(length))
            ends = [
                entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the header of {path} is corrupt ({error}): get the file again"
            ) from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ValueError(
            f"{path} is not whole: {size:,} bytes, where its header says {expected:,}. Get the "
            "file again"
        )
    return header


def _start(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(200)
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer that git-lfs leaves where a file was not downloaded"
    if start.lstrip()[:1] == b"<":
        return "it is a web page"
    return f"it begins with {start[:8]!r}"


def _pickled(path: Path) -> dict[str, torch.Tensor]:
    from pickle import UnpicklingError

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named.group(1)})" if named else ""
        raise ValueError(
            f"{path} is a pickle that holds more than tensors{what}: reading it could run code, "
            "so it was not read. "
            "Use the checkpoint's safetensors file, or convert it where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} could not be read; it may be cut off or corrupt: {_line(error)}"
        ) from error
    return _tensors(found, path)


def _tensors(found: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in what was saved: itself, or under one of the names that trainers wrap it
    in.
    """
    if isinstance(found, Mapping):
        for name in _WRAPPERS:
            if isinstance(found.get(name), Mapping):
                return _tensors(found[name], path)
        tensors = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
        if tensors:
            return tensors
    raise ValueError(
        f"{path} holds no weights: expected names with tensors, got {type(found).__name__}"
    )


def kind_of(names: Collection[str]) -> str:
    """``"lora"``, ``"file"`` (all of a model in one file) or ``"weights"`` (of a denoiser), by the
    names of tensors.

    >>> kind_of(["unet.mid_block.attentions.0.proj_in.lora_A.weight"]), kind_of(["conv_in.weight"])
    ('lora', 'weights')
    """
    if any(_LORA.search(name) for name in names):
        return "lora"
    if any(name.startswith(_WHOLE) for name in names):
        return "file"
    return "weights"


def family_of(state: Mapping[str, torch.Tensor]) -> str:
    """What model a state dict looks like, in words; empty where that cannot be told."""
    signs = [
        ("single_transformer_blocks.0.attn.to_q.weight", "FLUX"),
        ("double_blocks.0.img_attn.qkv.weight", "FLUX in its original layout"),
        ("transformer_blocks.0.img_mod.1.weight", "Qwen-Image"),
        ("noise_refiner.0.attention.to_q.weight", "Z-Image or Lumina"),
        ("transformer_blocks.0.attn.add_q_proj.weight", "Stable Diffusion 3"),
        ("adaln_single.linear.weight", "PixArt"),
        ("add_embedding.linear_1.weight", "Stable Diffusion XL"),
    ]
    for name, family in signs:
        if name in state:
            return family
    cross = next((t for n, t in state.items() if n.endswith("attn2.to_k.weight")), None)
    width = 0 if cross is None else cross.shape[1]
    return {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}.get(
        width, "a UNet" if width else ""
    )


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
