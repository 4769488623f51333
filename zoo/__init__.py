"""Checkpoint pairs: the embedded family, its data, its training, its judge."""

from __future__ import annotations

from typing import Any


def list() -> None:
    """Print the embedded family, a line a model: name, steps, guidance."""
    from xhat.zoo.pairs import DEMO, defaults_of, embedded

    for name, folder in embedded().items():
        d = defaults_of(folder)
        print(f"{DEMO}/{name:8} {d['num_inference_steps']:3} steps  guidance {d['guidance_scale']:g}")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {"load_pair": "pairs", "load_model": "pairs", "load_judge": "judge", "parse": "attributes"}
    if name in homes:
        return getattr(import_module(f"xhat.zoo.{homes[name]}"), name)
    raise AttributeError(f"module 'xhat.zoo' has no attribute {name!r}")
