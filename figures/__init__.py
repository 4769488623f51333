"""Figures a paper can print, and the report of a run. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "draw": "xhat.figures.registry",
    "redraw": "xhat.figures.registry",
    "load_data": "xhat.figures.data",
    "save_data": "xhat.figures.data",
    "write_report": "xhat.figures.report",
    "x0_player": "xhat.figures.player",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'xhat.figures' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
