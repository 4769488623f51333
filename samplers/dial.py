"""Weights between a base and its student."""

from __future__ import annotations

import copy

import torch
from torch import nn

from xhat.samplers.fit import check_same_shape
from xhat.samplers.lowrank import LowRankStudent


def dialed(base: nn.Module, student: nn.Module, strength: float) -> nn.Module:
    """A network with weights θ = base + s·(student − base); ``base`` itself at 0, ``student`` itself at 1.

    Beyond 1 it goes on past the student. A student that is a switchable difference of the base is dialled without a
    copy of the weights. Raises ValueError for networks that are not one architecture.
    """
    if strength == 1:
        return student
    if strength == 0:
        return base
    if isinstance(student, LowRankStudent):
        return student.at_strength(strength)
    check_same_shape(base, student)
    between = copy.deepcopy(student)
    with torch.no_grad():
        pairs = zip(between.parameters(), base.parameters(), student.parameters(), strict=True)
        for parameter, from_base, from_student in pairs:
            parameter.copy_(torch.lerp(from_base, from_student.to(from_base), strength))
    return between
