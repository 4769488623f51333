"""Noise on prompt embeddings: each sample reads a prompt of its own, near to the one given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from xhat.hooks.families import CONDITIONS
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap, differs

GRID: tuple[dict[str, Any], ...] = (
    {"scale": 0.1},
    {"scale": 0.2},
    {"scale": 0.4},
    {"scale": 0.8},
    {"scale": 0.4, "steps": 1},
    {"scale": 0.8, "steps": 1},
)
"""Settings among which a contest picks; as many as every other method has."""


@dataclass(frozen=True)
class EmbeddingNoise(Tap):
    """y ← y + s·σ(y)·n, n ~ N(0, 1), σ(y) the deviation of the sample's own embedding.

    A practice of many sources and no first one; CADS (arXiv 2310.17347) is the same with a schedule
    and new noise at every step. Here n is one draw a sample and call: the sample is given another
    prompt, not an uncertain one. It acts at the first ``steps`` steps, by default at all, on
    token and pooled embeddings of the conditional branch, costs no evaluation, and does not depend
    on the batch."""

    scale: float = 0.2
    steps: int | None = None

    @property
    def active(self) -> bool:
        return self.scale != 0 and self.steps != 0

    def condition(self, run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        if self.scale == 0 or (self.steps is not None and run.position >= self.steps):
            return inputs
        changed = self._noised(run, inputs)
        if not differs(changed, inputs):
            raise ValueError(
                "noise is put on the prompt's embeddings, and among the network's arguments "
                f"({', '.join(inputs)}) there is none that is known. Known: "
                f"{', '.join(sorted(CONDITIONS))}"
            )
        return changed

    def _noised(self, run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        changed = dict(inputs)
        for name, value in inputs.items():
            if isinstance(value, dict):
                changed[name] = self._noised(run, value)
            elif name in CONDITIONS and isinstance(value, torch.Tensor):
                changed[name] = torch.stack(self._moved(run, name, list(value)))
            elif name in CONDITIONS and isinstance(value, list):
                changed[name] = self._moved(run, name, value)
        return changed

    def _moved(self, run: Run, name: str, rows: list[torch.Tensor]) -> list[torch.Tensor]:
        noises = run.memory.setdefault(
            f"embedding {name}", run.draw_each(rows, f"embedding {name}")
        )
        return [
            (y + self.scale * y.float().std() * n).to(y.dtype)
            for y, n in zip(rows, noises, strict=True)
        ]
