"""A control: a LoRA with a signed scale, what it is meant to move, and where it is tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xhat.analysis.measures.lora_factors import lora_of, random_like, tensors_of
from xhat.zoo.lora.loading import load_slider, remove, set_scales
from xhat.zoo.lora.slider import save_lora

Score = Callable[[np.ndarray, str], np.ndarray]
"""(latents (n, c, h, w), prompt) → (n,): how much of the control's target is in each picture."""

ADAPTER = "control"


@dataclass(frozen=True)
class Control:
    """``file``: its weights. ``trained_on``: name of a model. ``score``: how its effect is read,
    None where nothing reads it (a random LoRA). ``signed``: whether its scale goes both ways from
    0. ``attribute``: what it turns, as the judge calls it. ``what`` and ``reading``: what it turns
    and how that is read, in words."""

    name: str
    file: Path
    trained_on: str = "base"
    prompts: tuple[str, ...] = ()
    score: Score | None = field(default=None, repr=False, compare=False)
    attribute: str = ""
    signed: bool = True
    what: str = ""
    reading: str = ""

    def identity(self) -> str:
        """sha256 of its file."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    @contextmanager
    def on(self, pipe: Any) -> Iterator[Callable[[float], None]]:
        """Within the block the pipeline runs with the LoRA; what is given sets its scale, 1 at
        first.
        """
        load_slider(pipe, self.file, ADAPTER, scale=1.0)
        try:
            yield lambda scale: set_scales(pipe, {ADAPTER: scale})
        finally:
            remove(pipe, ADAPTER)


def random_controls(like: list[Control], count: int, folder: Path) -> list[Control]:
    """LoRAs of random factors with the layers, ranks and norms of others, taken in turn: nulls.
    Files in ``folder``.
    """
    made = []
    for i in range(count):
        one = like[i % len(like)]
        name = f"random-{i}"
        path = folder / f"{name}-{one.identity()[:12]}.safetensors"
        if not path.exists():
            notes = {"objective": "none: random factors", "like": one.name, "seed": i}
            save_lora(path, tensors_of(random_like(lora_of(one.file), seed=i)), notes)
        made.append(Control(name, path))
    return made
