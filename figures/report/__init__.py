"""Reports, tables and the seed wall: self-contained pages of a run."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "write_report": "xhat.figures.report.page",
    "seed_wall": "xhat.figures.report.wall",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
