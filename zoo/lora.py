"""LoRAs in a pipeline's networks: training one, setting the scales of those that are loaded, taking one away.

A slider is a LoRA whose scale is turned, below zero as well as above. A scale of 0 takes its layers out of the
computation: not a bit of the pipeline's pictures changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xhat.hooks.points import denoiser_of, parts_of
from xhat.zoo.inputs import network_of, slot_of
from xhat.zoo.loop import set_rate, train_loop

LAYERS = ("attention", "all")
TRAINING = "in_training"
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def train_lora(
    pipe: Any, loss: Callable[[int], torch.Tensor], *, rank: int, layers: str, steps: int, rate: float, seed: int,
    run: Path | None = None,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Minimise ``loss(i)``, i the step, over a new LoRA in the pipeline's denoiser; the pipeline is left as it was.

    ΔW = B·A of the given rank in every layer of ``layers``: ``"attention"`` (the projections of attention) or
    ``"all"`` (every linear and convolution layer). AdamW, warm-up, cosine decay. Returns the state dict that
    ``pipe.load_lora_weights`` reads. With a folder ``run``, a killed training goes on there.

    Raises ValueError for a denoiser that has adapters loaded, and for a rank, layers or steps that make no sense.
    """
    network, targets = network_of(pipe), None
    targets = layers_of(network, layers)
    if rank < 1 or steps < 1:
        raise ValueError(f"rank={rank}, steps={steps}: expected whole numbers of 1 or more")
    if getattr(network, "peft_config", None):
        raise ValueError(
            f"the pipeline has adapters loaded ({', '.join(network.peft_config)}): a LoRA is trained on plain weights. "
            "Fuse them with pipe.fuse_lora() and pipe.unload_lora_weights(), or unload them"
        )
    with _adapter(network, targets, rank, seed) as weights:
        optimizer = torch.optim.AdamW(weights.parameters(), rate, weight_decay=0.0)

        def step(i: int) -> dict[str, float]:
            set_rate(optimizer, i, steps, rate, warmup=min(20, steps // 5 + 1))
            value = loss(i)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(weights.parameters(), 1.0)
            optimizer.step()
            return {"loss": value.item()}

        train_loop(run, {"weights": weights, "optimizer": optimizer}, step, steps, save_every=50)
        return _state(network, slot_of(pipe))


def layers_of(network: nn.Module, layers: str) -> list[str]:
    """Names of the layers that a LoRA of this kind adapts. Raises ValueError where the network has none."""
    if layers not in LAYERS:
        raise ValueError(f"layers={layers!r}: expected {' or '.join(repr(x) for x in LAYERS)}")
    found = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if layers == "attention":
        found = [n for n in found if n.endswith(_PROJECTIONS)]
    if not found:
        raise ValueError(f"{type(network).__name__} has no {layers} layers that a LoRA could adapt")
    return found


@contextmanager
def _adapter(network: Any, targets: Sequence[str], rank: int, seed: int) -> Iterator[nn.ParameterDict]:
    """A fresh LoRA in the network, everything else frozen, for as long as the block runs: its parameters."""
    from peft import LoraConfig

    grads = {name: p.requires_grad for name, p in network.named_parameters()}
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)), TRAINING)
    ours = {n.replace(".", "/"): p for n, p in network.named_parameters() if p.requires_grad}
    for parameter in ours.values():
        parameter.data = parameter.data.float()
    try:
        yield nn.ParameterDict(ours)
    finally:
        network.unload_lora()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(grads[name])


def _state(network: nn.Module, slot: str) -> dict[str, torch.Tensor]:
    """The trained LoRA under the keys of diffusers: ``unet.<layer>.lora_A.weight`` and ``….lora_B.weight``."""
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(network, adapter_name=TRAINING)
    return {f"{slot}.{key}": value.detach().cpu().clone().contiguous() for key, value in state.items()}


def scales_of(pipe: Any) -> dict[str, float]:
    """name → scale of every LoRA that is loaded, 0 for those that are switched off."""
    found: dict[str, float] = {}
    for layer in _layers(pipe):
        for name in layer.scaling:
            scale = layer.scaling[name] / _unit(layer, name) if name in layer.active_adapters else 0.0
            found[name] = max(found.get(name, 0.0), scale, key=abs)
    return found


def set_scales(pipe: Any, scales: Mapping[str, float]) -> None:
    """Set the scales of loaded LoRAs, in every network of the pipeline that has them; others stay as they are.

    The layers compute W·x + Σ s·B·A·x, with s the scale. Raises ValueError for a name that is not loaded.
    """
    check_names(pipe, scales)
    for layer in _layers(pipe):
        mine = {name: float(scale) for name, scale in scales.items() if name in layer.scaling}
        if not mine:
            continue
        for name, scale in mine.items():
            layer.set_scale(name, scale)
        active = [name for name in layer.active_adapters if mine.get(name, 1.0) != 0]
        active += [name for name, scale in mine.items() if scale != 0 and name not in active]
        if active != layer.active_adapters:
            layer.set_adapter(active, inference_mode=True)


@contextmanager
def sliding(pipe: Any, scales: Mapping[str, float]) -> Iterator[Any]:
    """Within the block the named LoRAs have these scales, then those they had before. Works on hybrids too.

    >>> with sliding(pipe, {"horns": 1.5}):  # doctest: +SKIP
    ...     pipe("a critter")
    """
    before = [(layer, list(layer.active_adapters), dict(layer.scaling)) for layer in _layers(pipe)]
    try:
        set_scales(pipe, scales)
        yield pipe
    finally:
        for layer, active, scaling in before:
            layer.scaling.update(scaling)
            layer.set_adapter(active, inference_mode=True)


def remove(pipe: Any, name: str) -> None:
    """Take a LoRA out of every network of the pipeline; with the last one, the layers are the plain ones again."""
    check_names(pipe, [name])
    for part in parts_of(denoiser_of(pipe)):
        if name in getattr(part, "peft_config", {}):
            part.delete_adapters(name)
            if not getattr(part, "peft_config", None):
                part.unload_lora()


def check_names(pipe: Any, names: Mapping[str, float] | Sequence[str]) -> None:
    """Raises ValueError for a LoRA that is not loaded, with the nearest that are."""
    there = sorted({name for layer in _layers(pipe) for name in layer.scaling})
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"loaded: {', '.join(there) or 'none'}"
            raise ValueError(f"no LoRA {name!r} is loaded; {hint}")


def _layers(pipe: Any) -> list[Any]:
    """Every layer that has a LoRA, in every network of the pipeline."""
    from peft.tuners.lora import LoraLayer

    modules = {id(m): m for part in parts_of(denoiser_of(pipe)) for m in part.modules() if isinstance(m, LoraLayer)}
    return list(modules.values())


def _unit(layer: Any, name: str) -> float:
    """What B·A is multiplied by at scale 1."""
    return layer.lora_alpha[name] / layer.r[name]
