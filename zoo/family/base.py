"""Training the base: v-prediction on latents, text encoder and UNet together, classifier-free
guidance, EMA.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from xhat.zoo.family.attributes import BARE_PROMPTS, Scene, caption, sample_caption, sample_scene
from xhat.zoo.family.data import pictures
from xhat.zoo.family.loop import ema, note_training, set_rate, train_loop
from xhat.zoo.family.networks import (
    base_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    save_pipeline,
    tokenize,
)
from xhat.zoo.family.vae import encode, load_vae
from xhat.zoo.pairs import BASE_DEFAULTS, WEIGHTS, load_pipeline

STEPS, BATCH, RATE, EMA = 9000, 32, 1e-3, 0.999
EMPTY = 0.1  # captions dropped, for classifier-free guidance


@dataclass(frozen=True)
class Latents:
    """The training set as the UNet sees it: scaled latents (n, 4, 16, 16) and the scenes they
    show.
    """

    x0: torch.Tensor
    scenes: list[Scene]

    def pick(
        self, size: int, generator: torch.Generator, rng: random.Random
    ) -> tuple[torch.Tensor, list[str]]:
        """Random latents (size, 4, 16, 16), on the generator's device, and a caption of each."""
        at = torch.randint(
            len(self.scenes), (size,), generator=generator, device=generator.device
        ).tolist()
        captions = [sample_caption(self.scenes[i], rng) for i in at]
        return self.x0[at].to(generator.device), captions


def latents(runs: Path) -> tuple[Latents, Any]:
    """The encoded training pictures, and the VAE that encoded them: the one just trained, else the
    shipped one.

    Encoded once, then read from ``runs``.
    """
    from safetensors.torch import load_file, save_file

    vae = load_vae(runs)
    world, cache = pictures(cache=runs / "world.npz"), runs / "latents.safetensors"
    if not cache.exists():
        save_file({"x0": encode(vae, world.images).contiguous()}, cache)
    return Latents(load_file(cache)["x0"], world.scenes), vae


def train_base(
    runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu", warm: bool = False
) -> None:
    """v-prediction: minimise ‖v̂(x_t, t, caption) − v‖² with v = √ᾱ·ε − √(1−ᾱ)·x₀ (2202.00512).

    Three steps in ten draw t from the upper half only: there a picture's colours and layout are
    decided. ``warm``: start from the shipped weights, for training that is spread over several
    sittings."""
    data, vae = latents(runs)
    torch.manual_seed(seed)
    tokenizer, scheduler = make_tokenizer(), base_scheduler()
    unet = make_unet().to(device, memory_format=torch.channels_last)
    text = make_text_encoder().to(device)
    before = 0
    if warm:
        before = json.loads((WEIGHTS / "base" / "training.json").read_text())["steps"]
        shipped = load_pipeline(WEIGHTS / "base")
        unet.load_state_dict(shipped.unet.state_dict())
        text.load_state_dict(shipped.text_encoder.state_dict())
    model = torch.nn.ModuleDict({"unet": unet, "text": text})
    average = ema(model, EMA)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)

    def step(i: int) -> dict[str, float]:
        set_rate(optimizer, i, steps, RATE)
        x0, ids, t, eps = (a.to(device) for a in batch(data, tokenizer, seed, i))
        x_t, v = scheduler.add_noise(x0, eps, t), scheduler.get_velocity(x0, eps, t)
        # the plain attention kernel: under bfloat16 on a CPU a quarter faster than the fused one
        with torch.autocast(device, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted = unet(x_t, t, text(ids).last_hidden_state, added_cond_kwargs={}).sample
        loss = F.mse_loss(predicted.float(), v)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        return {"loss": loss.item()}

    def save(folder: Path) -> None:
        kept = dict(average.module.named_children())
        parts = {
            "vae": vae,
            "tokenizer": tokenizer,
            "text_encoder": kept["text"],
            "unet": kept["unet"],
        }
        save_pipeline(folder, **parts, scheduler=scheduler, defaults=BASE_DEFAULTS)

    def look(i: int) -> None:
        save(runs / "base" / "pipeline")
        draw(runs / "base" / "pipeline", runs / "base" / f"grid_{i:05d}.png", **BASE_DEFAULTS)

    parts = {"model": model, "average": average, "optimizer": optimizer}
    train_loop(runs / "base", parts, step, steps, look=look, look_every=1500)
    save(WEIGHTS / "base")
    note_training(WEIGHTS / "base", before + steps, seed)


def batch(
    data: Latents, tokenizer: Any, seed: int, i: int, size: int = BATCH
) -> tuple[torch.Tensor, ...]:
    """x₀, token ids, timesteps and noise of step i; the same for the same (seed, i)."""
    generator, rng = (
        torch.Generator().manual_seed(seed * 1_000_003 + i),
        random.Random(f"{seed}:{i}"),
    )
    pick = torch.randint(len(data.scenes), (size,), generator=generator)
    captions = [
        "" if rng.random() < EMPTY else sample_caption(data.scenes[int(p)], rng) for p in pick
    ]
    t = torch.randint(1000, (size,), generator=generator)
    upper = torch.rand(size, generator=generator) < 0.3
    t = torch.where(upper, 500 + t // 2, t)
    x0 = data.x0[pick].contiguous(memory_format=torch.channels_last)
    return x0, tokenize(tokenizer, captions), t, torch.randn(x0.shape, generator=generator)


def draw(folder: Path, path: Path, *, columns: int = 12, **call: Any) -> None:
    """A grid of samples: four rows of open prompts, four of full captions."""
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rng, rows = random.Random(0), []
    for kind in BARE_PROMPTS:
        full = [caption(sample_scene(kind.split()[1], rng)) for _ in range(columns)]
        for prompts in ([kind] * columns, full):
            generators = [torch.Generator().manual_seed(s) for s in range(columns)]
            rows.append(
                np.concatenate(
                    pipe(prompts, generator=generators, output_type="np", **call).images, axis=1
                )
            )
    grid = Image.fromarray((np.concatenate(rows) * 255).round().astype("uint8"))
    grid.save(path, optimize=True)
