"""The adversary of the family's students: small heads on the frozen teacher's features (LADD, Sauer
et al. 2024, 2403.12015).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from xhat.zoo.family.teacher import Teacher

HIDDEN = 64


class Critic(nn.Module):
    """A small convolutional head on each map of :class:`Features`, given the pooled caption.

    ``copies``: of the features that it sees side by side, along the channels."""

    def __init__(self, teacher: Teacher, copies: int = 1) -> None:
        super().__init__()
        blocks = teacher.unet.config.block_out_channels
        widths = [copies * width for width in (blocks[0], *blocks, blocks[-1])]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8, w),
                nn.Conv2d(w, HIDDEN, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(HIDDEN, HIDDEN, 1),
            )
            for w in widths
        )
        self.caption = nn.Linear(teacher.text_encoder.config.hidden_size, HIDDEN)

    def forward(self, features: list[torch.Tensor], cond: torch.Tensor) -> list[torch.Tensor]:
        """A score (n,) for each head: the mean over places of a projection on the caption (cGAN
        with projection, 1802.05637).
        """
        weight = 1 + self.caption(cond.mean(1))[:, :, None, None]
        return [
            (h(f) * weight).sum(1).mean((1, 2)) / HIDDEN**0.5
            for h, f in zip(self.heads, features, strict=True)
        ]


class Features:
    """The teacher's features at a noised latent: after its first residual block, at the latent's
    own size, and after each down block and the mid block.

    The first tells most. On a trained student, 150 steps of a new critic at noise levels 5 to 250
    ordered pairs of a real and a made latent rightly in 76 % by this map, and in 53 to 57 % by the
    coarser ones; at noise levels 50 to 800, without it, in 51 to 53 %, which is chance.
    Training gained little by it: against a student that learns, the hinge loss was 1.98 after 800
    steps, where 2 is chance.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.encoder = teacher, encoder_of(teacher.unet)
        self.outputs: list[torch.Tensor] = []
        down = self.encoder.down_blocks
        for block in [down[0].resnets[0], *down, self.encoder.mid_block]:
            block.register_forward_hook(self._collect)

    def _collect(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self.outputs.append((output[0] if isinstance(output, tuple) else output).float())

    def __call__(
        self, x_t: torch.Tensor, t: torch.Tensor, cond: torch.Tensor
    ) -> list[torch.Tensor]:
        self.outputs = []
        self.teacher.evaluate(self.encoder, x_t, t, cond)
        outputs, self.outputs = self.outputs, []
        return outputs


def encoder_of(unet: Any) -> Any:
    """A copy of a UNet that ends after its mid block."""
    encoder = copy.deepcopy(unet)
    encoder.up_blocks, encoder.conv_norm_out, encoder.conv_out = (
        nn.ModuleList(),
        None,
        nn.Identity(),
    )
    return encoder
