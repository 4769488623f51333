"""Samples for comparisons: arms on the same prompts and seeds, checked noise, cached latents."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Arm": "xhat.analysis.sampling.arms",
    "measure_arms": "xhat.analysis.sampling.arms",
    "summarised": "xhat.analysis.sampling.arms",
    "against": "xhat.analysis.sampling.arms",
    "untrained_trace": "xhat.analysis.sampling.untrained",
    "sample_arms": "xhat.analysis.sampling.final_latents",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
