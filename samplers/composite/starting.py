"""Taps on the noise from which a run starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from xhat.hooks.noise.levels import space
from xhat.samplers.composite.handover import unit
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap


def starting_noise(run: Run, taps: Sequence[Tap]) -> torch.Tensor | None:
    """What the network is given first where ``taps`` start a run from other noise; None where they
    leave it as it is.

    Raises ValueError where the run enters its plan in the middle, from a picture."""
    entry, given = run.entry, run.x_T
    assert given is not None, "the run has begun"
    size = unit(entry.scheduler, entry.level) if space(entry.scheduler) == "flow" else 1.0
    x = given / size
    for number, tap in enumerate(taps):
        before, x = x, tap.begin(run, x)
        if x is not before:
            run.note_change(number)
    if not run.changed:
        return None
    if run.position > 0:
        raise ValueError(
            "this call starts from a picture, and a tap starts it from noise of its own: expected "
            "a call that begins at pure noise"
        )
    run.start = x
    return (x * size).to(given.dtype)


def starts_elsewhere(pipe: Any) -> bool:
    """Whether a pipeline starts from other noise than it is given, as its method is: then no check
    can find the noise of other pipelines in its first latents.
    """
    taps = getattr(pipe.scheduler, "taps", None) or ()
    return any(type(tap).begin is not Tap.begin for tap in taps)
