"""What one pipeline call gave: every step's latents, x̂₀, noise and readings."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Record": "xhat.hooks.record.record",
    "Step": "xhat.hooks.record.record",
    "Firing": "xhat.hooks.record.record",
    "Recorder": "xhat.hooks.record.recorder",
    "encoded_once": "xhat.hooks.record.encode",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
