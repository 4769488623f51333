"""What every figure shares: style, data files, the registry."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "draw": "xhat.figures.kit.registry",
    "redraw": "xhat.figures.kit.registry",
    "figures": "xhat.figures.kit.registry",
    "load_data": "xhat.figures.kit.data",
    "save_data": "xhat.figures.kit.data",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
