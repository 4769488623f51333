"""``turbo``: adversarial diffusion distillation with most of the student frozen.

ADD (Sauer et al. 2023, 2311.17042) with the discriminator on the frozen teacher's features (LADD,
2403.12015); the convolutions stay frozen (2506.09376 fine-tunes with 85 % of the parameters
frozen)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from xhat.zoo.family.attributes import sample_caption
from xhat.zoo.family.base import latents
from xhat.zoo.family.distil import TIMESTEPS, Teacher, distil, load_teacher, noise, seeded
from xhat.zoo.family.networks import student_scheduler

STEPS, BATCH, RATE, HEAD_RATE, GUIDANCE, DISTIL_WEIGHT = 700, 32, 2e-4, 1e-3, 2.5, 1.0


class Heads(nn.Module):
    """A small convolutional critic on each of the teacher's down and mid features, given the pooled
    caption.
    """

    def __init__(self, widths: list[int], caption_width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, w), nn.Conv2d(w, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 1)
            )
            for w in widths
        )
        self.caption = nn.Linear(caption_width, 64)

    def forward(self, features: list[torch.Tensor], cond: torch.Tensor) -> torch.Tensor:
        """One score a sample and head, by projection on the caption (cGAN with projection,
        1802.05637).
        """
        said = self.caption(cond.mean(1))[:, :, None, None]
        scores = [
            (h(f) * (1 + said)).mean((1, 2, 3)) for h, f in zip(self.heads, features, strict=True)
        ]
        return torch.stack(scores, dim=1)


def trainable(student: Any) -> list[nn.Parameter]:
    """Freeze every 3 × 3 convolution but the first and last; return what is left to train."""
    student.requires_grad_(True)
    for name, module in student.named_modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (3, 3)
            and name not in ("conv_in", "conv_out")
        ):
            module.requires_grad_(False)
    return [p for p in student.parameters() if p.requires_grad]


def train_turbo(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> None:
    """Hinge loss of the critic on noised latents, plus ‖x̂₀ − x̂₀_teacher‖² at the student's
    re-noised sample.

    ADD, equations 1 to 4; weighting of the distance by √ᾱ as there.
    """
    teacher = load_teacher(device)
    # In channels-last, the backward pass through the frozen teacher crashed torch 2.13 on CPU.
    teacher.unet.to(memory_format=torch.contiguous_format)
    data, _ = latents(runs)
    student = teacher.student()
    parameters = trainable(student)
    tap = Features(teacher)
    heads = Heads(tap.widths, teacher.text_encoder.config.hidden_size).to(device)
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.0, 0.99), weight_decay=0.0)
    head_optimizer = torch.optim.AdamW(
        heads.parameters(), HEAD_RATE, betas=(0.0, 0.99), weight_decay=0.0
    )
    at = torch.tensor(TIMESTEPS, device=device)

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(seed, i, device)
        pick = torch.randint(len(data.scenes), (BATCH,), generator=generator, device=device)
        cond = teacher.condition([sample_caption(data.scenes[int(p)], rng) for p in pick])
        real = data.x0[pick.cpu()].to(device)
        t = at[torch.randint(len(at), (BATCH,), generator=generator, device=device)]
        made = teacher.predict(student, teacher.noised(real, t, noise(real, generator)), t, cond)

        level = torch.randint(50, 800, (BATCH,), generator=generator, device=device)
        eps = noise(real, generator)
        score = heads(tap(teacher.noised(made, level, eps), level, cond), cond)
        with torch.no_grad():
            again = teacher.guided(teacher.noised(made, level, eps), level, cond, GUIDANCE)
        a, _ = teacher.scales(level)
        distance = (a * (made - again).square()).mean()
        loss = -score.mean() + DISTIL_WEIGHT * distance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

        with torch.no_grad():
            both = torch.cat([teacher.noised(real, level, eps), teacher.noised(made, level, eps)])
            features = tap(both, torch.cat([level, level]), torch.cat([cond, cond]))
        real_score, made_score = heads(features, torch.cat([cond, cond])).chunk(2)
        head_loss = F.relu(1 - real_score).mean() + F.relu(1 + made_score).mean()
        head_optimizer.zero_grad()
        head_loss.backward()
        head_optimizer.step()
        return {
            "adversary": head_loss.item(),
            "distance": distance.item(),
            "rms": made.square().mean().sqrt().item(),
        }

    parts = {"heads": heads, "optimizer": optimizer, "head_optimizer": head_optimizer}
    distil("turbo", runs, teacher, student, parts, step, steps, seed, student_scheduler())


class Features:
    """The teacher's down-block and mid-block outputs at a noised latent."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.caught: list[torch.Tensor] = []
        blocks = [*teacher.unet.down_blocks, teacher.unet.mid_block]
        for block in blocks:
            block.register_forward_hook(self._catch)
        self.widths = [
            *teacher.unet.config.block_out_channels,
            teacher.unet.config.block_out_channels[-1],
        ]

    def _catch(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self.caught.append((output[0] if isinstance(output, tuple) else output).float())

    def __call__(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor
    ) -> list[torch.Tensor]:
        self.caught = []
        self.teacher.predict(self.teacher.unet, x_t, t, cond)
        caught, self.caught = self.caught, []
        return caught
