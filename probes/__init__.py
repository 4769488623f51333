"""What is read from representations and pictures: feature spaces by name, linear probes. Names load
on first use.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "feature_space": "xhat.probes.features",
    "SPACES": "xhat.probes.features",
    "load_score": "xhat.probes.scores",
    "SCORES": "xhat.probes.scores",
    "load_encoder": "xhat.probes.encoders",
    "read_out": "xhat.probes.linear",
    "control_labels": "xhat.probes.linear",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
