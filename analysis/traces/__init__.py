"""Analyses of traces: a trace in, a Dataset out."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "layers_of": "xhat.analysis.traces.layers",
    "decided": "xhat.analysis.traces.probe_curves",
    "final_labels": "xhat.analysis.traces.probe_curves",
    "untrained_trace": "xhat.analysis.traces.probe_curves",
    "alignment_map": "xhat.analysis.traces.effect_alignment",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
