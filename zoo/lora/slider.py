"""Concept Sliders: a LoRA that moves a picture from one concept to its opposite as its scale is
turned.

The objective is that of Gandikota et al. (arXiv 2311.12092), as used in arXiv 2503.10637: at scale
±1, what the model predicts for the target prompt is moved along the difference of its predictions
for two opposite prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xhat.hooks.describe import checksum, fingerprint
from xhat.zoo.lora.inputs import condition, network_of, predict, states
from xhat.zoo.lora.loading import set_scales
from xhat.zoo.lora.training import TRAINING, train_lora

OBJECTIVE = "concept slider"
RANK, ETA, LAYERS, STEPS, RATE, BATCH, SEEDS = 4, 1.0, "attention", 50, 4e-3, 4, 2

Texts = str | Sequence[str]


class Pool(NamedTuple):
    """Inputs of one target prompt, and what is asked of the slider there: ``neutral`` ±
    η·``delta``.
    """

    given: dict[str, Any]
    x_t: torch.Tensor
    timestep: torch.Tensor
    neutral: torch.Tensor
    delta: torch.Tensor


def train_slider(
    pipe: Any,
    target: Texts,
    positive: Texts,
    negative: Texts,
    *,
    rank: int = RANK,
    eta: float = ETA,
    layers: str = LAYERS,
    steps: int = STEPS,
    rate: float = RATE,
    batch_size: int = BATCH,
    seeds: int = SEEDS,
    seed: int = 0,
    device: str | None = None,
    run: Path | None = None,
    call: Mapping[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Train a Concept Slider on any pipeline, base or student, and return its LoRA as a state dict.

    Minimises ½ Σ± ‖f_±(x_t, target) − [f(x_t, target) ± η·(f(x_t, positive) − f(x_t, negative))]‖²,
    f_± the network with the LoRA at scale ±1. f is the network's own output, guidance off. For an
    ε-prediction that is the objective as published. v, flow and x₀ are affine in ε at a given x_t,
    so their minimum is the same; only the weight of the noise levels differs: ‖Δε‖² = ᾱ·‖Δv‖², so
    that matching v gives more weight to high noise.

    x_t are those of the pipeline's own trajectories under target, positive and negative prompts,
    from ``seeds`` seeds each: a student is trained at its own timesteps. Several prompts (lists of
    equal length) are several contexts in which the one slider is trained; further arguments of the
    pipeline's call go into ``call``. ``device`` moves the pipeline there first. Seeded; a killed
    training goes on in the folder ``run``.

    Raises ValueError for lists of unequal length and for opposite prompts that the network does not
    tell apart."""
    contexts = list(zip(*_lists(target, positive, negative), strict=True))
    if device is not None:
        pipe.to(device)
    network = network_of(pipe)
    pools = [
        draw_pool(pipe, prompts, range(seed, seed + seeds), **(call or {})) for prompts in contexts
    ]
    if run is not None:
        settings = {
            "contexts": contexts,
            "rank": rank,
            "eta": eta,
            "layers": layers,
            "steps": steps,
            "rate": rate,
        }
        settings |= {
            "batch": batch_size,
            "seeds": seeds,
            "seed": seed,
            "weights": fingerprint(pipe),
        }
        run = run / checksum(settings)[:12]  # other settings are another training
    loss = _objective(pipe, network, pools, eta, batch_size, seed)
    return train_lora(
        pipe, loss, rank=rank, layers=layers, steps=steps, rate=rate, seed=seed, run=run
    )


def _lists(*texts: Texts) -> list[list[str]]:
    found = [[t] if isinstance(t, str) else list(t) for t in texts]
    if len({len(f) for f in found}) != 1 or not found[0]:
        counts = ", ".join(str(len(f)) for f in found)
        raise ValueError(
            f"expected as many target as positive and negative prompts, one or more; got {counts}"
        )
    return found


@torch.no_grad()
def draw_pool(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], **call: Any) -> Pool:
    """The states of one context (target, positive, negative), and the frozen network's predictions
    there.
    """
    network = network_of(pipe)
    seen = states(pipe, prompts, seeds, **call)
    given = [condition(pipe, prompt, **call) for prompt in prompts]
    neutral, above, below = (
        torch.cat(
            [
                predict(network, g, x, t)
                for x, t in zip(seen.x_t.split(64), seen.timestep.split(64), strict=True)
            ]
        )
        for g in given
    )
    delta = above - below
    if not delta.any():
        raise ValueError(
            f"the model predicts the same for {prompts[1]!r} and {prompts[2]!r}: there is nothing "
            "to slide"
        )
    return Pool(given[0], seen.x_t, seen.timestep, neutral, delta)


def _objective(
    pipe: Any, network: Any, pools: Sequence[Pool], eta: float, batch_size: int, seed: int
) -> Callable[[int], torch.Tensor]:
    """The loss of step i, on a batch of one context; both signs of the slider at once."""

    def loss(i: int) -> torch.Tensor:
        chosen = pools[i % len(pools)]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        pick = torch.randint(len(chosen.x_t), (batch_size,), generator=generator)
        total = torch.zeros((), device=chosen.x_t.device)
        for sign in (1.0, -1.0):
            set_scales(pipe, {TRAINING: sign})
            output = predict(network, chosen.given, chosen.x_t[pick], chosen.timestep[pick])
            wanted = chosen.neutral[pick] + sign * eta * chosen.delta[pick]
            total = total + (output.float() - wanted.float()).square().mean() / 2
        return total

    return loss


def save_lora(path: Path, state: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> Path:
    """Write a LoRA in half precision, with notes of how it was made, as safetensors that diffusers
    reads.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    metadata = {
        k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in notes.items()
    }
    save_file(
        {k: v.half().contiguous() for k, v in state.items()},
        partial,
        metadata={"format": "pt", **metadata},
    )
    partial.replace(path)
    return path
