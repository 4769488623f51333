"""What the four distillation trainers share: the frozen teacher, x̂₀ and noising at a timestep a
sample, the end.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from xhat.zoo.family.attributes import KINDS, sample_caption, sample_scene
from xhat.zoo.family.base import draw
from xhat.zoo.family.loop import ema, note_training, train_loop
from xhat.zoo.family.networks import base_scheduler, save_pipeline, tokenize
from xhat.zoo.pairs import STUDENT_DEFAULTS, WEIGHTS

TIMESTEPS = (999, 749, 499, 249)
"""Where the students evaluate the network: DMD2's four timesteps."""


@dataclass
class Teacher:
    """The base, frozen, with the tables and captions that its students are trained with."""

    unet: Any
    text_encoder: Any
    tokenizer: Any
    vae: Any
    alpha_bar: torch.Tensor
    device: str

    def student(self) -> Any:
        """A trainable copy of the base's UNet."""
        return copy.deepcopy(self.unet).requires_grad_(True).train()

    @torch.no_grad()
    def condition(self, captions: list[str]) -> torch.Tensor:
        """Caption embeddings (n, tokens, width)."""
        return self.text_encoder(
            tokenize(self.tokenizer, captions).to(self.device)
        ).last_hidden_state

    def captions(self, rng: random.Random, size: int) -> list[str]:
        """Training captions of random scenes."""
        return [sample_caption(sample_scene(rng.choice(KINDS), rng), rng) for _ in range(size)]

    def predict(
        self, unet: Any, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor
    ) -> torch.Tensor:
        """x̂₀ = √ᾱ·x_t − √(1−ᾱ)·v̂ at a timestep a sample (n,)."""
        with torch.autocast(self.device, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            v = unet(x_t, t, cond, added_cond_kwargs={}).sample.float()
        a, b = self.scales(t)
        return a * x_t - b * v

    @torch.no_grad()
    def guided(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The teacher's x̂₀ with classifier-free guidance: x̂₀(∅) + w·(x̂₀(c) − x̂₀(∅))."""
        empty = self.condition([""]).expand_as(cond)
        both = self.predict(
            self.unet, torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([empty, cond])
        )
        without, given = both.chunk(2)
        return without + scale * (given - without)

    def scales(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """√ᾱ_t and √(1−ᾱ_t), shaped (n, 1, 1, 1)."""
        alpha_bar = self.alpha_bar[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def noised(self, x0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        """x_t = √ᾱ·x₀ + √(1−ᾱ)·ε."""
        a, b = self.scales(t)
        return a * x0 + b * eps

    def ddim(
        self, x_t: torch.Tensor, x0: torch.Tensor, t: torch.Tensor, to: torch.Tensor
    ) -> torch.Tensor:
        """The deterministic step from t to a lower timestep (2010.02502, eq. 12 with η = 0); to −1:
        x̂₀ itself.
        """
        a, b = self.scales(t)
        stepped = self.noised(x0, to.clamp(min=0), (x_t - a * x0) / b)
        return torch.where((to < 0).view(-1, 1, 1, 1), x0, stepped)


def load_teacher(device: str = "cpu", folder: Path = WEIGHTS / "base") -> Teacher:
    """The trained base, frozen."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    unet = pipe.unet.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    alpha_bar = base_scheduler().alphas_cumprod.to(device)
    return Teacher(
        unet,
        pipe.text_encoder.requires_grad_(False).eval(),
        pipe.tokenizer,
        pipe.vae,
        alpha_bar,
        device,
    )


def seeded(seed: int, i: int, device: str = "cpu") -> tuple[torch.Generator, random.Random]:
    """The generators of step i."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + i), random.Random(f"{seed}:{i}")


def noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal noise of the shape of ``like``."""
    return torch.randn(like.shape, generator=generator, device=like.device)


def distil(
    name: str,
    runs: Path,
    teacher: Teacher,
    student: Any,
    parts: dict[str, Any],
    step: Callable[[int], dict[str, float]],
    steps: int,
    seed: int,
    scheduler: Any,
    decay: float = 0.99,
) -> None:
    """Run the loop with an EMA of the student, draw grids, and save the student's pipeline beside
    the base's.
    """
    average = ema(student, decay)

    def step_and_average(i: int) -> dict[str, float]:
        losses = step(i)
        average.update_parameters(student)
        return losses

    def save(folder: Path) -> None:
        save_pipeline(
            folder,
            vae=teacher.vae,
            tokenizer=teacher.tokenizer,
            text_encoder=teacher.text_encoder,
            unet=average.module,
            scheduler=scheduler,
            defaults=STUDENT_DEFAULTS,
        )

    def look(i: int) -> None:
        folder = runs / name / "pipeline"
        save(folder)
        draw(folder, runs / name / f"grid_{i:05d}.png", **STUDENT_DEFAULTS)

    parts = {"student": student, "average": average, **parts}
    train_loop(
        runs / name,
        parts,
        step_and_average,
        steps,
        save_every=50,
        look=look,
        look_every=max(100, steps // 4),
    )
    save(WEIGHTS / name)
    note_training(WEIGHTS / name, steps, seed)
