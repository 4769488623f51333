"""Training the autoencoder: pictures to 4 × 16 × 16 latents of unit spread, and back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from xhat.zoo.family.data import held_out, pictures
from xhat.zoo.family.loop import set_rate, train_loop
from xhat.zoo.family.networks import make_vae
from xhat.zoo.family.render import SIZE
from xhat.zoo.pairs import WEIGHTS

LOG = logging.getLogger(__name__)

STEPS, BATCH, CROP, RATE = 4500, 16, 32, 2e-3


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) → float (n, 3, h, w) in [−1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def train_vae(runs: Path, steps: int = STEPS, seed: int = 0) -> Any:
    """Train, set ``scaling_factor`` to 1/std of the latents, print the PSNR on held-out pictures,
    return the VAE.

    The network is convolutional, so it is trained on 32 × 32 crops: four times the steps for the
    same work. Loss: L1 on pixels and on their horizontal and vertical differences (edges), with
    noise added to the latents so that the decoder forgives a sampler's small errors, and a pull of
    the latents towards zero mean."""
    images = pictures(cache=runs / "world.npz").images
    torch.manual_seed(seed)
    vae = make_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), RATE, weight_decay=1e-4)

    def step(i: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        set_rate(optimizer, i, steps, RATE, warmup=100)
        pick = torch.randint(len(images), (BATCH,), generator=generator).numpy()
        top, left = (int(o) for o in torch.randint(SIZE - CROP + 1, (2,), generator=generator))
        x = to_tensor(images[pick, top : top + CROP, left : left + CROP])
        z = vae.encoder(x)
        noisy = z + 0.05 * z.detach().std() * torch.randn(z.shape, generator=generator)
        y = vae.decoder(noisy)
        pixel = F.l1_loss(y, x) + 0.3 * F.mse_loss(y, x)
        edges = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(
            y.diff(dim=-2), x.diff(dim=-2)
        )
        centred = z.mean(dim=(0, 2, 3)).square().mean() + 0.1 * (z.square().mean() - 1).square()
        loss = pixel + edges + 0.02 * centred
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        return {"pixel": pixel.item(), "edges": edges.item()}

    train_loop(runs / "vae", {"vae": vae, "optimizer": optimizer}, step, steps)
    test = to_tensor(held_out(runs / "held_out.npz").images)
    with torch.no_grad():
        z = torch.cat([vae.encoder(x) for x in test.split(64)])
        error = (
            torch.cat([vae.decoder(p).clamp(-1, 1) for p in z.split(64)]).sub(test).square().mean()
        )
    vae.register_to_config(scaling_factor=float(1 / z.std()))
    LOG.info(
        f"held-out PSNR {10 * torch.log10(4 / error):.1f} dB, "
        f"scaling factor {vae.config.scaling_factor:.3f}"
    )
    vae.save_pretrained(runs / "vae" / "trained")
    return vae.eval()


def load_vae(runs: Path) -> Any:
    """The VAE just trained under ``runs``, else the shipped one."""
    from diffusers import AutoencoderTiny

    trained = runs / "vae" / "trained"
    return (
        AutoencoderTiny.from_pretrained(trained if trained.exists() else WEIGHTS / "base" / "vae")
        .float()
        .eval()
    )


@torch.no_grad()
def encode(vae: Any, images: np.ndarray) -> torch.Tensor:
    """Latents of uint8 pictures, in the units the UNet sees (scaled): (n, 4, 16, 16)."""
    return torch.cat(
        [vae.encoder(to_tensor(x)) for x in np.array_split(images, max(1, len(images) // 64))]
    ) * (vae.config.scaling_factor)
