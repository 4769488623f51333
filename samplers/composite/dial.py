"""Weights between a base and its student."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from xhat.hooks.sharing import sharing
from xhat.samplers.composite.fit import check_same_shape
from xhat.samplers.composite.lowrank import LowRankStudent


def dialed(base: nn.Module, student: nn.Module, strength: float) -> nn.Module:
    """A network with weights θ = base + s·(student − base); ``base`` itself at 0, ``student``
    itself at 1.

    Beyond 1 it goes on past the student. A student that is a switchable difference of the base, or
    the base under adapters, is dialled without a copy of the weights. Raises
    :class:`~xhat.samplers.composite.fit.DifferentArchitecture` for others."""
    if strength == 1:
        return student
    if strength == 0:
        return base
    if isinstance(student, LowRankStudent):
        return student.at_strength(strength)
    if _is_adapted(base, student):
        return _scaled(student, strength)
    check_same_shape(base, student)
    between = copy.deepcopy(student)
    with torch.no_grad():
        pairs = zip(between.parameters(), base.parameters(), student.parameters(), strict=True)
        for parameter, from_base, from_student in pairs:
            parameter.copy_(torch.lerp(from_base, from_student.to(from_base), strength))
    return between


def _is_adapted(base: nn.Module, student: nn.Module) -> bool:
    """Whether the student is the base's own weights under adapters."""
    if not getattr(student, "peft_config", None) or getattr(base, "peft_config", None):
        return False
    own = {p.data_ptr() for p in student.parameters()}
    return all(p.data_ptr() in own for p in base.parameters())


def _scaled(student: nn.Module, strength: float) -> nn.Module:
    """The student with every adapter at ``strength`` times its weight."""
    between = sharing(student)
    layer: Any
    for layer in between.modules():
        if hasattr(layer, "lora_A") and isinstance(getattr(layer, "scaling", None), dict):
            layer.scaling = {name: scale * strength for name, scale in layer.scaling.items()}
    return between
