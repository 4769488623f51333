"""How the sliders of the embedded family are trained, and what is written beside their weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from xhat.hooks.describe import fingerprint
from xhat.zoo.lora.shipped import ON_STUDENT, SHIPPED, SLIDERS, notes
from xhat.zoo.lora.slider import (
    BATCH,
    ETA,
    LAYERS,
    OBJECTIVE,
    RANK,
    RATE,
    SEEDS,
    STEPS,
    save_lora,
    train_slider,
)
from xhat.zoo.pairs import DEMO, load_model

LOG = logging.getLogger(__name__)


def train_sliders(runs: Path, seed: int = 0, device: str = "cpu") -> None:
    """Train every slider of the table on the base, and some on the student ``dmd``, into the
    family's weights.
    """
    base = load_model(f"{DEMO}/base")
    for name in SLIDERS:
        train_one(base, "base", name, runs, seed, device)
    student = load_model(f"{DEMO}/dmd")
    for name in ON_STUDENT:
        train_one(student, "dmd", name, runs, seed, device)


def train_one(
    pipe: Any, model: str, name: str, runs: Path, seed: int = 0, device: str = "cpu"
) -> Path:
    """Train one slider of the table and write it where the shipped ones are."""
    attribute, label = SLIDERS[name], name if model == "base" else f"{name}@{model}"
    prompts = (attribute.target, attribute.positive, attribute.negative)
    settings: dict[str, Any] = {"steps": STEPS, "seed": seed} | dict(attribute.training)
    written = slider_notes(pipe, f"{DEMO}/{model}", *prompts, **settings) | {
        "kind": attribute.kind,
        "attribute": attribute.attribute,
        "up": attribute.up,
        "down": attribute.down,
    }

    def make() -> dict[str, torch.Tensor]:
        return train_slider(pipe, *prompts, device=device, run=runs / "sliders" / label, **settings)

    return made(SHIPPED / f"{label}.safetensors", written, make)


def made(path: Path, written: dict[str, Any], make: Callable[[], dict[str, torch.Tensor]]) -> Path:
    """The LoRA at ``path``, made and written there unless it is there already, of these weights and
    settings.
    """
    if path.exists() and notes(path) == written:
        LOG.info(f"{path.stem}: there already")
        return path
    started = time.perf_counter()
    save_lora(path, make(), written)
    LOG.info(
        f"{path.stem}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1024:.0f} KiB"
    )
    return path


def slider_notes(
    pipe: Any, model: str, target: Any, positive: Any, negative: Any, **settings: Any
) -> dict[str, Any]:
    """What is written beside a slider's weights. ``settings``: those of the training that are not
    the defaults.
    """
    usual = {
        "rank": RANK,
        "eta": ETA,
        "layers": LAYERS,
        "steps": STEPS,
        "rate": RATE,
        "batch_size": BATCH,
    }
    prompts = {"target": target, "positive": positive, "negative": negative}
    own = {
        "objective": OBJECTIVE,
        "model": model,
        "weights": fingerprint(pipe),
        "xhat": version("xhat"),
    }
    return own | prompts | usual | {"seeds": SEEDS} | settings
