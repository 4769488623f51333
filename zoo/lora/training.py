"""Training a LoRA in a pipeline's denoiser, whatever the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xhat.hooks.points.names import slot_of
from xhat.zoo.family.loop import set_rate, train_loop
from xhat.zoo.lora.injection import inject, injected, sliders_in, take_out
from xhat.zoo.lora.inputs import network_of

LAYERS = ("attention", "all")
TRAINING = "in_training"
"""Name of the adapter while it is trained."""

_PROJECTIONS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)


def train_lora(
    pipe: Any,
    loss: Callable[[int], torch.Tensor],
    *,
    rank: int,
    layers: str,
    steps: int,
    rate: float,
    seed: int,
    run: Path | None = None,
) -> dict[str, torch.Tensor]:
    """Minimise ``loss(i)``, i the step, over a new LoRA in the pipeline's denoiser; the pipeline is
    left as it was.

    ΔW = B·A of the given rank in every layer of ``layers``: ``"attention"`` (the projections of
    attention) or ``"all"`` (every linear and convolution layer). AdamW, warm-up, cosine decay.
    Returns the state dict that ``pipe.load_lora_weights`` reads. With a folder ``run``, a killed
    training goes on there.

    Raises ValueError for a denoiser that has adapters loaded, and for a rank, layers or steps that
    make no sense."""
    network = network_of(pipe)
    if sliders_in(network):
        raise ValueError(
            f"the pipeline has adapters loaded ({', '.join(sliders_in(network))}): a LoRA is "
            "trained on plain weights. "
            "Fuse them with pipe.fuse_lora() and pipe.unload_lora_weights(), or unload them"
        )
    if rank < 1 or steps < 1:
        raise ValueError(f"rank={rank}, steps={steps}: expected whole numbers of 1 or more")
    targets = trained_layers(network, layers)
    with _adapter(network, targets, rank, seed) as weights:
        optimizer = torch.optim.AdamW(weights.parameters(), rate, weight_decay=0.0)

        def step(i: int) -> dict[str, float]:
            set_rate(optimizer, i, steps, rate, warmup=min(20, steps // 5 + 1))
            value = loss(i)
            optimizer.zero_grad()
            value.backward(
                inputs=list(weights.parameters())
            )  # nothing else of the pipeline collects gradients
            torch.nn.utils.clip_grad_norm_(weights.parameters(), 1.0)
            optimizer.step()
            return {"loss": value.item()}

        train_loop(run, {"weights": weights, "optimizer": optimizer}, step, steps, save_every=10)
        return _state(network, slot_of(pipe))


def trained_layers(network: nn.Module, layers: str) -> list[str]:
    """Names of the layers that a LoRA of this kind adapts. Raises ValueError where the network has
    none.
    """
    if layers not in LAYERS:
        raise ValueError(f"layers={layers!r}: expected {' or '.join(repr(x) for x in LAYERS)}")
    found = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if layers == "attention":
        found = [n for n in found if n.endswith(_PROJECTIONS)]
    if not found:
        raise ValueError(f"{type(network).__name__} has no {layers} layers that a LoRA could adapt")
    return found


@contextmanager
def _adapter(
    network: Any, targets: Sequence[str], rank: int, seed: int
) -> Iterator[nn.ParameterList]:
    """A fresh LoRA in the network, everything else frozen, for as long as the block runs: its
    parameters.
    """
    grads = {name: p.requires_grad for name, p in network.named_parameters()}
    network.requires_grad_(False)
    inject(network, TRAINING, dict.fromkeys(targets, rank), seed)
    trained = [h for up, down in injected(network, TRAINING).values() for h in (down, up)]
    for half in trained:
        half.data = half.data.float()
        half.requires_grad_(True)
    try:
        yield nn.ParameterList(trained)
    finally:
        take_out(network, TRAINING)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(grads[name])


def _state(network: nn.Module, slot: str) -> dict[str, torch.Tensor]:
    """The trained LoRA under the keys of diffusers: ``unet.<layer>.lora_A.weight`` and
    ``….lora_B.weight``.
    """
    found: dict[str, torch.Tensor] = {}
    for layer, (up, down) in injected(network, TRAINING).items():
        found |= {f"{slot}.{layer}.lora_A.weight": down, f"{slot}.{layer}.lora_B.weight": up}
    return {key: value.detach().cpu().clone().contiguous() for key, value in found.items()}
