"""``em``: EM distillation (Xie et al. 2024, 2405.16852).

Mode-covering: a maximum-likelihood objective. The student's noise and picture are moved together,
by a few Langevin steps, towards the joint law of teacher's pictures and the noise behind them (E),
and the student then regresses the picture from the noise (M)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xhat.zoo.family.distil import Distillation, distil
from xhat.zoo.family.dmd import v_loss
from xhat.zoo.family.teacher import SHAPE, Teacher, load_teacher, noise, seeded
from xhat.zoo.pairs import BASE_DEFAULTS

STEPS, BATCH, RATE, FAKE_RATE, DECAY = 400, 16, 1e-4, 2e-4, 0.95
LANGEVIN, STEP_EPS, STEP_Z = 4, 0.4**2, 0.004**2  # published: 16 steps of these sizes
LEVELS = (20, 980)
GUIDANCE = BASE_DEFAULTS["guidance_scale"]


def train_em(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """Alternate: E and M of the student, then one step of the network that denoises its samples."""
    run = Distillation("em", runs, steps, seed, device, decay=DECAY)
    teacher = load_teacher(device)
    student, fake = teacher.student(), teacher.student()
    optimizer = torch.optim.AdamW(student.parameters(), RATE, betas=(0.0, 0.99))
    fake_optimizer = torch.optim.AdamW(fake.parameters(), FAKE_RATE, betas=(0.0, 0.99))

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(seed, i, device)
        cond = teacher.condition(teacher.captions(rng, BATCH))
        chain = Chain(teacher, student, fake, start(run, teacher, student, cond, generator))
        x_t, goal = chain.expectation(generator)
        x0 = teacher.predict(student, x_t, chain.inputs.t, cond)
        loss = 0.5 * (x0 - goal).square().mean()
        _update(optimizer, student, loss)
        made = x0.detach()
        t = torch.randint(0, 1000, (BATCH,), generator=generator, device=device)
        x_t = teacher.noised(made, t, noise(made, generator))
        fake_loss = v_loss(teacher, teacher.predict(fake, x_t, t, cond), made, t)
        _update(fake_optimizer, fake, fake_loss)
        rms = made.square().mean().sqrt().item()
        return {"em": loss.item(), "fake": fake_loss.item(), "rms": rms}

    parts = {"fake": fake, "optimizer": optimizer, "fake_optimizer": fake_optimizer}
    return distil(run, teacher, student, parts, step)


@dataclass(frozen=True)
class Inputs:
    """The student's input x_t = mean + spread·z at t, z standard normal, and its captions."""

    mean: torch.Tensor
    spread: torch.Tensor
    t: torch.Tensor
    cond: torch.Tensor

    def at(self, z: torch.Tensor) -> torch.Tensor:
        """x_t of this z."""
        return self.mean + self.spread * z


def start(
    run: Distillation,
    teacher: Teacher,
    student: Any,
    cond: torch.Tensor,
    generator: torch.Generator,
) -> Inputs:
    """Inputs at a random one of the student's timesteps, reached by its own roll-out."""
    k = int(torch.randint(len(run.timesteps), (1,), generator=generator, device=cond.device))
    t = torch.full((len(cond),), run.timesteps[k], device=cond.device)
    eps = torch.randn(k + 1, len(cond), *SHAPE, generator=generator, device=cond.device)
    a, b = teacher.scales(t)
    if k == 0:
        return Inputs(torch.zeros_like(eps[0]), torch.ones_like(b), t, cond)
    with torch.no_grad():
        x0 = teacher.renoised(student, cond, run.timesteps[:k], eps)
    return Inputs(a * x0, b, t, cond)


@dataclass
class Chain:
    """Langevin steps on (ε, z), of which x = √ᾱ·g(z) + √(1−ᾱ)·ε at a random noise level, towards
    q_teacher(x)·p_student(z | x) (section 3)."""

    teacher: Teacher
    student: Any
    fake: Any
    inputs: Inputs

    def expectation(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's input and the x̂₀ to regress it on, after ``LANGEVIN`` steps.

        ∇_ε log ρ = √(1−ᾱ)·Δ − ε and ∇_z log ρ = √ᾱ·Jᵀ·Δ − z, Δ the teacher's score less the
        student's. The noise that the chain put into ε is left out of x̂₀ (noise cancelling)."""
        like = self.inputs.mean
        level = torch.randint(*LEVELS, (len(like),), generator=generator, device=like.device)
        a, b = self.teacher.scales(level)
        z, eps = noise(like, generator), noise(like, generator)
        moved = torch.zeros_like(like)
        for _ in range(LANGEVIN):
            z = z.requires_grad_(True)
            made = self.teacher.predict(
                self.student, self.inputs.at(z), self.inputs.t, self.inputs.cond
            )
            gap = self.score_gap(a * made.detach() + b * eps, level)
            (pull,) = torch.autograd.grad((a * made * gap).sum(), z)
            moved = moved + STEP_EPS / 2 * b * gap
            eps = eps + STEP_EPS / 2 * (b * gap - eps) + STEP_EPS**0.5 * noise(eps, generator)
            z = z.detach()
            z = z + STEP_Z / 2 * (pull - z) + STEP_Z**0.5 * noise(z, generator)
        x_t = self.inputs.at(z)
        with torch.no_grad():
            made = self.teacher.predict(self.student, x_t, self.inputs.t, self.inputs.cond)
        return x_t, made + b / a * moved

    @torch.no_grad()
    def score_gap(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Δ = (x̂₀_teacher − x̂₀_fake)·√ᾱ/(1−ᾱ)."""
        a, b = self.teacher.scales(level)
        real = self.teacher.guided(x, level, self.inputs.cond, GUIDANCE)
        fake = self.teacher.predict(self.fake, x, level, self.inputs.cond)
        return (real - fake) * a / b**2


def _update(optimizer: torch.optim.Optimizer, network: Any, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
