"""``dmd``: distribution matching distillation, DMD2 (Yin et al. 2024, 2405.14867).

The student's samples follow the gradient of a reverse KL divergence to the guided teacher, and an
adversary that reads the bottleneck of the fake-score network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from xhat.zoo.family.base import Latents, latents
from xhat.zoo.family.distil import Distillation, distil
from xhat.zoo.family.teacher import SHAPE, Teacher, load_teacher, noise, seeded
from xhat.zoo.pairs import BASE_DEFAULTS

STEPS, BATCH, RATE, FAKE_RATE, FAKE_UPDATES, DECAY = 200, 16, 1e-4, 2e-4, 5, 0.95
BASE_GUIDANCE = BASE_DEFAULTS["guidance_scale"]
GUIDANCE = 1.5 * BASE_GUIDANCE  # published: 8 for SDXL, which is sampled at 5 to 7
FOOL_WEIGHT, TELL_WEIGHT = 5e-3, 1e-2  # of the adversary, as published for SDXL


def train_dmd(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """As published: the real score is guided more strongly than the base is sampled."""
    return _train(Distillation("dmd", runs, steps, seed, device, decay=DECAY), GUIDANCE)


def train_dmd_even(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """The control that covers modes: the real score is guided as the base is sampled."""
    return _train(Distillation("dmd-even", runs, steps, seed, device, decay=DECAY), BASE_GUIDANCE)


def _train(run: Distillation, guidance: float) -> Path:
    """Two time scales (section 4.2): ``FAKE_UPDATES`` of the fake-score network to one of the
    generator, each on samples of the generator as it now is.
    """
    teacher = load_teacher(run.device)
    data, _ = latents(run.runs)
    game = Game(run, teacher, data, guidance)

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(run.seed, i, run.device)
        losses = game.update_student(generator, teacher.condition(teacher.captions(rng, BATCH)))
        made, cond = game.samples(generator, rng)
        for part in range(FAKE_UPDATES):
            at = slice(part * BATCH, (part + 1) * BATCH)
            losses |= game.update_fake(generator, rng, made[at], cond[at])
        return losses

    return distil(run, teacher, game.student, game.parts(), step)


class Telling(nn.Module):
    """The adversary's head: a logit from the bottleneck features of the fake-score network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.GroupNorm(16, width),
            nn.SiLU(),
            nn.Conv2d(width, 1, 2),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n,) logits, above 0 where real."""
        return self.layers(features).flatten()


@dataclass
class Game:
    """The student, the network that follows its scores, and the adversary on that network."""

    run: Distillation
    teacher: Teacher
    data: Latents
    guidance: float

    def __post_init__(self) -> None:
        self.student, self.fake = self.teacher.student(), self.teacher.student()
        self.head = Telling(self.fake.config.block_out_channels[-1]).to(self.run.device)
        self.bottleneck = torch.empty(0)
        self.fake.mid_block.register_forward_hook(self._collect)
        self.optimizer = _adam(list(self.student.parameters()), RATE)
        followers = [*self.fake.parameters(), *self.head.parameters()]
        self.fake_optimizer = _adam(followers, FAKE_RATE)

    def _collect(self, _module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        self.bottleneck = output.float()

    def parts(self) -> dict[str, Any]:
        """What is saved beside the student, for a run that goes on."""
        return {
            "fake": self.fake,
            "head": self.head,
            "optimizer": self.optimizer,
            "fake_optimizer": self.fake_optimizer,
        }

    def update_student(self, generator: torch.Generator, cond: torch.Tensor) -> dict[str, float]:
        """∇ = (x̂₀_fake − x̂₀_real)/mean|x₀ − x̂₀_real| at a random noise level (2311.18828, eq. 7–8),
        and the non-saturating loss against the adversary (DMD2, eq. 4).

        The student is trained on its own roll-outs, to a random one of its timesteps (section 4.5).
        """
        teacher, timesteps = self.teacher, self.run.timesteps
        evaluations = 1 + int(
            torch.randint(len(timesteps), (1,), generator=generator, device=cond.device)
        )
        eps = _noises(generator, evaluations, len(cond), cond.device)
        x0 = teacher.renoised(self.student, cond, timesteps[:evaluations], eps)

        t = torch.randint(20, 980, (len(cond),), generator=generator, device=cond.device)
        x_t = teacher.noised(x0, t, noise(x0, generator))
        self.fake.requires_grad_(False)
        fake = teacher.predict(self.fake, x_t, t, cond)
        self.fake.requires_grad_(True)
        fooled = F.softplus(-self.head(self.bottleneck)).mean()
        with torch.no_grad():
            real = teacher.guided(x_t, t, cond, self.guidance)
            size = (x0 - real).abs().mean((1, 2, 3), keepdim=True)
            goal = x0 - (fake - real) / size
        matching = 0.5 * F.mse_loss(x0, goal)
        self.optimizer.zero_grad()
        (matching + FOOL_WEIGHT * fooled).backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        rms = x0.detach().square().mean().sqrt().item()
        return {"dmd": matching.item(), "fooled": fooled.item(), "rms": rms}

    @torch.no_grad()
    def samples(self, generator: torch.Generator, rng: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Fresh x̂₀ and captions for ``FAKE_UPDATES`` batches: those of every timestep of a
        roll-out, mixed.
        """
        teacher, timesteps = self.teacher, self.run.timesteps
        count = FAKE_UPDATES * BATCH // len(timesteps)
        cond = teacher.condition(teacher.captions(rng, count))
        eps = _noises(generator, len(timesteps), count, cond.device)
        made = torch.stack(list(teacher.renoisings(self.student, cond, timesteps, eps)))
        order = torch.randperm(made.shape[0] * count, generator=generator, device=cond.device)
        every = cond.expand(len(timesteps), *cond.shape)
        mixed = (rearrange(a, "step n ... -> (step n) ...")[order] for a in (made, every))
        return next(mixed), next(mixed)

    def update_fake(
        self, generator: torch.Generator, rng: Any, made: torch.Tensor, cond: torch.Tensor
    ) -> dict[str, float]:
        """Denoise the student's samples, and tell them from real latents by the bottleneck."""
        teacher = self.teacher
        t = torch.randint(0, 1000, (len(made),), generator=generator, device=made.device)
        x_t = teacher.noised(made, t, noise(made, generator))
        loss = v_loss(teacher, teacher.predict(self.fake, x_t, t, cond), made, t)
        told = F.softplus(self.head(self.bottleneck)).mean()

        real, captions = self.data.pick(len(made), generator, rng)
        x_t = teacher.noised(real, t, noise(real, generator))
        teacher.evaluate(self.fake, x_t, t, teacher.condition(captions))
        told = told + F.softplus(-self.head(self.bottleneck)).mean()
        self.fake_optimizer.zero_grad()
        (loss + TELL_WEIGHT * told).backward()
        nn.utils.clip_grad_norm_([*self.fake.parameters(), *self.head.parameters()], 1.0)
        self.fake_optimizer.step()
        return {"fake": loss.item(), "told": told.item()}


def _adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, rate, betas=(0.0, 0.99), weight_decay=0.01)


def _noises(generator: torch.Generator, steps: int, n: int, device: Any) -> torch.Tensor:
    return torch.randn(steps, n, *SHAPE, generator=generator, device=device)


def v_loss(
    teacher: Teacher, x0_hat: torch.Tensor, x0: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """‖v̂ − v‖² written with x̂₀: the error of x̂₀ weighted by 1/(1−ᾱ), the weight the base was
    trained with.
    """
    _, b = teacher.scales(t)
    return ((x0_hat - x0) / b).square().mean()
