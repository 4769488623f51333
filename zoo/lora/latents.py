"""Pictures to the units of a network and back, through a pipeline's VAE; gradients flow."""

from __future__ import annotations

from typing import Any

import torch

from xhat.zoo.lora.inputs import network_of


def to_latents(pipe: Any, images: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, h, w) in [−1, 1] → latents (n, c, h', w') in the units of the network,
    float32.

    z = (VAE(x) − shift)·scale, the mode where the VAE gives a distribution. Raises ValueError for a
    model that packs its latents into tokens."""
    check_unpacked(pipe)
    vae, parts = pipe.vae, []
    for part in images.to(vae.device, vae.dtype).split(16):
        coded = vae.encode(part)
        parts.append(coded.latents if hasattr(coded, "latents") else coded.latent_dist.mode())
    shift, scale = _units(vae)
    return (torch.cat(parts).float() - shift) * scale


def to_images(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents in the units of the network → pictures (n, 3, h, w) in [0, 1]: VAE⁻¹(z/scale +
    shift).
    """
    check_unpacked(pipe)
    shift, scale = _units(pipe.vae)
    pictures = pipe.vae.decode((latents / scale + shift).to(pipe.vae.dtype)).sample
    return (pictures.float() / 2 + 0.5).clamp(0, 1)


def check_unpacked(pipe: Any) -> None:
    """Raises ValueError for a model whose latents are not kept as pictures."""
    own = getattr(pipe.vae.config, "latent_channels", None)
    given = getattr(network_of(pipe).config, "in_channels", own)
    if own != given:
        raise ValueError(
            f"{type(pipe).__name__} packs its latents ({own} channels of the VAE, {given} of the "
            "network): "
            "expected a model whose latents are pictures"
        )


def _units(vae: Any) -> tuple[float, float]:
    return getattr(vae.config, "shift_factor", None) or 0.0, getattr(
        vae.config, "scaling_factor", None
    ) or 1.0
