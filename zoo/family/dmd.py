"""``dmd``: distribution matching distillation with a fake-score network, DMD2 (Yin et al. 2024,
2405.14867).

Mode-seeking: the student's samples follow the gradient of a reverse KL divergence to the guided
teacher."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from xhat.zoo.family.distil import TIMESTEPS, Teacher, distil, load_teacher, noise, seeded
from xhat.zoo.family.networks import student_scheduler

STEPS, BATCH, RATE, FAKE_RATE, FAKE_UPDATES, GUIDANCE = 400, 32, 1e-4, 2e-4, 3, 2.5


def train_dmd(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> None:
    """Generator: ∇ = (x̂₀_fake − x̂₀_real)/mean|x₀ − x̂₀_real| at a random noise level (2311.18828,
    eq. 7–8).

    The generator sees its own roll-outs in training (DMD2, section 4.5). Two time scales: the
    fake-score network, which denoises the student's samples, takes ``FAKE_UPDATES`` steps to one of
    the generator's (section 4.2)."""
    teacher = load_teacher(device)
    student, fake = teacher.student(), teacher.student()
    optimizer = torch.optim.AdamW(student.parameters(), RATE, betas=(0.0, 0.99), weight_decay=0.01)
    fake_optimizer = torch.optim.AdamW(
        fake.parameters(), FAKE_RATE, betas=(0.0, 0.99), weight_decay=0.01
    )

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(seed, i, device)
        cond = teacher.condition(teacher.captions(rng, BATCH))
        x0 = rollout(teacher, student, cond, generator)

        t = torch.randint(20, 980, (BATCH,), generator=generator, device=device)
        with torch.no_grad():
            x_t = teacher.noised(x0, t, noise(x0, generator))
            real = teacher.guided(x_t, t, cond, GUIDANCE)
            direction = (teacher.predict(fake, x_t, t, cond) - real) / (x0 - real).abs().mean(
                (1, 2, 3), keepdim=True
            )
        loss = 0.5 * F.mse_loss(x0, (x0 - direction).detach())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()

        made = x0.detach()
        for _ in range(FAKE_UPDATES):
            t = torch.randint(0, 1000, (BATCH,), generator=generator, device=device)
            x_t = teacher.noised(made, t, noise(made, generator))
            fake_loss = v_loss(teacher, teacher.predict(fake, x_t, t, cond), made, t)
            fake_optimizer.zero_grad()
            fake_loss.backward()
            torch.nn.utils.clip_grad_norm_(fake.parameters(), 1.0)
            fake_optimizer.step()
        return {
            "dmd": loss.item(),
            "fake": fake_loss.item(),
            "rms": made.square().mean().sqrt().item(),
        }

    parts = {"fake": fake, "optimizer": optimizer, "fake_optimizer": fake_optimizer}
    distil("dmd", runs, teacher, student, parts, step, steps, seed, student_scheduler())


def rollout(
    teacher: Teacher, student: object, cond: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The student's x̂₀ at one of its four timesteps, reached as it samples; gradient through the
    last step only.
    """
    device = cond.device
    last = int(torch.randint(len(TIMESTEPS), (1,), generator=generator, device=device))
    x_t = torch.randn(len(cond), 4, 16, 16, generator=generator, device=device)
    for k in range(last + 1):
        t = torch.full((len(cond),), TIMESTEPS[k], device=device)
        with torch.set_grad_enabled(k == last):
            x0 = teacher.predict(student, x_t, t, cond)
        if k < last:
            x_t = teacher.noised(x0, torch.full_like(t, TIMESTEPS[k + 1]), noise(x0, generator))
    return x0


def v_loss(
    teacher: Teacher, x0_hat: torch.Tensor, x0: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """‖v̂ − v‖² written with x̂₀: the error of x̂₀ weighted by 1/(1−ᾱ), the weight the base was
    trained with.
    """
    _, b = teacher.scales(t)
    return ((x0_hat - x0) / b).square().mean()
