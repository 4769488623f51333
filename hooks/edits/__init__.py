"""Interventions: edits to a denoiser's readings while a pipeline runs, by torch hooks or by
nnsight.
"""

from __future__ import annotations

from xhat.lazy import lazily

_EXPORTS = {
    "Edit": "xhat.hooks.edits.edit",
    "Source": "xhat.hooks.edits.edit",
    "replace": "xhat.hooks.edits.edit",
    "from_trace": "xhat.hooks.edits.edit",
    "Patch": "xhat.hooks.edits.patch",
    "patched": "xhat.hooks.edits.run",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazily(globals(), _EXPORTS)
