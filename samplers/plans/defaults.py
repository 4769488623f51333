"""What belongs to a pipeline when nothing else is said: its number of steps, its guidance, its own
timesteps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xhat.hooks.families import STACKED, family_of
from xhat.hooks.model import model_of
from xhat.samplers.plans.segment import GRIDS


def default_steps(pipe: Any) -> int:
    """Number of steps that belongs to a pipeline: its checkpoint's, 4 under LCM and TCD, else its
    call's.
    """
    model = model_of(pipe)
    if model.stated.get("num_inference_steps") is None:
        for name in GRIDS:
            if model.stated.get(name) is not None:
                return len(model.stated[name])
    return model.steps


def default_guidance(pipe: Any) -> float:
    """Guidance scale that belongs to a pipeline, as g of u + g·(c − u): its checkpoint's, else none
    (1).

    A network that takes its guidance as an input has that; another of a family with
    ``true_cfg_scale`` (FLUX, Qwen-Image) has this.
    """
    rule = family_of(pipe).guidance or STACKED
    network = getattr(pipe, "transformer", None)
    given = dict(getattr(network, "config", {})).get("guidance_embeds")
    scale = model_of(pipe).stated.get("guidance_scale" if given else rule.argument)
    return 1.0 if scale is None else rule.of_call(float(scale))


def schedule_of(
    pipe: Any,
    num_inference_steps: int | None = None,
    timesteps: Iterable[float] | None = None,
    sigmas: Iterable[float] | None = None,
) -> dict[str, Any]:
    """The fields of a segment that say its schedule: a number of steps, and a grid if there is one.

    A grid that is given decides; then a number of steps; then the pipeline's defaults, whose own
    ``timesteps`` or ``sigmas`` are taken unless another number of steps is asked for. Raises
    ValueError for a grid whose length is not the number of steps."""
    given = {"timesteps": timesteps, "sigmas": sigmas}
    grid = {name: tuple(values) for name, values in given.items() if values is not None}
    if not grid:
        stated = model_of(pipe).stated
        grid = {name: tuple(stated[name]) for name in GRIDS if stated.get(name) is not None}
        if num_inference_steps not in (None, *map(len, grid.values())):
            grid = {}
    for name, values in grid.items():
        if num_inference_steps not in (None, len(values)):
            raise ValueError(
                f"{len(values)} {name} for {num_inference_steps} steps: give one for each step, or "
                "no number of steps"
            )
    steps = num_inference_steps
    if steps is None:
        steps = next((len(values) for values in grid.values()), None)
    return {"num_inference_steps": default_steps(pipe) if steps is None else steps, **grid}
