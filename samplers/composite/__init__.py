"""Pipelines that run a plan: the composite denoiser and scheduler, and the hand-over between
models.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "hybrid": "xhat.samplers.composite.pipeline",
    "compose": "xhat.samplers.composite.pipeline",
    "CompositeDenoiser": "xhat.samplers.composite.denoiser",
    "CompositeScheduler": "xhat.samplers.composite.scheduler",
    "DifferentArchitecture": "xhat.samplers.composite.fit",
    "Tap": "xhat.samplers.composite.tap",
    "LowRank": "xhat.samplers.composite.lowrank",
    "extract_lora": "xhat.samplers.composite.lowrank",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
