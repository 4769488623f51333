"""``pruned``: a student of fewer layers, distilled layer by layer from one of the base's depth.

Layers and blocks are taken out whole, and what is left is matched to the same place of the deeper
network (CoFi, Xia et al. 2022, 2204.00408; for diffusion UNets BK-SDM, Kim et al. 2023,
2305.15798)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from xhat.zoo.family.distil import Distillation, distil
from xhat.zoo.family.networks import load_unet, make_unet
from xhat.zoo.family.teacher import SHAPE, load_teacher, seeded
from xhat.zoo.pairs import WEIGHTS

STEPS, BATCH, RATE, LAYER_WEIGHT, OF = 3000, 16, 4e-4, 0.1, "dmd"

FEWER = {
    "mid_block_type": None,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}
"""What differs from the base: no mid block, and attention in the innermost blocks alone."""


def train_pruned(runs: Path, steps: int = STEPS, seed: int = 0, device: str = "cpu") -> Path:
    """‖x̂₀ − x̂₀_deep‖² plus the layers' loss, on states that the deep student comes to at its own
    timesteps.
    """
    run = Distillation("pruned", runs, steps, seed, device)
    teacher = load_teacher(device)
    deep = load_unet(WEIGHTS / OF).to(device)
    student = pruned(deep).to(device).train()
    of_deep, of_student = Blocks(deep), Blocks(student)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.0)

    def step(i: int) -> dict[str, float]:
        generator, rng = seeded(seed, i, device)
        cond = teacher.condition(teacher.captions(rng, BATCH // len(run.timesteps)))
        eps = torch.randn(len(run.timesteps), len(cond), *SHAPE, generator=generator, device=device)
        with torch.no_grad():
            states = list(teacher.states(deep, cond, run.timesteps, eps))
        x_t = rearrange(torch.stack(states), "step n ... -> (step n) ...")
        t = torch.tensor(run.timesteps, device=device).repeat_interleave(len(cond))
        every = cond.repeat(len(run.timesteps), 1, 1)
        with torch.no_grad():
            goal = teacher.predict(deep, x_t, t, every)
        error = F.mse_loss(teacher.predict(student, x_t, t, every), goal)
        layers = layer_loss(of_student.outputs, of_deep.outputs)
        optimizer.zero_grad()
        (error + LAYER_WEIGHT * layers).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        return {"x0_error": error.item(), "layers": layers.item()}

    return distil(run, teacher, student, {"optimizer": optimizer}, step)


def pruned(deep: Any) -> Any:
    """A UNet without the layers of ``FEWER``, with the deep one's weights in those it has."""
    student = make_unet(**FEWER)
    weights = deep.state_dict()
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    return student


class Blocks:
    """The outputs of a UNet's down and up blocks, by name, of its last call."""

    def __init__(self, unet: Any) -> None:
        self.outputs: dict[str, torch.Tensor] = {}
        for name in ("down_blocks", "up_blocks"):
            for i, block in enumerate(getattr(unet, name)):
                block.register_forward_hook(self._collect(f"{name}.{i}"))

    def _collect(self, name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self.outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook


def layer_loss(made: dict[str, torch.Tensor], goal: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean over layers of ‖h − h_deep‖² in units of the deep layer's variance."""
    return torch.stack(
        [F.mse_loss(made[name], h) / h.var().clamp(min=1e-6) for name, h in goal.items()]
    ).mean()
