"""Traces in memory and on disk: layout, tiles, locks, checksums, resuming."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Store": "xhat.hooks.store.store",
    "DamagedTrace": "xhat.hooks.store.failures",
    "StoreInUse": "xhat.hooks.store.locks",
    "open_trace": "xhat.hooks.store.reading",
    "save_trace": "xhat.hooks.store.whole",
    "Memory": "xhat.hooks.store.memory",
    "Tile": "xhat.hooks.store.tiles",
    "Tiling": "xhat.hooks.store.tiles",
    "Schema": "xhat.hooks.store.schema",
    "schema_of": "xhat.hooks.store.schema",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
