"""A control: a LoRA with a signed scale, what it is meant to move, and where it is tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xhat.zoo.lora import remove, set_scales

Score = Callable[[np.ndarray, str], np.ndarray]
"""(latents (n, c, h, w), prompt) → (n,): how much of the control's target is in each picture."""

ADAPTER = "control"


@dataclass(frozen=True)
class Control:
    """``source``: what ``pipe.load_lora_weights`` takes. ``trained_on``: name of a model. ``score``: how its effect is
    read, None where nothing can read it (a random LoRA). ``signed``: whether it goes both ways from 0."""

    name: str
    source: Path | Mapping[str, torch.Tensor] = field(repr=False)
    trained_on: str = "base"
    prompts: tuple[str, ...] = ()
    score: Score | None = field(default=None, repr=False)
    attribute: str = ""
    signed: bool = True

    def identity(self) -> str:
        """sha256 of its weights."""
        digest = hashlib.sha256()
        if isinstance(self.source, Mapping):
            for key, tensor in sorted(self.source.items()):
                digest.update(key.encode() + tensor.detach().contiguous().numpy().tobytes())
        else:
            digest.update(Path(self.source).read_bytes())
        return digest.hexdigest()

    @contextmanager
    def on(self, pipe: Any) -> Iterator[Callable[[float], None]]:
        """Within the block the pipeline runs with the LoRA; what is given sets its scale, 1 at first.

        Afterwards the pipeline is as it was, adapters loaded before included.
        """
        source = dict(self.source) if isinstance(self.source, Mapping) else self.source
        pipe.load_lora_weights(source, adapter_name=ADAPTER)
        try:
            set_scales(pipe, {ADAPTER: 1.0})
            yield lambda scale: set_scales(pipe, {ADAPTER: scale})
        finally:
            remove(pipe, ADAPTER)
