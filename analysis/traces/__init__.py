"""Analyses of traces: a trace in, a Dataset out."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "layers_of": "xhat.analysis.traces.layers",
    "NoSharedLevel": "xhat.analysis.traces.layers",
    "TooFewSamples": "xhat.analysis.traces.layers",
    "diversity_by_noise": "xhat.analysis.traces.diversity",
    "final_diversity": "xhat.analysis.traces.diversity",
    "final_labels": "xhat.analysis.traces.attribute_labels",
    "alignment_map": "xhat.analysis.traces.effect_alignment",
    "direction": "xhat.analysis.traces.energy",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
