"""What is read from representations and pictures: feature spaces by name, linear probes. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "feature_space": "xhat.probes.features",
    "SPACES": "xhat.probes.features",
    "load_encoder": "xhat.probes.encoders",
    "read_out": "xhat.probes.linear",
    "control_labels": "xhat.probes.linear",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'xhat.probes' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
