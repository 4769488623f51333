"""Guidance inside a hybrid: each segment's own, in the arithmetic of the pipeline's family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from xhat.hooks.families import STACKED, Guidance, family_of
from xhat.hooks.model import model_of

Inputs = dict[str, Any]
Output = torch.Tensor | list[torch.Tensor]  # a list of pictures that could be of several sizes


@dataclass
class FirstPass:
    """The conditional call of a step, in a pipeline that calls for the unconditional one after it.

    ``output`` is what the pipeline was given for it. Where the step is ``guided`` it is written
    over once both predictions are known: so the pipeline, which combines two times the same, gets
    just that. ``settled``: whether the second call was made."""

    position: int
    guided: bool
    cond: torch.Tensor
    output: torch.Tensor
    settled: bool = False


def unguided(name: str, scale: float, rule: Guidance) -> str:
    """What to say where a segment is guided and the pipeline does not guide in this call."""
    true = rule.argument == "true_cfg_scale"
    return (
        f"guidance {scale:g} of {name!r} needs the negative prompt, which the pipeline does not "
        f"pass on now: call it with {'negative_prompt and ' if true else ''}{rule.argument} above "
        f"{rule.in_call(1):g}"
    )


def combine(rule: Guidance, scale: float, uncond: Output, cond: Output) -> Output:
    """u + g·(c − u) (Ho & Salimans, arXiv 2207.12598, Eq. 6 with w = g − 1), to the bit as the
    family's pipelines make it.
    """
    if isinstance(uncond, list):  # pipelines add these up in single precision
        pairs = zip(uncond, cond, strict=True)
        return [_sum(rule, scale, u.float(), c.float()) for u, c in pairs]
    assert isinstance(cond, torch.Tensor)
    return _sum(rule, scale, uncond, cond)


def _sum(rule: Guidance, scale: float, uncond: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    if rule.beyond:
        total = cond + rule.in_call(scale) * (cond - uncond)
    else:
        total = uncond + scale * (cond - uncond)
    if not rule.normalized:
        return total
    norms = (torch.norm(x, dim=-1, keepdim=True) for x in (cond, total))
    return total * (next(norms) / next(norms))


def twice(output: Output) -> Output:
    """An answer for both branches of a batch."""
    return output * 2 if isinstance(output, list) else torch.cat([output, output])


def halves(output: Output, cond_first: bool) -> tuple[Output, Output]:
    """(u, c) of an answer for both branches."""
    middle = len(output) // 2
    first, second = output[:middle], output[middle:]
    return (second, first) if cond_first else (first, second)


def rule_of(pipe: Any) -> Guidance:
    """How a pipeline guides: as its family does, but for what belongs to its own call (Lumina 2
    normalizes unless it is told not to).
    """
    rule = family_of(pipe).guidance or STACKED
    if rule.normalized and model_of(pipe).stated.get("cfg_normalization") is False:
        return replace(rule, normalized=False)
    return rule


def call_for(pipe: Any, rule: Guidance, scale: float) -> dict[str, Any]:
    """Keywords of the call by which a pipeline guides at a scale of u + g·(c − u), or does not."""
    call: dict[str, Any] = {rule.argument: rule.in_call(scale)}
    stated = model_of(pipe).stated
    if rule.argument == "true_cfg_scale" and scale > 1:
        call["negative_prompt"] = stated.get("negative_prompt") or " "
    if rule.normalized is False and "cfg_normalization" in stated:
        call["cfg_normalization"] = stated["cfg_normalization"]
    return call


def check_call(pipe: Any, rule: Guidance, arguments: dict[str, Any]) -> None:
    """Raises ValueError for settings of a call by which the pipeline would change the guidance that
    segments have made.
    """
    changed = [
        name
        for name, off in (("_guidance_rescale", 0), ("_cfg_normalization", 0))
        if (getattr(pipe, name, None) or 0) != off
    ]
    if (getattr(pipe, "_cfg_truncation", None) or 1) < 1:
        changed.append("_cfg_truncation")
    if arguments.get("skip_guidance_layers"):
        changed.append("skip_guidance_layers")
    normalized = arguments.get("cfg_normalization", rule.normalized)
    if isinstance(normalized, bool) and normalized is not rule.normalized:
        changed.append("cfg_normalization")
    if changed:
        raise ValueError(
            f"{', '.join(name.lstrip('_') for name in changed)} cannot be used in the call of a "
            "hybrid: segments make their guidance themselves. Leave it out; guidance that ends on "
            "the way is a segment with guidance_scale 1, and xhat.set_defaults(base, "
            "cfg_normalization=False) holds for all segments"
        )
