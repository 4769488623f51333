"""Hook points: a denoiser's modules by name, which readings to keep, how each is reduced, and the
taps.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "points": "xhat.hooks.points.table",
    "Point": "xhat.hooks.points.names",
    "PointTable": "xhat.hooks.points.table",
    "denoisers_of": "xhat.hooks.points.names",
    "denoiser_of": "xhat.hooks.points.names",
    "named_points": "xhat.hooks.points.names",
    "parts_of": "xhat.hooks.points.names",
    "Selection": "xhat.hooks.points.select",
    "Reduction": "xhat.hooks.points.reductions",
    "mean": "xhat.hooks.points.reductions",
    "pool": "xhat.hooks.points.reductions",
    "project": "xhat.hooks.points.reductions",
    "full": "xhat.hooks.points.reductions",
    "gram": "xhat.hooks.points.reductions",
    "parse_reduction": "xhat.hooks.points.reductions",
    "listening": "xhat.hooks.points.taps",
    "quiet": "xhat.hooks.points.taps",
    "rehearse": "xhat.hooks.points.rehearsal",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
