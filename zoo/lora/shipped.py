"""The sliders of the embedded family: which attribute each turns, how they were trained, where they
are.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from xhat.hooks.describe import fingerprint
from xhat.hooks.naming import nearest
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
from xhat.zoo.pairs import DEMO, WEIGHTS, load_model

LOG = logging.getLogger(__name__)

SHIPPED = WEIGHTS / "sliders"


@dataclass(frozen=True)
class Attribute:
    """An attribute that a slider turns, in the words of the captions and in those of the judge.

    ``kind`` and ``attribute`` name the judge's head, ``up`` and ``down`` the values that a positive
    and a negative scale lead to (:mod:`xhat.zoo.family.attributes`). ``training``: settings other
    than the usual."""

    target: str
    positive: str
    negative: str
    kind: str
    attribute: str
    up: str
    down: str
    training: Mapping[str, Any] = field(default_factory=dict)


def _critter(positive: str, negative: str, attribute: str, up: str, down: str) -> Attribute:
    return Attribute("a critter", positive, negative, "critter", attribute, up, down)


SLIDERS: dict[str, Attribute] = {
    "square": _critter("a square critter", "a round critter", "shape", "square", "round"),
    "horns": _critter("a critter with horns", "a critter with no horns", "top", "horns", "nothing"),
    "happy": _critter("a happy critter", "a sad critter", "mood", "happy", "sad"),
    "big": Attribute(
        "a planet", "a big planet", "a small planet", "planet", "size", "big", "small"
    ),
    "ring": Attribute(
        "a planet", "a planet with a ring", "a planet with no ring", "planet", "ring", "a", "no"
    ),
    "red": Attribute(
        "a planet",
        "a red planet",
        "a blue planet",
        "planet",
        "colour",
        "red",
        "blue",
        {"eta": 0.5, "steps": 100},
    ),  # of seven colours in a row: a whole η goes past red
    "palm": Attribute("a plant", "a palm", "a cactus", "plant", "plant", "palm", "cactus"),
}
"""name → what it turns. Chosen by whether the base follows the two captions, not by how the slider
came out."""

ON_STUDENT = ("square", "happy", "big")
"""Sliders that are also trained on the student ``dmd``, to be carried back to the base."""


def shipped(model: str | None = None) -> dict[str, Path]:
    """name → file of the sliders that come with the family, of one model (``"base"``, ``"dmd"``) or
    of all.

    Those trained on a student are named after it: ``square@dmd``.
    """
    files = {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}
    return {
        name: path
        for name, path in files.items()
        if model in (None, trained_on(path).split("/")[-1])
    }


def find(slider: str, prompt: str | None = None) -> tuple[Path, str]:
    """The file of a slider, by the name of a shipped one or by its path, and ``prompt`` or what it
    was trained for.

    Raises ValueError for neither, with the nearest names, and for a file that names no prompt where
    none is given."""
    there = shipped()
    path = there.get(slider, Path(slider))
    if not path.is_file():
        near = nearest(slider, there)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no slider {slider!r}: neither a file nor one of {', '.join(there) or 'none'}{hint}"
        )
    target = prompt or (notes(path).get("target") if path.suffix == ".safetensors" else None)
    if not target:
        raise ValueError(f"{path} does not say for which prompt it was trained: give one")
    return path, target if isinstance(target, str) else target[0]


def notes(path: Path) -> dict[str, Any]:
    """How a LoRA file says it was made: objective, prompts, model and fingerprint of its weights,
    settings.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        raw = dict(file.metadata() or {})
    return {key: _parsed(value) for key, value in raw.items() if key != "format"}


def trained_on(path: Path) -> str:
    """The model a LoRA file says it was trained on."""
    return str(notes(path).get("model", ""))


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


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
