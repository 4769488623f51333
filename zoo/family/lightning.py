"""``lightning``: progressive distillation with an adversary (SDXL-Lightning, Lin et al. 2024,
2402.13929).

The student follows the teacher's own trajectories, so it needs no noise after x_T: first by
regression, then by an adversary that sees where a step started, then by one that does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from xhat.zoo.family.base import Latents, latents
from xhat.zoo.family.critic import Critic, Features
from xhat.zoo.family.distil import Distillation, distil
from xhat.zoo.family.teacher import Teacher, load_teacher, noise, seeded
from xhat.zoo.pairs import BASE_DEFAULTS

STEPS, BATCH, RATE, HEAD_RATE, FINE = 1000, 16, 1e-4, 1e-3, 3
REGRESSION, CONDITIONAL = 600, 300
"""Steps of regression, and of the adversary that sees the start; the rest is without it."""

GUIDANCE = BASE_DEFAULTS["guidance_scale"]


def train_lightning(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """A student's step goes where ``FINE`` guided DDIM steps of the teacher go, from real latents
    noised to its timesteps; one stage, since the teacher takes twenty steps and not a thousand.
    """
    run = Distillation("lightning", runs, steps, seed, device, renoise=False)
    teacher = load_teacher(device)
    trainer = Lightning(run, teacher, latents(runs)[0])
    return distil(run, teacher, trainer.student, trainer.parts(), trainer.step)


@dataclass(frozen=True)
class StepRange:
    """One step of a batch: from x_t at t to timestep ``to`` (−1: a picture), given captions."""

    x_t: torch.Tensor
    t: torch.Tensor
    to: torch.Tensor
    cond: torch.Tensor


@dataclass
class Lightning:
    """The student, the critic of its steps, and their optimizers."""

    run: Distillation
    teacher: Teacher
    data: Latents

    def __post_init__(self) -> None:
        self.student, self.features = self.teacher.student(), Features(self.teacher)
        self.critic = Critic(self.teacher, copies=2).to(self.run.device)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), RATE, betas=(0.0, 0.99))
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), HEAD_RATE, betas=(0.0, 0.99)
        )

    def parts(self) -> dict[str, Any]:
        """What is saved beside the student, for a run that goes on."""
        return {
            "critic": self.critic,
            "optimizer": self.optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def step(self, i: int) -> dict[str, float]:
        """Regression for the first ``REGRESSION`` steps, then the adversary."""
        interval = self.interval(i)
        goal = self.teacher_step(interval)
        x0 = self.teacher.predict(self.student, interval.x_t, interval.t, interval.cond)
        if i < REGRESSION:
            loss = F.mse_loss(x0, self.goal_x0(interval, goal))
            self.update(loss)
            return {"x0_error": loss.item()}
        made = self.teacher.ddim(interval.x_t, x0, interval.t, interval.to)
        return self.play(interval, made, goal, blind=i >= REGRESSION + CONDITIONAL)

    def interval(self, i: int) -> StepRange:
        """Real latents, noised to one of the student's timesteps each."""
        generator, rng = seeded(self.run.seed, i, self.run.device)
        real, captions = self.data.pick(BATCH, generator, rng)
        cond = self.teacher.condition(captions)
        ends = torch.tensor((*self.run.timesteps, -1), device=self.run.device)
        k = torch.randint(len(ends) - 1, (BATCH,), generator=generator, device=self.run.device)
        x_t = self.teacher.noised(real, ends[k], noise(real, generator))
        return StepRange(x_t, ends[k], ends[k + 1], cond)

    def teacher_step(self, interval: StepRange) -> torch.Tensor:
        """Where the guided teacher arrives in ``FINE`` DDIM steps."""
        x_t, t = interval.x_t, interval.t
        for k in range(1, FINE + 1):
            below = interval.t + (interval.to - interval.t) * k // FINE
            x0 = self.teacher.guided(x_t, t, interval.cond, GUIDANCE)
            x_t, t = self.teacher.ddim(x_t, x0, t, below), below
        return x_t

    def goal_x0(self, interval: StepRange, goal: torch.Tensor) -> torch.Tensor:
        """The x̂₀ whose DDIM step lands on the goal x_{t'}: (x_{t'} − (b'/b)·x_t)/(a' − (b'/b)·a)
        with a = √ᾱ, b = √(1−ᾱ) (2202.00512, appendix G).
        """
        a, b = self.teacher.scales(interval.t)
        to = interval.to.clamp(min=0)
        a_to, b_to = self.teacher.scales(to)
        x0 = (goal - b_to / b * interval.x_t) / (a_to - b_to / b * a)
        return torch.where((interval.to < 0).view(-1, 1, 1, 1), goal, x0)

    def play(
        self, interval: StepRange, made: torch.Tensor, goal: torch.Tensor, *, blind: bool
    ) -> dict[str, float]:
        """Non-saturating losses (2402.13929, eq. 5 and 6) on features of both ends of the step;
        ``blind``: of its end alone.
        """
        to = interval.to.clamp(min=0)
        start = self.features(interval.x_t, interval.t, interval.cond)
        start = [torch.zeros_like(f) if blind else f for f in start]

        def scores(ends: list[torch.Tensor]) -> torch.Tensor:
            both = [torch.cat([e, s], dim=1) for e, s in zip(ends, start, strict=True)]
            return torch.stack(self.critic(both, interval.cond))

        made_features = self.features(made, to, interval.cond)
        fooled = F.softplus(-scores(made_features)).mean()
        self.update(fooled)
        goal_features = self.features(goal, to, interval.cond)
        told = F.softplus(-scores(goal_features)) + F.softplus(
            scores([f.detach() for f in made_features])
        )
        self.critic_optimizer.zero_grad()
        told.mean().backward()
        self.critic_optimizer.step()
        return {"fooled": fooled.item(), "told": told.mean().item()}

    def update(self, loss: torch.Tensor) -> None:
        """One step of the student."""
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
