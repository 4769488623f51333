"""Figures a paper can print, and the report of a run. Names load on first use."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "draw": "xhat.figures.kit.registry",
    "redraw": "xhat.figures.kit.registry",
    "load_data": "xhat.figures.kit.data",
    "save_data": "xhat.figures.kit.data",
    "write_report": "xhat.figures.report.page",
    "seed_wall": "xhat.figures.report.wall",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
