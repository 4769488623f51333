"""``lcm``: latent consistency distillation (Luo et al. 2023, 2310.04378) at a fixed guidance scale.

Any point of the teacher's guided trajectory is mapped to its end: neighbours on the trajectory must
agree."""

from __future__ import annotations

from pathlib import Path

import torch

from xhat.zoo.family.base import latents
from xhat.zoo.family.distil import Distillation, distil
from xhat.zoo.family.loop import ema
from xhat.zoo.family.networks import student_scheduler
from xhat.zoo.family.teacher import load_teacher, noise, seeded

STEPS, BATCH, RATE, TARGET_EMA, GUIDANCE, GRID = 1200, 32, 2e-4, 0.95, 3.0, 20


def train_lcm(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """Minimise the pseudo-Huber distance of f(x_{t+k}, t+k) and f⁻(x̂_t, t), x̂_t one guided DDIM
    step of the teacher.

    f(x, t) = c_skip·x + c_out·x̂₀ with LCM's boundary scalings (2310.04378, eq. 9 and 16–18), over
    a grid of ``GRID`` trailing timesteps; f⁻ carries an EMA of the student's weights."""
    teacher = load_teacher(device)
    data, _ = latents(runs)
    student, scheduler = teacher.student(), student_scheduler()
    target = ema(student, TARGET_EMA)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)
    grid = torch.arange(999, -1, -1000 // GRID, device=device)  # 999, 949, …, 49

    def consistent(
        unet: object, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor
    ) -> torch.Tensor:
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(
            t.clamp(min=0).view(-1, 1, 1, 1)
        )
        return skip * x_t + out * teacher.predict(unet, x_t, t.clamp(min=0), cond)

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(seed, i, device)
        x0, captions = data.pick(BATCH, generator, rng)
        cond = teacher.condition(captions)
        n = torch.randint(len(grid), (BATCH,), generator=generator, device=device)
        t, to = grid[n], grid[n] - 1000 // GRID
        x_t = teacher.noised(x0, t, noise(x0, generator))
        with torch.no_grad():
            below = teacher.ddim(x_t, teacher.guided(x_t, t, cond, GUIDANCE), t, to)
            goal = torch.where(
                (to < 0).view(-1, 1, 1, 1), below, consistent(target.module, below, to, cond)
            )
        loss = ((consistent(student, x_t, t, cond) - goal).square() + 1e-4).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        target.update_parameters(student)
        return {"consistency": loss.item()}

    run = Distillation("lcm", runs, steps, seed, device)
    return distil(run, teacher, student, {"target": target, "optimizer": optimizer}, step)
