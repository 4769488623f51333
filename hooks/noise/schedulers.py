"""Which scheduler is which: how its noise levels are found, in which space it works, what its model
predicts.

A composite scheduler (several strung together) defines ``delegate(step) -> (scheduler, step)``:
everything here then speaks of the scheduler in charge of that step (of the current one where
``step`` is None)."""

from __future__ import annotations

from typing import Any

# How a scheduler's noise level is found. By class name, so that diffusers need not be imported here
# and a subclass is recognised by its parents.
BY_TIMESTEP = {
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "CogVideoXDDIMScheduler",
}
VP_BY_INDEX = {
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
}
EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler"}
SIGMA_BY_INDEX = EDM | {
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "DPMSolverSDEScheduler",
}
FLOW = {
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LTXEulerAncestralRFScheduler",
}
ANGLE = {"IPNDMScheduler", "SCMScheduler"}  # x_t = cos θ·x₀ + sin θ·ε, and a prediction of v
SUPPORTED = frozenset(BY_TIMESTEP | VP_BY_INDEX | SIGMA_BY_INDEX | FLOW | ANGLE)


def space(scheduler: Any) -> str:
    """In which space the scheduler keeps its latents: ``"vp"``, ``"sigma"`` or ``"flow"``."""
    scheduler, _ = in_charge(scheduler, None)
    name = kind(scheduler)
    if name in FLOW or getattr(scheduler.config, "use_flow_sigmas", False):
        return "flow"
    return "sigma" if name in SIGMA_BY_INDEX else "vp"


def prediction(scheduler: Any) -> str:
    """What is predicted: ``epsilon``, ``v_prediction``, ``sample``, ``flow_prediction`` or
    ``edm``.
    """
    scheduler, _ = in_charge(scheduler, None)
    name = kind(scheduler)
    if name in FLOW:
        return "flow_prediction"
    if name in EDM:
        return "edm"
    if name in ANGLE:
        return "v_prediction"
    found = scheduler.config.prediction_type
    found = "sample" if found == "original_sample" else found
    if found not in {"epsilon", "v_prediction", "sample", "flow_prediction"}:
        raise ValueError(
            f"prediction_type {found!r} of {name} is not supported: "
            "expected 'epsilon', 'v_prediction', 'sample' or 'flow_prediction'"
        )
    return found


def inverted(scheduler: Any) -> bool:
    """Whether a flow scheduler counts its σ from 0 at noise to 1 at the picture, and steps along
    the velocity towards the picture.
    """
    scheduler, _ = in_charge(scheduler, None)
    return kind(scheduler) in FLOW and bool(getattr(scheduler.config, "invert_sigmas", False))


def kind(scheduler: Any) -> str:
    """Name of the diffusers class that ``scheduler`` is. Raises ValueError for one that is not
    supported.
    """
    scheduler, _ = in_charge(scheduler, None)
    for parent in type(scheduler).__mro__:
        if parent.__name__ in SUPPORTED:
            return parent.__name__
    raise ValueError(
        f"scheduler {type(scheduler).__name__} is not supported: its noise levels are not known. "
        f"Use one of {', '.join(sorted(SUPPORTED))}"
    )


def in_charge(scheduler: Any, step: int | None) -> tuple[Any, int | None]:
    """The scheduler that makes ``step``, and the step as it counts."""
    delegate = getattr(scheduler, "delegate", None)
    return (scheduler, step) if delegate is None else in_charge(*delegate(step))
