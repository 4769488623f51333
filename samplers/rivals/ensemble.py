"""An ensemble of students: every sample is denoised by one of them, drawn by its own noise."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from xhat.hooks.model import note
from xhat.hooks.points.names import slot_of
from xhat.hooks.record.rows import take
from xhat.samplers.composite.facade import Facade
from xhat.samplers.composite.fit import check_fit
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.plans.plan import Plan


class Ensemble(Facade):
    """Routes the rows of a batch among networks.

    Which network is a sample's own is settled by its first latents: each is as likely as any other,
    and a seed's choice does not depend on its batch. ``scheduler``: the composite that knows of the
    run."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleDict(dict(networks))
        self.scheduler: Any = None

    def front(self) -> nn.Module:
        return next(iter(self.members.values()))

    def networks(self) -> Sequence[nn.Module]:
        return tuple(self.members.values())

    def forward(self, return_dict: bool = True, **inputs: Any) -> Any:
        rows = max(len(x) for x in inputs.values() if isinstance(x, torch.Tensor) and x.ndim > 1)
        keys = self.scheduler.run.keys
        owners = [key % len(self.members) for key in keys] * (rows // len(keys))
        answers: dict[int, torch.Tensor] = {}
        for number, member in enumerate(self.members.values()):
            own = [row for row in range(rows) if owners[row] == number]
            if own:
                answers |= dict(
                    zip(own, member(**take(inputs, rows, own), return_dict=False)[0], strict=True)
                )
        return (torch.stack([answers[row] for row in range(rows)]),)


def ensemble(students: Mapping[str, Any], plan: Plan) -> Any:
    """A pipeline in which each sample follows ``plan`` with a student of its own, at the cost of
    one.

    The plan names the model ``"student"``. Raises ValueError for students that do not fit together,
    or whose schedulers differ: their steps would not be the same."""
    check_fit(students)
    first = next(iter(students.values()))
    settings = {name: _settings(pipe.scheduler) for name, pipe in students.items()}
    for name, own in settings.items():
        if own != settings[next(iter(settings))]:
            raise ValueError(
                f"the schedulers of {next(iter(settings))!r} and {name!r} differ: expected one "
                "for all"
            )
    slot = slot_of(first)
    routed = Ensemble({name: getattr(pipe, slot) for name, pipe in students.items()})
    member = copy.copy(first)
    member.register_modules(**{slot: routed})
    pipe = compose({"student": member}, plan)
    routed.scheduler = pipe.scheduler
    return note(pipe, ensemble=list(students))


def _settings(scheduler: Any) -> tuple[str, dict[str, Any]]:
    return type(scheduler).__name__, {
        k: v for k, v in scheduler.config.items() if not k.startswith("_")
    }
