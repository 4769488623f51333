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
MOST_HEADER = 100_000_000  # bytes: the format's own limit
_LORA = re.compile(
    r"lora_[AB]\b|lora_(up|down)\b|\.lora\.(up|down)\b|lora_linear_layer|lora_magnitude"
)
_WHOLE = ("model.diffusion_model.", "diffusion_model.")  # of files with all of a model in them
_WRAPPERS = ("state_dict", "model", "module", "params_ema")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Name → tensor of a file of weights.

    Raises ValueError for a file that is not whole, that is no such file, or that holds a pickle
    with code in it."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path} is no file of weights: expected one that ends in {', '.join(SUFFIXES)}"
        )
    return _safetensors(path) if path.suffix == ".safetensors" else _tensors(unpickled(path), path)


def names_in(path: Path) -> list[str]:
    """Names of the tensors in a file of weights. Raises ValueError as :func:`read_tensors` does."""
    if path.suffix == ".safetensors":
        return [name for name in _header(path) if name != "__metadata__"]
    return list(read_tensors(path))


def metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file has beside its tensors. Raises ValueError as
    :func:`read_tensors` does.
    """
    return dict(_header(path).get("__metadata__") or {})


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_whole(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} could not be read: {_line(error)}. Get the file again") from error


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
        if size < 8 or not 2 <= length <= min(size - 8, MOST_HEADER):
            raise ValueError(
                f"{path} is no safetensors file, or is cut off: {_start(path)}. Get it again"
            )
        try:
            header = json.loads(file.read(length))
            end = _end_of(header)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"the header of {path} is corrupt ({error}): get the file again"
            ) from error
    expected = 8 + length + end
    if size != expected:
        raise ValueError(
            f"{path} is not whole: {size:,} bytes, where its header says {expected:,}. Get the "
            "file again"
        )
    return header


def _end_of(header: Mapping[str, Any]) -> int:
    """Where the last tensor ends. Raises ValueError unless the tensors fill the file from 0 on, one
    behind the other.
    """
    if not isinstance(header, dict):
        raise ValueError(f"it is a {type(header).__name__}")
    notes = header.get("__metadata__") or {}
    if not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("its metadata are not all text")
    places = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        numbers = [start, end, *entry["shape"]]
        if any(type(n) is not int or n < 0 for n in numbers) or not isinstance(entry["dtype"], str):
            raise ValueError(f"the place of {name!r} is {entry!r}")
        places.append((start, end, name))
    last = 0
    for start, end, name in sorted(places):
        if start != last or end < start:
            raise ValueError(f"{name!r} is at {start:,} to {end:,}, where {last:,} is next")
        last = end
    return last


def _start(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(200)
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer that git-lfs leaves where a file was not downloaded"
    if start.lstrip()[:1] == b"<":
        return "it is a web page"
    return f"it begins with {start[:8]!r}"


def unpickled(path: Path) -> Any:
    """What a torch file holds, whatever that is. No code in it is run.

    Raises ValueError for a file that cannot be read, and for a pickle with code in it."""
    from pickle import UnpicklingError

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise ValueError(
                f"{path} could not be read: it is cut off, corrupt, no torch file, or a pickle "
                "that holds more than tensors"
            ) from error
        raise ValueError(
            f"{path} is refused: it is a pickle that holds more than tensors ({code[1]}), and "
            "reading it could run code. Use the checkpoint's safetensors file, or convert it where "
            "you trust it"
        ) from error
    except Exception as error:  # damaged bytes raise what they will: nothing of them was run
        raise ValueError(
            f"{path} could not be read; it may be cut off or corrupt: {_line(error)}"
        ) from error


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


def family_in(state: Mapping[str, torch.Tensor]) -> str:
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
