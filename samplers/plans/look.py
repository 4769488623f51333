"""A look at a prompt before it is sampled: how far the student's first x̂₀ lie apart, and whether
that is too little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from xhat.samplers.plans.plan import Plan


@dataclass(frozen=True)
class Look:
    """When a prompt needs the base: where the spread of the student's first x̂₀ is at or below
    ``threshold``.

    ``spreads``: those of the prompts it was fitted on. ``gains``: the diversity the plan is
    predicted to add to each. ``worth``: share of the student's diversity that it must add to be
    worth it."""

    threshold: float
    prompts: tuple[str, ...]
    spreads: tuple[float, ...]
    gains: tuple[float, ...]
    worth: float


def spread(x0: Any) -> float:
    """How far the x̂₀ (n, …) of a prompt's samples lie from their mean: Σ‖xᵢ − x̄‖² / Σ‖xᵢ‖²,
    n/(n−1) corrected.

    0 where all are one, 1 where they have nothing in common. Free of the scale, and the same on
    average for any n. Raises ValueError for fewer than two samples, and for zeros.

    >>> import torch
    >>> spread(torch.ones(3, 2)), round(spread(torch.eye(4)), 6)
    (0.0, 1.0)
    """
    import torch

    x = torch.as_tensor(x0).detach().double().cpu()
    if x.ndim < 2 or len(x) < 2:
        raise ValueError(
            f"the spread of x̂₀ needs two or more samples of a prompt, got shape {tuple(x.shape)}"
        )
    x = x.flatten(1)
    total = float(x.square().sum())
    if not (math.isfinite(total) and total > 0):
        raise ValueError("x̂₀ is zero everywhere, or not finite: it has no spread")
    return float((x - x.mean(0)).square().sum()) * len(x) / (len(x) - 1) / total


def first_step(student: Plan) -> Plan:
    """The plan of a student's first x̂₀ alone, which comes out as the final latents: one
    evaluation.
    """
    first = student.segments[0]
    return Plan([replace(first, stop=first.start + 1, noise="own", x0=None)])
