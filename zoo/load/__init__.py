"""Checkpoints in any published layout as pipelines: catalogue, files, hub."""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "load_model": "xhat.zoo.load.checkpoints",
    "load_checkpoint": "xhat.zoo.load.checkpoints",
    "Base": "xhat.zoo.load.entries",
    "Published": "xhat.zoo.load.entries",
    "bases": "xhat.zoo.load.catalogue",
    "published": "xhat.zoo.load.catalogue",
    "find_published": "xhat.zoo.load.catalogue",
    "read_tensors": "xhat.zoo.load.files",
    "kind_of": "xhat.zoo.load.files",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
