"""The latents that a call ends with: those that are decoded or returned, where that can be told.

A callback, or a pipeline that blends a picture in (inpainting), may change latents after the last
step of the scheduler. What the step gave is then not what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from xhat.hooks.record.record import Record

LEFT_OUT = "left out: the pipeline changed the latents after the last step of its scheduler"


class DecodedLatents:
    """Hears what a VAE decodes; ``keep`` takes it."""

    def __init__(self, keep: Callable[[torch.Tensor], None]) -> None:
        self.keep = keep

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(value, torch.Tensor):
            self.keep(value.detach())

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass


def check_final(record: Record, vae: Any, returned: torch.Tensor | None, callback: bool) -> None:
    """Make ``record.final`` what the call ended with, or None where that cannot be told.

    ``returned``: the latents that the call returned, where it did, laid out as ``final`` is;
    ``callback``: whether a callback ran, which may have changed them."""
    if returned is not None and returned.shape == getattr(record.final, "shape", None):
        record.final = returned.detach().to("cpu", record.final.dtype)  # type: ignore[union-attr]
    elif record.final is not None and not _is_last(record, vae, callback):
        record.final = None


def _is_last(record: Record, vae: Any, callback: bool) -> bool:
    """Whether what was decoded is what the last step gave."""
    last, decoded = record.final, _joined(record.decoded)
    assert last is not None
    if decoded is None or decoded.numel() != last.numel():
        return not (callback or record.changed)
    last, decoded = last.double(), decoded.double().cpu().reshape(last.shape)
    if any(_close(decoded, form) for form in _forms(last, getattr(vae, "config", None))):
        return True
    return not (callback or record.changed) and _close(decoded, _affine(last, decoded))


def _joined(parts: list[torch.Tensor]) -> torch.Tensor | None:
    if not parts or len({p.shape[1:] for p in parts}) > 1:
        return None
    return torch.cat(parts)


def _forms(x: torch.Tensor, config: Any) -> Iterator[torch.Tensor]:
    """What VAEs of diffusers are given of latents x: x, x/f, x/f + shift, x·σ/f + μ, x·σ + μ."""
    factor = float(getattr(config, "scaling_factor", None) or 1.0)
    shift = float(getattr(config, "shift_factor", None) or 0.0)
    yield x
    yield x / factor + shift
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is not None and std is not None and len(mean) == x.shape[1]:
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean, std = (torch.tensor(v, dtype=x.dtype).reshape(shape) for v in (mean, std))
        yield x * std / factor + mean
        yield x * std + mean


def _affine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The a·x + b of each channel that is nearest to y."""
    axes = [d for d in range(x.ndim) if d != 1]
    mean_x, mean_y = (v.mean(axes, keepdim=True) for v in (x, y))
    slope = ((x - mean_x) * (y - mean_y)).sum(axes, keepdim=True)
    slope = slope / (x - mean_x).square().sum(axes, keepdim=True).clamp_min(1e-30)
    return slope * (x - mean_x) + mean_y


def _close(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Equal but for half precision."""
    return bool((x - y).abs().max() <= 1e-2 * (1e-6 + y.abs().max()))
