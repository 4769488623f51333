"""The frozen base that students are distilled from: x̂₀ and noising at a timestep a sample, DDIM,
guidance, and sampling in a few re-noised steps.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from xhat.zoo.family.attributes import KINDS, sample_caption, sample_scene
from xhat.zoo.family.networks import base_scheduler, tokenize
from xhat.zoo.family.precision import half_precision
from xhat.zoo.pairs import WEIGHTS

SHAPE = (4, 16, 16)
"""Channels, height and width of a latent."""


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
    def condition(self, captions: Sequence[str]) -> torch.Tensor:
        """Caption embeddings (n, tokens, width)."""
        return self.text_encoder(
            tokenize(self.tokenizer, list(captions)).to(self.device)
        ).last_hidden_state

    def captions(self, rng: random.Random, size: int) -> list[str]:
        """Training captions of random scenes."""
        return [sample_caption(sample_scene(rng.choice(KINDS), rng), rng) for _ in range(size)]

    def predict(
        self, unet: Any, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor
    ) -> torch.Tensor:
        """x̂₀ = √ᾱ·x_t − √(1−ᾱ)·v̂ at a timestep a sample (n,)."""
        v = self.evaluate(unet, x_t, t, cond)
        a, b = self.scales(t)
        return a * x_t - b * v

    def evaluate(
        self, unet: Any, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor
    ) -> torch.Tensor:
        """The network's own output, v̂ where it is a student or the base."""
        with half_precision(self.device), sdpa_kernel(SDPBackend.MATH):
            return unet(x_t, t, cond, added_cond_kwargs={}).sample.float()

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

    def renoised(
        self, unet: Any, cond: torch.Tensor, timesteps: Sequence[int], eps: torch.Tensor
    ) -> torch.Tensor:
        """x̂₀ after one evaluation at each of ``timesteps``; see :meth:`renoisings`."""
        return list(self.renoisings(unet, cond, timesteps, eps))[-1]

    def renoisings(
        self, unet: Any, cond: torch.Tensor, timesteps: Sequence[int], eps: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """x̂₀ at each of ``timesteps``, noised anew in between, as an LCM scheduler samples. The
        gradient flows through the last evaluation only.

        ``eps`` (len(timesteps), n, c, h, w): x_T, then the noise of each later timestep."""
        x_t, last = eps[0], len(timesteps) - 1
        for k, at in enumerate(timesteps):
            t = torch.full((len(cond),), at, device=cond.device)
            with torch.set_grad_enabled(k == last and torch.is_grad_enabled()):
                x0 = self.predict(unet, x_t, t, cond)
            yield x0
            if k < last:
                x_t = self.noised(x0, torch.full_like(t, timesteps[k + 1]), eps[k + 1])

    def states(
        self, unet: Any, cond: torch.Tensor, timesteps: Sequence[int], eps: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """The input x_t of each of those evaluations."""
        yield eps[0]
        made = self.renoisings(unet, cond, timesteps, eps)
        for at, e, x0 in zip(timesteps[1:], eps[1:], made, strict=False):
            yield self.noised(x0, torch.full((len(cond),), at, device=cond.device), e)

    def followed(
        self, unet: Any, cond: torch.Tensor, timesteps: Sequence[int], x_t: torch.Tensor
    ) -> torch.Tensor:
        """Latents after a DDIM step from each of ``timesteps`` to the next, and to x̂₀ at last."""
        for at, below in zip(timesteps, (*timesteps[1:], -1), strict=True):
            t, to = (torch.full((len(cond),), v, device=cond.device) for v in (at, below))
            x_t = self.ddim(x_t, self.predict(unet, x_t, t, cond), t, to)
        return x_t


def load_teacher(device: str = "cpu", folder: Path = WEIGHTS / "base") -> Teacher:
    """The trained base, frozen.

    Its memory stays in the plain format: in channels-last, the backward pass through a frozen
    network crashed torch 2.13 on a CPU."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    return Teacher(
        pipe.unet.requires_grad_(False).eval(),
        pipe.text_encoder.requires_grad_(False).eval(),
        pipe.tokenizer,
        pipe.vae,
        base_scheduler().alphas_cumprod.to(device),
        device,
    )


def seeded(seed: int, i: int, device: str = "cpu") -> tuple[torch.Generator, random.Random]:
    """The generators of step i."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + i), random.Random(f"{seed}:{i}")


def noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal noise of the shape of ``like``."""
    return torch.randn(like.shape, generator=generator, device=like.device)
