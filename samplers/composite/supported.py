"""Whether a plan can be run in a pipeline's own loop: told when the hybrid is made, not called.

A hybrid leaves the loop to the pipeline's class. So the class must begin at pure noise, or at a
step that its ``get_timesteps`` says of a strength, ask its
scheduler for nothing but a number of steps, and guide in a way that is known. Which classes do is
written in :data:`xhat.hooks.families.FAMILIES`; a subclass is taken to be like its parent."""

from __future__ import annotations

import inspect

from xhat.hooks.families import FAMILIES, family_of_class
from xhat.hooks.points.names import slot_of

_VIDEO = {"num_frames", "video_length"}


def check_loop(pipe: object) -> None:
    """Raises ValueError for what is no pipeline, and for one in whose loop no plan can be run, with
    the reason.
    """
    slot_of(pipe)
    reason = why_no_plan(type(pipe))
    if reason:
        raise ValueError(
            f"no hybrid can be made of a {type(pipe).__name__}, which {reason}. Plans run in "
            f"{', '.join(f.classes[0] for f in FAMILIES if f.runs_plans)}"
        )


def why_no_plan(kind: type) -> str:
    """What a class of pipelines does for which no plan can be run in its loop; nothing where one
    can.
    """
    family = family_of_class(kind)
    if family.runs_plans or family.loop:
        return family.loop
    call = set(inspect.signature(kind.__call__).parameters)
    if "strength" in call:
        return "starts from a picture, in a loop in which no plan was tried"
    if not hasattr(kind, "encode_prompt"):
        return "encodes no prompt"
    return "makes videos" if call & _VIDEO else "has a loop in which no plan was tried"


def check_guidance(pipe: object, scale: float) -> None:
    """Raises ValueError where segments guided at ``scale`` cannot be run in a pipeline's loop."""
    if scale > 1 and family_of_class(type(pipe)).guidance is None:
        raise ValueError(
            f"guidance {scale:g} in a plan: how {type(pipe).__name__} guides is not known, or not "
            "by u + g·(c − u). Give every segment guidance_scale 1, or call the pipeline itself"
        )
