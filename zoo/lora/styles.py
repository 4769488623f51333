"""Customisation LoRAs: a style that no model was trained on, learnt from a few pictures under a
word of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xhat.hooks.describe import checksum, fingerprint
from xhat.hooks.noise.levels import noise_level
from xhat.hooks.noise.schedulers import prediction, space
from xhat.zoo.family.attributes import HELD_OUT
from xhat.zoo.family.vae import to_tensor
from xhat.zoo.lora.inputs import condition, network_of, predict, states
from xhat.zoo.lora.latents import to_latents
from xhat.zoo.lora.recipes import made
from xhat.zoo.lora.shipped import SHIPPED
from xhat.zoo.lora.training import train_lora
from xhat.zoo.pairs import DEMO, load_model

OBJECTIVE = "customisation"
RANK, LAYERS, STEPS, RATE, BATCH, PICTURES = 8, "all", 300, 2e-3, 8, 48
STYLES = ("robot",)
"""Of the styles kept out of training, those whose LoRA comes with the family."""


def train_custom(
    pipe: Any,
    images: np.ndarray,
    prompts: str | Sequence[str],
    *,
    rank: int = RANK,
    layers: str = LAYERS,
    steps: int = STEPS,
    rate: float = RATE,
    batch_size: int = BATCH,
    seed: int = 0,
    run: Path | None = None,
    call: Mapping[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Train a LoRA that draws ``images`` (n, h, w, 3; uint8) for the prompts, and return it as a
    state dict.

    Minimises ‖f(x_t, t, prompt) − target‖² with x_t = a·x₀ + b·ε at a random training timestep, x₀
    the latents of the pictures and the target what f predicts: ε, v = √ᾱ·ε − √(1−ᾱ)·x₀, x₀, or ε −
    x₀ for a flow. A rare word in the prompt keeps the style apart from all else (DreamBooth, arXiv
    2208.12242). Meant for the base: on a student it trains away the distillation.

    Raises ValueError for pictures of another shape or type, and for models whose latents are not
    kept as pictures."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"expected pictures (n, height, width, 3) of uint8; got {images.shape} {images.dtype}"
        )
    with torch.no_grad():
        x0 = to_latents(pipe, to_tensor(images))
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    given = [condition(pipe, text, **(call or {})) for text in texts]
    network = network_of(pipe)
    scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config
    )  # without a schedule: training timesteps
    first = states(pipe, texts[:1], [0], num_inference_steps=1, **(call or {}))
    unit = (
        float(first.timestep[0]) / first.level[0].timestep
    )  # some networks count time from 0 to 1
    if run is not None:
        settings = {
            "prompts": texts,
            "rank": rank,
            "layers": layers,
            "steps": steps,
            "rate": rate,
            "seed": seed,
        }
        run = (
            run
            / checksum(
                settings | {"batch": batch_size, "images": images, "weights": fingerprint(pipe)}
            )[:12]
        )

    def loss(i: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        pick = torch.randint(len(x0), (batch_size,), generator=generator)
        eps = torch.randn(x0[pick].shape, generator=generator).to(x0.device)
        t = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
        x_t, target = noised(scheduler, x0[pick], eps, t)
        output = predict(
            network, given[i % len(given)], x_t.to(network.dtype), (unit * t).to(first.timestep)
        )
        return (output.float() - target).square().mean()

    return train_lora(
        pipe, loss, rank=rank, layers=layers, steps=steps, rate=rate, seed=seed, run=run
    )


def noised(
    scheduler: Any, x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's input at training timesteps t (n,), and the output that would recover ``x0``
    (n, …) exactly.

    Networks of σ-space schedulers are given x/√(1+σ²), which is √ᾱ·x₀ + √(1−ᾱ)·ε as in VP.
    """
    levels = [noise_level(scheduler, float(u)) for u in t]
    alpha_bar = torch.tensor(
        [level.alpha_bar for level in levels], dtype=x0.dtype, device=x0.device
    )
    a, b = (s.view(-1, *[1] * (x0.ndim - 1)) for s in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    if space(scheduler) == "flow":
        a, b = a / (a + b), b / (a + b)
    x_t = a * x0 + b * eps
    match prediction(scheduler):
        case "epsilon":
            return x_t, eps
        case "v_prediction":
            return x_t, a * eps - b * x0
        case "flow_prediction":
            return x_t, eps - x0
        case "sample":
            return x_t, x0
        case other:
            raise ValueError(
                f"no customisation for a {other} prediction: expected ε, v, flow or x₀"
            )


def style_pictures(style: str, count: int = PICTURES, seed: int = 0) -> np.ndarray:
    """Pictures (n, 64, 64, 3) uint8 of a style kept out of all training: ``"robot"`` or ``"face"``.

    Another seed gives other pictures, to compare with. Rendering needs the ``zoo`` extra.
    """
    if style not in HELD_OUT:
        raise ValueError(
            f"style {style!r} is none of those kept out of training: {', '.join(HELD_OUT)}"
        )
    from xhat.zoo.family.attributes import Scene
    from xhat.zoo.family.render import render

    return np.stack([render(Scene(style), 10_000 * seed + i) for i in range(count)])


def train_styles(runs: Path, steps: int = STEPS, seed: int = 0) -> None:
    """Train the LoRAs of ``STYLES`` on the embedded base, into the family's weights."""
    base = load_model(f"{DEMO}/base")
    for style in STYLES:
        prompt = f"a {style}"
        written = {
            "objective": OBJECTIVE,
            "model": f"{DEMO}/base",
            "weights": fingerprint(base),
            "xhat": version("xhat"),
            "style": style,
            "target": prompt,
            "pictures": PICTURES,
            "rank": RANK,
            "layers": LAYERS,
            "steps": steps,
            "rate": RATE,
            "batch_size": BATCH,
            "seed": seed,
        }

        def make(style: str = style, prompt: str = prompt) -> dict[str, torch.Tensor]:
            pictures = style_pictures(style)
            return train_custom(
                base, pictures, prompt, steps=steps, seed=seed, run=runs / "sliders" / style
            )

        made(SHIPPED / f"{style}.safetensors", written, make)
