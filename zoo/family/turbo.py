"""``turbo``: adversarial diffusion distillation with most of the student frozen.

ADD (Sauer et al. 2023, 2311.17042) with the discriminator on the frozen teacher's features (LADD,
2403.12015); six in seven parameters stay frozen (2506.09376)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from xhat.zoo.family.base import latents
from xhat.zoo.family.critic import Critic, Features
from xhat.zoo.family.distil import Distillation, distil
from xhat.zoo.family.teacher import load_teacher, noise, seeded

STEPS, BATCH, RATE, HEAD_RATE = 1200, 16, 2e-4, 2e-3
GUIDANCE, DISTIL_WEIGHT, R1 = 3.0, 2.5, 1e-5
LEVELS = (50, 800)
"""Noise levels at which the teacher says where a sample should go."""

CRITIC_LEVELS = (5, 250)
"""Noise levels at which the critic sees real and made latents. Those of a 128 × 128 latent, up to
800, matched in signal-to-noise as the timesteps are: above, nothing of a 16 × 16 latent is left by
which to tell them."""

SHARES = (0.7, 0.1, 0.1, 0.1)
"""How often each timestep is trained: most often the first, where there is most to learn (LADD)."""


def trainable(student: Any) -> list[nn.Parameter]:
    """Freeze all but the norms, queries, keys and values, skip connections, time embedding, and the
    first and last convolution: 86 % of the parameters. Returns what is left to train.
    """
    trained = (
        "norm",
        "to_q",
        "to_k",
        "to_v",
        "conv_shortcut",
        "time_embedding",
        "conv_in",
        "conv_out",
    )
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(any(part in name for part in trained))
    return [p for p in student.parameters() if p.requires_grad]


def train_turbo(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """Generator: −D(x̂₀) + λ·√ᾱ·‖x̂₀ − x̂₀_teacher‖², the teacher guided and at the student's noised
    sample; critic: hinge loss and R1 on the features it sees.

    ADD, equations 1 to 4, with its λ = 2.5 and γ = 1e-5; means over heads."""
    run = Distillation("turbo", runs, steps, seed, device)
    teacher = load_teacher(device)
    data, _ = latents(runs)
    student = teacher.student()
    parameters = trainable(student)
    features, critic = Features(teacher), Critic(teacher).to(device)
    optimizer = torch.optim.AdamW(parameters, RATE, betas=(0.0, 0.99), weight_decay=0.0)
    critic_optimizer = torch.optim.AdamW(
        critic.parameters(), HEAD_RATE, betas=(0.0, 0.99), weight_decay=0.0
    )
    at, shares = (torch.tensor(v, device=device) for v in (run.timesteps, SHARES))

    def levels(bounds: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        return torch.randint(*bounds, (BATCH,), generator=generator, device=device)

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(seed, i, device)
        real, captions = data.pick(BATCH, generator, rng)
        cond = teacher.condition(captions)
        t = at[torch.multinomial(shares, BATCH, replacement=True, generator=generator)]
        made = teacher.predict(student, teacher.noised(real, t, noise(real, generator)), t, cond)

        level, eps = levels(CRITIC_LEVELS, generator), noise(real, generator)
        made_features = features(teacher.noised(made, level, eps), level, cond)
        fooled = _mean([-score for score in critic(made_features, cond)])
        t = levels(LEVELS, generator)
        x_t = teacher.noised(made.detach(), t, noise(made, generator))
        again = teacher.guided(x_t, t, cond, GUIDANCE)
        a, _ = teacher.scales(t)
        distance = (a * (made - again).square()).mean()
        optimizer.zero_grad()
        (fooled + DISTIL_WEIGHT * distance).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

        real_features = features(teacher.noised(real, level, eps), level, cond)
        losses = critic_loss(critic, real_features, [f.detach() for f in made_features], cond)
        critic_optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        critic_optimizer.step()
        return {
            **{name: loss.item() for name, loss in losses.items()},
            "distance": distance.item(),
            "rms": made.square().mean().sqrt().item(),
        }

    parts = {"critic": critic, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
    return distil(run, teacher, student, parts, step)


def critic_loss(
    critic: Critic, real: list[torch.Tensor], made: list[torch.Tensor], cond: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Hinge loss, and the R1 penalty γ·‖∇D‖² at the real features (ADD, eq. 3)."""
    real = [f.detach().requires_grad_(True) for f in real]
    scores = critic(real, cond)
    gradients = torch.autograd.grad(sum(s.sum() for s in scores), real, create_graph=True)
    hinge = _mean([F.relu(1 - s) for s in scores]) + _mean(
        [F.relu(1 + s) for s in critic(made, cond)]
    )
    penalty = torch.stack([g.square().sum() for g in gradients]).sum()
    return {"hinge": hinge, "r1": R1 * penalty / len(cond)}


def _mean(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([m.mean() for m in maps]).mean()
