"""``paired``: regression on the teacher's own noise–image trajectories.

Mode-covering: each noise keeps the picture the teacher makes of it. Four DDIM steps are fitted to
five of the teacher's each, as in progressive distillation (Salimans & Ho 2022, 2202.00512), on
trajectories drawn once, as the paired regression of "Distilling Diffusion Models into Conditional
GANs" (2405.05967) does."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm.auto import tqdm

from xhat.zoo.family.distil import TIMESTEPS, Teacher, distil, load_teacher, seeded
from xhat.zoo.family.loop import set_rate
from xhat.zoo.family.networks import base_scheduler

STEPS, BATCH, RATE, PAIRS, GUIDANCE, FINE = 1200, 32, 4e-4, 1920, 3.0, 5


def train_paired(
    runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu", pairs: int = PAIRS
) -> None:
    """Minimise ‖x_{t'} − DDIM(x_t, x̂₀_student; t → t')‖² in units of x̂₀, over the student's four
    intervals.

    The step from t to t' is linear in x̂₀, so its target is the x̂₀ that lands on the teacher's
    x_{t'}: (x_{t'} − (b'/b)·x_t) / (a' − (b'/b)·a), a = √ᾱ, b = √(1−ᾱ) (2202.00512, appendix G).
    """
    teacher = load_teacher(device)
    path, embeddings, goals = trajectories(runs, teacher, pairs, seed)
    student = teacher.student()
    optimizer = torch.optim.AdamW(student.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)

    def step(i: int) -> dict[str, float]:
        set_rate(optimizer, i, steps, RATE, warmup=50)
        generator, _ = seeded(seed, i)
        pick = torch.randint(pairs, (BATCH,), generator=generator)
        k = torch.randint(len(TIMESTEPS), (BATCH,), generator=generator)
        x_t, goal, cond = (a.to(device) for a in (path[pick, k], goals[pick, k], embeddings[pick]))
        predicted = teacher.predict(student, x_t, torch.tensor(TIMESTEPS, device=device)[k], cond)
        error = (predicted - goal).square().mean()
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        return {"x0_error": error.item()}

    scheduler = base_scheduler()  # deterministic: the same trailing DDIM, at 4 steps
    distil(
        "paired",
        runs,
        teacher,
        student,
        {"optimizer": optimizer},
        step,
        steps,
        seed,
        scheduler,
        decay=0.995,
    )


def trajectories(runs: Path, teacher: Teacher, pairs: int, seed: int) -> tuple[torch.Tensor, ...]:
    """The teacher's guided trajectories at the student's timesteps, drawn once in parts that
    survive a kill.

    Returns x_t (pairs, 4, c, h, w), caption embeddings (pairs, tokens, width) and the x̂₀ goals
    (pairs, 4, c, h, w)."""
    from safetensors.torch import load_file, save_file

    folder = runs / "paired"
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for i in tqdm(range(pairs // 64), desc="teacher trajectories", unit="batch of 64"):
        file = folder / f"trajectories_{seed}_{i:04d}.safetensors"
        if not file.exists():
            generator, rng = seeded(seed, 10_000_000 + i, teacher.device)
            cond = teacher.condition(teacher.captions(rng, 64))
            save_file(
                {
                    "path": _trajectory(teacher, cond, generator).cpu(),
                    "cond": cond.cpu().contiguous(),
                },
                file,
            )
        parts.append(load_file(file))
    path, cond = (torch.cat([part[name] for part in parts]) for name in ("path", "cond"))
    return path[:, :-1], cond, _goals(teacher, path)


@torch.no_grad()
def _trajectory(teacher: Teacher, cond: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(n, 5, c, h, w): x_T, the states at the student's later timesteps, and the final latents."""
    n, fine = len(cond), 250 // FINE
    x_t = torch.randn(n, 4, 16, 16, generator=generator, device=cond.device)
    states = [x_t]
    for i, at in enumerate(range(999, -1, -fine)):
        t = torch.full((n,), at, device=cond.device)
        x_t = teacher.ddim(x_t, teacher.guided(x_t, t, cond, GUIDANCE), t, t - fine)
        if (i + 1) % FINE == 0:
            states.append(x_t)
    return torch.stack(states, dim=1)


def _goals(teacher: Teacher, path: torch.Tensor) -> torch.Tensor:
    goals = []
    for k, at in enumerate(TIMESTEPS):
        here, below = path[:, k], path[:, k + 1]
        if k + 1 == len(TIMESTEPS):
            goals.append(below)
            continue
        a, b = (float(s) for s in teacher.scales(torch.tensor([at])))
        a_to, b_to = (float(s) for s in teacher.scales(torch.tensor([TIMESTEPS[k + 1]])))
        goals.append((below - b_to / b * here) / (a_to - b_to / b * a))
    return torch.stack(goals, dim=1)
