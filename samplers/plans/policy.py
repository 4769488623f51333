"""A policy: the plan that was chosen for a pair, what it was chosen from, and by which numbers. It
is data.

:func:`xhat.fit_policy` fits one to traces; here it is kept, explained, saved, and asked for the
plan
of a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xhat.samplers.plans.look import Look, spread
from xhat.samplers.plans.plan import Plan

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
    lead
        the base's diversity over the student's, paired: estimate, low, high. A share of it is given
        where the interval lies above zero.

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
    lead: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        names = [option.name for option in self.options]
        for name in ("student", self.chosen):
            if name not in names:
                raise ValueError(
                    f"a policy needs {name!r} among its options; it has "
                    f"{', '.join(names) or 'none'}"
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

    @classmethod
    def fit(cls, traces: Mapping[str, Any], budget: float = 1.2, **options: Any) -> Policy:
        """The policy that :func:`xhat.fit_policy` fits to traces."""
        import xhat

        return xhat.fit_policy(traces, budget, **options)

    def explain(self) -> str:
        """Why this plan: in words, with the numbers that decided."""
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
                f'not a policy: expected JSON with "xhat_policy": {FORMAT}, as Policy.save '
                "writes it"
            )
        given = {name: value for name, value in data.items() if name != "xhat_policy"}
        try:
            given["options"] = tuple(_option(entry) for entry in given["options"])
            given["look"] = None if given["look"] is None else _look(given["look"])
            given["lead"] = None if given.get("lead") is None else tuple(given["lead"])
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
        return html_table(self)


def _option(entry: Mapping[str, Any]) -> Option:
    return Option(**{**entry, "plan": Plan.from_json(json.dumps(entry["plan"]))})


def _look(entry: Mapping[str, Any]) -> Look:
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Look(**given)


def explained(policy: Policy) -> str:
    """Several lines: the choice, its prediction, the look, and a table of every option with its
    verdict.
    """
    chosen, student = policy.option(policy.chosen), policy.option("student")
    lines = [
        f"Chosen: {chosen.name}, at {chosen.evaluations:g} evaluations a picture, "
        f"{chosen.evaluations / student.evaluations:.2f} × the student's "
        f"{student.evaluations:g}. The budget of "
        f"{policy.budget:g} × allows {policy.allowed:g}.",
        f"Why: of the {sum(map(policy.fits, policy.options))} options that may be taken it is "
        "the most diverse: "
        f"{policy.measure} {interval(chosen)}, {chosen.because}.",
        _gap(policy, chosen, student),
    ]
    if policy.least_fidelity is not None and chosen.fidelity is not None:
        lines.append(
            f"Fidelity: {chosen.fidelity:.3f} expected; no option below "
            f"{policy.least_fidelity:.3f} is taken."
        )
    if policy.look is not None:
        lines.append(_look_in_words(policy))
    return "\n".join([*lines, f"Fitted on {policy.setting}.", "", table(policy)])


def interval(option: Option) -> str:
    """mean [low, high]"""
    return f"{option.diversity:.3f} [{option.low:.3f}, {option.high:.3f}]"


def _gap(policy: Policy, chosen: Option, student: Option) -> str:
    gap, gain = policy.goal - student.diversity, chosen.diversity - student.diversity
    if gap <= 0:
        return (
            f"Gap: the base's own pictures, at {policy.goal:.3f}, are no more diverse than the "
            "student's, at "
            f"{student.diversity:.3f}: there is no loss to undo."
        )
    text = (
        f"Gap: the student has {student.diversity:.3f}, the base's own pictures "
        f"{policy.goal:.3f}; the plan should restore {gain:+.3f}"
    )
    if policy.lead is None or not policy.lead[1] > 0:
        return f"{text}. The gap itself is not told from zero: no share of it is given."
    return f"{text}, {gain / gap:.0%} of what was lost."


def _look_in_words(policy: Policy) -> str:
    look = policy.look
    assert look is not None
    needing = sum(value <= look.threshold for value in look.spreads)
    return (
        "Adaptive: a prompt gets this plan where the spread of the student's first x̂₀ is at "
        "or below "
        f"{look.threshold:.4f}, else the student alone: {needing} of the {len(look.spreads)} "
        "prompts it was fitted on, "
        f"whose spreads are {min(look.spreads):.4f} to {max(look.spreads):.4f}. There the plan "
        "is expected to add at "
        f"least {look.worth:.0%} of the student's diversity on average."
    )


def table(policy: Policy) -> str:
    """Every option, the most diverse first: cost, prediction, and why it was not taken."""
    width = max(len(option.name) for option in policy.options)
    head = f"{'':{width}}  {'evals':>5}  {policy.measure:>22}  {'fidelity':>8}"
    rows = [head]
    for option in sorted(policy.options, key=lambda o: -o.diversity):
        fidelity = "" if option.fidelity is None else f"{option.fidelity:.3f}"
        rows.append(
            f"{option.name:{width}}  {option.evaluations:5g}  {interval(option):>22}  "
            f"{fidelity:>8}  "
            f"{_verdict(policy, option)}"
        )
    return "\n".join(rows)


def _verdict(policy: Policy, option: Option) -> str:
    how = "measured" if option.measured else "predicted"
    if option.name == policy.chosen:
        return f"{how}, chosen"
    if policy.fits(option):
        return f"{how}, less diverse"
    return (
        f"{how}, {'over the budget' if option.evaluations > policy.allowed else 'fidelity too low'}"
    )


def html_table(policy: Policy) -> str:
    """The options as an HTML table, the chosen one and those that may not be taken marked; for
    notebooks.
    """
    head = "".join(
        f"<th>{escape(n)}</th>"
        for n in ("", "plan", "evaluations", policy.measure, "source", "fidelity")
    )
    body = "".join(_html_row(policy, option) for option in policy.options)
    caption = escape(explained(policy).partition("\n")[0])
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<table><caption>{caption}</caption>{table}</table>"


def _html_row(policy: Policy, option: Option) -> str:
    mark = (
        "chosen" if option.name == policy.chosen else "" if policy.fits(option) else "not allowed"
    )
    fidelity = "" if option.fidelity is None else f"{option.fidelity:.2f}"
    source = "measured" if option.measured else "predicted"
    cells = (mark, option.name, f"{option.evaluations:g}", interval(option), source, fidelity)
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
