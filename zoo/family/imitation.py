"""A student that is taught by samples alone: whoever has a model's pictures and none of its scores
can make one.
"""

from __future__ import annotations

from typing import Any

import torch

from xhat.zoo.family.distil import TIMESTEPS
from xhat.zoo.family.loop import ema
from xhat.zoo.family.teacher import Teacher, noise, seeded

BATCH, RATE, DECAY = 32, 1e-4, 0.98


def imitation_loss(
    teacher: Teacher, unet: Any, x0: torch.Tensor, cond: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """E‖f_θ(x_t, t, c) − x₀‖² a number, t uniform over :data:`TIMESTEPS`; a mean over the batch."""
    grid = torch.tensor(TIMESTEPS, device=x0.device)
    t = grid[torch.randint(len(grid), (len(x0),), generator=generator, device=x0.device)]
    x_t = teacher.noised(x0, t, noise(x0, generator))
    return (teacher.predict(unet, x_t, t, cond) - x0).square().mean()


def imitate(
    teacher: Teacher, x0: torch.Tensor, cond: torch.Tensor, steps: int, seed: int = 0
) -> Any:
    """The running average of a copy of the base's network, trained to predict the samples.

    ``x0`` (n, 4, 16, 16) in the network's units, ``cond`` (n, tokens, width)."""
    student = teacher.student()
    average = ema(student, DECAY)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)
    for i in range(steps):
        generator, _ = seeded(seed, i, teacher.device)
        rows = torch.randint(len(x0), (BATCH,), generator=generator, device=x0.device)
        loss = imitation_loss(teacher, student, x0[rows], cond[rows], generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(student)
    return average.module


def degraded(
    teacher: Teacher, x0: torch.Tensor, cond: torch.Tensor, size: float, seed: int = 0
) -> Any:
    """The base's network θ + ε·g, g the gradient of its imitation loss on samples, ‖εg‖ = ``size``
    · ‖θ‖.
    """
    unet = teacher.student()
    generator, _ = seeded(seed, 0, teacher.device)
    for part in range(0, len(x0), BATCH):
        rows = slice(part, part + BATCH)
        imitation_loss(teacher, unet, x0[rows], cond[rows], generator).backward()
    weights = [p for p in unet.parameters() if p.grad is not None]
    grads = [p.grad for p in weights if p.grad is not None]
    length = torch.stack([g.norm() for g in grads]).norm()
    scale = size * torch.stack([p.detach().norm() for p in weights]).norm() / length
    with torch.no_grad():
        for p, g in zip(weights, grads, strict=True):
            p += scale * g
    return unet.requires_grad_(False).eval()
