"""Noise levels of any scheduler, x̂₀ from any prediction, and the noise that a step drew."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "NoiseLevel": "xhat.hooks.noise.levels",
    "NoiseLevels": "xhat.hooks.noise.levels",
    "SUPPORTED": "xhat.hooks.noise.levels",
    "eps_from_x0": "xhat.hooks.noise.x0",
    "from_vp": "xhat.hooks.noise.x0",
    "in_charge": "xhat.hooks.noise.levels",
    "kind": "xhat.hooks.noise.levels",
    "noise_level": "xhat.hooks.noise.levels",
    "noise_levels": "xhat.hooks.noise.levels",
    "pred_x0": "xhat.hooks.noise.x0",
    "prediction": "xhat.hooks.noise.levels",
    "ratio": "xhat.hooks.noise.levels",
    "scales": "xhat.hooks.noise.levels",
    "space": "xhat.hooks.noise.levels",
    "step_index": "xhat.hooks.noise.levels",
    "to_vp": "xhat.hooks.noise.x0",
    "x0_at": "xhat.hooks.noise.x0",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
