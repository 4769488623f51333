"""xhat: where a distilled diffusion model loses the diversity of its base, and how to give it back.

x̂₀ is the final image a diffusion model has in mind at step *t*. Everything here turns on it.
Names are loaded on first use, so that ``import xhat`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from xhat import messages
from xhat.moved import install

install()
messages.to_stderr()

__version__ = "0.1.0"

_EXPORTS = {
    "trace": "xhat.hooks.trace",
    "Tracer": "xhat.hooks.trace",
    "open_trace": "xhat.hooks.store.reading",
    "save_trace": "xhat.hooks.store.whole",
    "concat": "xhat.hooks.joining",
    "decode": "xhat.analysis.traces.accessor",
    "defaults": "xhat.hooks.model",
    "set_defaults": "xhat.hooks.model",
    "points": "xhat.hooks.points.table",
    "mean": "xhat.hooks.points.reductions",
    "pool": "xhat.hooks.points.reductions",
    "project": "xhat.hooks.points.reductions",
    "full": "xhat.hooks.points.reductions",
    "gram": "xhat.hooks.points.reductions",
    "token_maps": "xhat.analysis.traces.token_maps",
    "nnsight_model": "xhat.hooks.edits.nnsight_model",
    "hybrid": "xhat.samplers.composite.pipeline",
    "Plan": "xhat.samplers.plans.plan",
    "rival": "xhat.samplers.rivals.registry",
    "diverse": "xhat.samplers.rivals.diverse_set",
    "Policy": "xhat.samplers.plans.policy",
    "sweep": "xhat.analysis.experiments.sweep",
    "fit_policy": "xhat.analysis.experiments.policy",
    "load_pair": "xhat.zoo.pairs",
    "load_model": "xhat.zoo.load.checkpoints",
    "load_checkpoint": "xhat.zoo.load.checkpoints",
}
_OF_TRACES = ("trace", "Tracer", "open_trace", "concat")
_PACKAGES = ("hooks", "zoo", "samplers", "probes", "analysis", "figures")

__all__ = ["__version__", *_EXPORTS, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(import_module(_EXPORTS[name]), name)
        if name in _OF_TRACES:  # which have an accessor, trace.xhat
            import_module("xhat.analysis.traces.accessor")
        globals()[name] = value  # a submodule of the same name must not shadow the function
        return value
    if name in _PACKAGES:
        return import_module(f"xhat.{name}")
    raise AttributeError(f"module 'xhat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
