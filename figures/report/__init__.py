"""Reports, tables and the x̂₀ player: self-contained pages of a run."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "write_report": "xhat.figures.report.page",
    "x0_player": "xhat.figures.report.player",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
