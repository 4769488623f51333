"""The training loop that every network of the family shares: seeded by step, resumable, with a
progress line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

Step = Callable[[int], Mapping[str, float]]


def train_loop(
    run: Path | None,
    parts: Mapping[str, Any],
    step: Step,
    steps: int,
    *,
    save_every: int = 250,
    look: Callable[[int], None] | None = None,
    look_every: int = 1000,
) -> None:
    """Call ``step(i)`` for i up to ``steps``, saving the state of ``parts`` every ``save_every``
    steps under ``run``.

    A run that was killed goes on from its last save. Because each step seeds its own generators
    from its index, the result is that of an unbroken run. ``look(i)`` draws a sample grid now and
    then. Without ``run``, nothing is kept."""
    if run is not None:
        run.mkdir(parents=True, exist_ok=True)
    start = 0 if run is None else _resume(run / "state.pt", parts)
    bar = tqdm(
        range(start, steps),
        initial=start,
        total=steps,
        desc=run.name if run else "training",
        mininterval=5,
    )
    smooth: dict[str, float] = {}
    for i in bar:
        for name, value in step(i).items():
            smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
        if (i + 1) % 20 == 0:
            bar.set_postfix({k: f"{v:.4f}" for k, v in smooth.items()}, refresh=False)
        if run is not None and ((i + 1) % save_every == 0 or i + 1 == steps):
            _save(run / "state.pt", parts, i + 1)
        if look is not None and ((i + 1) % look_every == 0 or i + 1 == steps):
            look(i + 1)


def _save(path: Path, parts: Mapping[str, Any], done: int) -> None:
    partial = path.with_suffix(".partial")
    torch.save({"done": done, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(path)


def _resume(path: Path, parts: Mapping[str, Any]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["done"])


def set_rate(
    optimizer: torch.optim.Optimizer, i: int, steps: int, peak: float, *, warmup: int = 200
) -> None:
    """Linear warm-up to ``peak``, then a cosine down to 2 % of it at the last step."""
    if i < warmup:
        rate = peak * (i + 1) / warmup
    else:
        rate = peak * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (i - warmup) / max(steps - warmup, 1)))
        )
    for group in optimizer.param_groups:
        group["lr"] = rate


def ema(model: torch.nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """A running average of the weights, the one that is kept and sampled from."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def note_training(folder: Path, steps: int, seed: int) -> None:
    """Record beside the weights how long they were trained, for the model card."""
    (folder / "training.json").write_text(json.dumps({"steps": steps, "seed": seed}) + "\n")
