"""The factors of a LoRA: of a file or of a loaded adapter; random ones of the same size.

A LoRA changes a layer's weight by ΔW = s·B·A, with B (out, r), A (r, in·kh·kw) and s = alpha/r.
Here s is already in B."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xhat.hooks.factors import Factors
from xhat.hooks.points.names import denoiser_of
from xhat.zoo.lora.files import read_lora
from xhat.zoo.lora.fitting import factors_of

Lora = Mapping[str, Factors]
"""layer → its factors."""


def lora_of(source: Any, adapter: str | None = None) -> Lora:
    """The factors of a LoRA, float64, alpha/rank applied.

    ``source``: a file (:mod:`xhat.zoo.lora.files`), a pipeline or denoiser with a loaded adapter,
    at its scale (``adapter`` names it where there are several), or what this function gave before.
    Raises ValueError where there are no factors."""
    if isinstance(source, Mapping):
        return source
    if isinstance(source, str | Path):
        file = read_lora(source)
        return {name: _double(factors_of(file, name, parts)) for name, parts in file.layers.items()}
    return _of_adapter(
        source if isinstance(source, torch.nn.Module) else denoiser_of(source), adapter
    )


def random_like(lora: Lora, seed: int) -> dict[str, Factors]:
    """A LoRA of Gaussian factors, with the ranks and in every layer the norm ‖ΔW‖ of another: the
    null of its effect.

    >>> lora = {"layer": Factors(torch.ones(6, 2), torch.ones(2, 4))}
    >>> other = random_like(lora, seed=0)["layer"]
    >>> round(other.norm(), 6) == round(lora["layer"].norm(), 6)
    True
    >>> torch.equal(other.up, lora["layer"].up)
    False
    """
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, f in lora.items():
        up, down = (
            torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (f.up, f.down)
        )
        drawn = Factors(up, down, f.kernel)
        made[name] = Factors(up * (f.norm() / drawn.norm()), down, f.kernel)
    return made


def tensors_of(lora: Lora) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA file: PEFT's keys, float32, alpha = rank.

    >>> sorted(tensors_of({"mid.conv1": Factors(torch.ones(6, 2), torch.ones(2, 4))}))
    ['unet.mid.conv1.lora_A.weight', 'unet.mid.conv1.lora_B.weight']
    """
    made = {}
    for name, f in lora.items():
        up, down = f.layers()
        made[f"unet.{name}.lora_A.weight"] = down.float().contiguous()
        made[f"unet.{name}.lora_B.weight"] = up.float().contiguous()
    return made


def shared_layers(a: Lora, b: Lora) -> list[str]:
    """Layers that both change, in the order of ``a``. Raises ValueError where there are none, or of
    other shapes.
    """
    names = [name for name in a if name in b]
    if not names:
        raise ValueError(f"the two LoRAs share no layer: one has {_few(a)}, the other {_few(b)}")
    for name in names:
        ours, theirs = ((f.up.shape[0], f.down.shape[1]) for f in (a[name], b[name]))
        if ours != theirs:
            raise ValueError(
                f"{name} is {ours} in one LoRA and {theirs} in the other: they are for different "
                "models"
            )
    return names


def _few(lora: Lora) -> str:
    return ", ".join(list(lora)[:3]) + (", …" if len(lora) > 3 else "")


def _of_adapter(denoiser: torch.nn.Module, adapter: str | None) -> dict[str, Factors]:
    layers = {
        n.removesuffix(".base_layer"): m
        for n, m in denoiser.named_modules()
        if hasattr(m, "lora_A")
    }
    names = sorted({name for m in layers.values() for name in m.lora_A})
    if not names:
        raise ValueError(
            f"{type(denoiser).__name__} has no LoRA loaded: expected pipe.load_lora_weights(file) "
            "before"
        )
    if adapter is None and len(names) > 1 or adapter is not None and adapter not in names:
        raise ValueError(f"adapter={adapter!r}: expected one of the loaded {', '.join(names)}")
    chosen = adapter or names[0]
    chosen_layers = {name: m for name, m in layers.items() if chosen in m.lora_A}
    return {
        name: _flat(m.lora_B[chosen].weight, m.lora_A[chosen].weight, m.scaling[chosen])
        for name, m in chosen_layers.items()
    }


def _flat(up: torch.Tensor, down: torch.Tensor, scale: float) -> Factors:
    kernel = tuple(down.shape[1:]) if down.ndim == 4 else None
    return Factors(
        scale * up.detach().double().flatten(1), down.detach().double().flatten(1), kernel
    )


def _double(f: Factors) -> Factors:
    return Factors(f.up.double(), f.down.double(), f.kernel)
