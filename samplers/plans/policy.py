"""A policy: the plan that was chosen for a pair, what it was chosen from, and by which numbers. It
is data.

:class:`xhat.analysis.experiments.policy.Policy` fits one from traces; here it is kept, explained,
saved, and asked for the plan of a prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xhat.samplers.plans.plan import Plan, Segment

if TYPE_CHECKING:
    import torch

FORMAT = 1


@dataclass(frozen=True)
class Option:
    """One plan that was considered. Diversity and fidelity are predictions for it, ``low`` and
    ``high`` the interval.

    ``evaluations``: of a network, for one picture. ``measured``: the plan runs one model alone and
    was traced, so that nothing is predicted. ``fidelity`` is None where it was not asked for.
    ``because``: the numbers of the prediction."""

    name: str
    plan: Plan
    evaluations: float
    diversity: float
    low: float
    high: float
    fidelity: float | None
    measured: bool
    because: str


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


@dataclass(frozen=True)
class Policy:
    """The plan chosen for a pair under a budget.

    budget
        what a picture may cost: network evaluations, as a multiple of the student's own.
    measure
        what is meant by diversity.
    goal
        that diversity of the base's own pictures, at the base's own steps.
    least_fidelity
        options predicted below this are left out; None where fidelity was not asked for.

    Raises ValueError where the chosen option is not among the options.
    """

    chosen: str
    budget: float
    measure: str
    goal: float
    least_fidelity: float | None
    setting: str
    options: tuple[Option, ...]
    look: Look | None = None

    def __post_init__(self) -> None:
        names = [option.name for option in self.options]
        for name in ("student", self.chosen):
            if name not in names:
                raise ValueError(
                    f"a policy needs {name!r} among its options; it has {', '.join(names) or 'none'}"
                )

    def option(self, name: str) -> Option:
        """The option of a name. Raises ValueError for a name that there is not."""
        for option in self.options:
            if option.name == name:
                return option
        raise ValueError(
            f"no option is named {name!r}; there are {', '.join(o.name for o in self.options)}"
        )

    @property
    def plan(self) -> Plan:
        """The plan for every prompt: what :func:`xhat.hybrid` runs."""
        return self.option(self.chosen).plan

    @property
    def allowed(self) -> float:
        """Network evaluations that a picture may cost."""
        return self.budget * self.option("student").evaluations

    def fits(self, option: Option) -> bool:
        """Whether an option is within the budget and keeps the fidelity asked for."""
        faithful = (
            self.least_fidelity is None
            or option.fidelity is None
            or option.fidelity >= self.least_fidelity
        )
        return option.evaluations <= self.allowed + 1e-9 and faithful

    def needs_base(self, first_x0: torch.Tensor) -> bool:
        """Whether a prompt needs the chosen plan: by the student's first x̂₀ (n, …) of two or more
        of its samples.

        Raises ValueError for a policy without a look, and for fewer than two samples.
        """
        if self.look is None:
            raise ValueError("this policy has one plan for all prompts: fit it with adaptive=True")
        return spread(first_x0) <= self.look.threshold

    def plan_for(self, first_x0: torch.Tensor) -> Plan:
        """The chosen plan where the prompt needs it, else the student's own."""
        return self.plan if self.needs_base(first_x0) else self.option("student").plan

    def explain(self) -> str:
        """Why this plan: in words, with the numbers that decided."""
        from xhat.samplers.plans.explain import explained

        return explained(self)

    def to_json(self) -> str:
        """JSON text."""
        options = [
            {**asdict(option), "plan": json.loads(option.plan.to_json())} for option in self.options
        ]
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        look = None if self.look is None else asdict(self.look)
        return json.dumps(
            {"xhat_policy": FORMAT, **own, "options": options, "look": look},
            indent=1,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The policy that :meth:`to_json` wrote. Raises ValueError for text that is not a
        policy.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a policy: {error}") from error
        if not isinstance(data, Mapping) or data.get("xhat_policy") != FORMAT:
            raise ValueError(
                f'not a policy: expected JSON with "xhat_policy": {FORMAT}, as Policy.save writes it'
            )
        given = {name: value for name, value in data.items() if name != "xhat_policy"}
        try:
            given["options"] = tuple(_option(entry) for entry in given["options"])
            given["look"] = None if given["look"] is None else _look(given["look"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a policy: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write to a JSON file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote. Raises ValueError for a file that is not there, or no
        policy.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(
                f"no policy at {path}: write one with Policy.save, or with `xhat policy fit`"
            )
        return cls.from_json(path.read_text())

    def __str__(self) -> str:
        return self.explain()

    def _repr_html_(self) -> str:
        from xhat.samplers.plans.explain import html_table

        return html_table(self)


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


def _option(entry: Mapping[str, Any]) -> Option:
    return Option(**{**entry, "plan": Plan.from_json(json.dumps(entry["plan"]))})


def _look(entry: Mapping[str, Any]) -> Look:
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Look(**given)


def first_step(student: Plan) -> Plan:
    """The plan of a student's first x̂₀ alone, which comes out as the final latents: one
    evaluation.
    """
    first = student.segments[0]
    return Plan(
        [
            Segment(
                first.model,
                first.start,
                first.start + 1,
                first.num_inference_steps,
                first.guidance_scale,
                spacing=first.spacing,
                noise="own",
            )
        ]
    )
