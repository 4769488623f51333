"""Figures a paper can print, and the report of a run. Names load on first use."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "draw": "xhat.figures.registry",
    "redraw": "xhat.figures.registry",
    "load_data": "xhat.figures.data",
    "save_data": "xhat.figures.data",
    "write_report": "xhat.figures.report",
    "x0_player": "xhat.figures.player",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
