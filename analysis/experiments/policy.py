"""Which plan to run, from traces of base and student alone: no hybrid is sampled.

A hybrid's base makes the first of the student's steps. What its pictures owe to the base is settled
by then, the rest is the student's. So the diversity of the plan is expected to lie between the two,

    D̂ = D_student + c·(D_base − D_student),

with D_student and D_base those of the two models' own final pictures in the traces, and c the share
of the base's picture that is settled at the hand-over: the squared correlation, across the seeds of
a prompt, of the base's x̂₀ there with its own final latents. No steps of the base give the student,
all of them the base. Fidelity is made late, and is interpolated by the share of the student's steps
that the base stands in for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.registry import DIVERSITY, measure_label
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import strata_of
from xhat.analysis.stats import LEVEL
from xhat.analysis.table import Table
from xhat.analysis.traces.policy_traces import Seen, read_traces, settled_share, trace_alone
from xhat.analysis.verdicts import margin_of, verdict, verdicts
from xhat.samplers.plans.look import Look, spread
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.policy import Option, Policy
from xhat.zoo.family.attributes import OPEN_PROMPTS

FIT_PROMPTS = OPEN_PROMPTS[20:32]
"""Three rounds of the four kinds of prompts, which nothing is judged on by default."""


def fit_prompts(judged: Sequence[str], count: int | None = None) -> list[str]:
    """``count`` of :data:`FIT_PROMPTS` that are not judged; by default as many as are judged, one
    round of the four kinds at least.

    Raises ValueError where there are not so many.
    """
    others = [prompt for prompt in FIT_PROMPTS if prompt not in judged]
    if count is None:
        return others[: max(4, len(judged))]
    if not 1 <= count <= len(others):
        raise ValueError(
            f"{count} prompts to fit on: expected 1 to {len(others)}, those of the family's that "
            "are kept for it and not measured"
        )
    return others[:count]


@dataclass(frozen=True, kw_only=True)
class PolicyFit(Setting):
    """What :func:`measure_policy` is asked; budget, measure and margin are :func:`fit_policy`'s."""

    prompts: Sequence[str] = FIT_PROMPTS
    seeds: Sequence[int] = range(1000, 1016)
    budget: float = 1.2
    measure: str = "vendi_q2"
    margin: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_goal(self.budget, self.measure, self.margin)


def measure_policy(config: PolicyFit, *, traces: Path) -> Result:
    """Trace base and student alone and fit a policy to them; no hybrid is sampled.

    Parameters
    ----------
    traces
        Folder of the traces; a run that was stopped goes on there.

    Returns
    -------
    Result
        The options as the table; the policy itself in ``settings["policy"]``, which
        :func:`policy_of` reads.
    """
    pair = config.models()
    space = config.features(pair)
    traced = trace_alone(pair, config.prompts, config.seeds, traces, config.batch_size)
    seen = read_traces(traced, space, config.measure)
    drafts = _drafts(seen)
    policy = _fitted(seen, drafts, config.budget, config.measure, config.margin)
    lines, _, _ = policy.explain().partition("\n\n")
    text = (*sentences(seen, drafts, policy), *lines.splitlines())
    asked = config.settings() | {"policy": json.loads(policy.to_json())}
    return Result("policy", {}, option_table(policy), text, asked)


def sentences(seen: Mapping[str, Seen], drafts: Sequence[Draft], policy: Policy) -> tuple[str, str]:
    """Whether the student lost diversity (the primary contrast), and what the chosen plan is
    predicted to give: it was picked among many, so its interval holds for all of them.
    """
    own, label = seen["student"].diversity, measure_label(policy.measure)
    strata, lead = strata_of(seen["student"].trace), seen["base"].diversity - own
    margin = margin_of(lead, strata=strata)
    first = verdict(lead, margin, strata=strata).sentence("the base", "the student", label)
    others = [d for d in drafts if d.name != "student"]
    judged = verdicts(np.stack([d.diversity - own for d in others]), margin, strata=strata)
    by_name = dict(zip((d.name for d in others), judged, strict=True))
    if policy.chosen not in by_name:
        return first, "No plan that was considered is predicted to be worth more than the student."
    what = f"the plan “{policy.chosen}”, predicted and picked among {len(others)},"
    return first, by_name[policy.chosen].sentence(what, "the student", label)


def policy_of(result: Result) -> Policy:
    """The policy of a result of :func:`measure_policy`."""
    return Policy.from_json(json.dumps(result.settings["policy"]))


def option_table(policy: Policy) -> Table:
    """Every option, the most diverse first: cost, diversity, fidelity, and how it is known."""
    rows = [
        [
            f"{'*' if option.name == policy.chosen else ' '} {option.name}",
            option.evaluations,
            (option.diversity, option.low, option.high),
            option.fidelity,
            "measured" if option.measured else "predicted",
            "" if policy.fits(option) else "over budget, or unfaithful",
        ]
        for option in sorted(policy.options, key=lambda option: -option.diversity)
    ]
    columns = ["plan", "evaluations", measure_label(policy.measure), "fidelity", "", "not taken"]
    return Table(columns, rows, "*: chosen", [policy.setting])


def fit_policy(
    traces: Mapping[str, Any],
    budget: float = 1.2,
    *,
    space: Any = None,
    measure: str = "vendi_q2",
    margin: float = 0.05,
    worth: float = 0.05,
    adaptive: bool = True,
) -> Policy:
    """The most diverse plan within the budget, by prediction from ``traces``.

    Parameters
    ----------
    traces
        name → trace, all of the same prompts and seeds: ``"base"`` and ``"student"`` as they are
        called of themselves, and any further runs of one of them alone, named ``"base_…"`` and
        ``"student_…"``. Each base trace (of few steps, without guidance) gives hybrids of its own
        steps; each student trace (without fresh noise, without its first step) is an option as it
        stands.
    budget
        Network evaluations a picture may cost, as a multiple of the student's.
    space
        Where pictures are compared, as in :func:`~xhat.analysis.sampling.arms.measure_arms`; None:
        the latents themselves. Where it tells fidelity, options expected more than ``margin`` below
        the student's are left out.
    measure
        What is meant by diversity: one of ``vendi_q2``, ``vendi_q1``, ``attribute_entropy``,
        ``mean_pairwise_distance``.
    margin
        How much fidelity may be lost.
    worth
        Gain, as a share of the student's diversity, below which a prompt does not need the plan.
    adaptive
        Also learn when a prompt needs the plan, from the spread of the student's first x̂₀: the
        threshold under which the predicted gains, less ``worth`` of the student's diversity each,
        add up to most.

    Returns
    -------
    Policy
        The plan, what it was chosen from, and by which numbers.

    Raises
    ------
    ValueError
        For traces that do not fit together, an unknown measure, and a budget that allows nothing.
    """
    _check_goal(budget, measure, margin)
    seen = read_traces(traces, space, measure)
    return _fitted(seen, _drafts(seen), budget, measure, margin, worth=worth, adaptive=adaptive)


def _check_goal(budget: float, measure: str, margin: float) -> None:
    """Raises ValueError for what no plan can be chosen by, before anything is traced."""
    if not (np.isfinite(budget) and budget > 0):
        raise ValueError(f"budget={budget!r}: expected a finite number above 0")
    if not (np.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin={margin!r}: expected a finite number, 0 or above")
    if measure not in DIVERSITY:
        raise ValueError(f"measure={measure!r}: expected one of {', '.join(DIVERSITY)}")


def _fitted(
    seen: Mapping[str, Seen],
    drafts: list[Draft],
    budget: float,
    measure: str,
    margin: float,
    *,
    worth: float = 0.05,
    adaptive: bool = True,
) -> Policy:
    own = float(seen["student"].fidelity.mean())
    least = own - margin if np.isfinite(own) else None
    chosen = _choose(drafts, budget, least)
    look = _look(seen["student"], chosen, worth) if adaptive and chosen.name != "student" else None
    first = seen["student"].trace
    strata = strata_of(first)
    lead = crossed_mean(seen["base"].diversity - seen["student"].diversity, strata=strata)
    return Policy(
        chosen=chosen.name,
        budget=budget,
        measure=measure,
        goal=float(seen["base"].diversity.mean()),
        least_fidelity=least,
        setting=f"{first.sizes['prompt']} prompts × {first.sizes['seed']} seeds; "
        f"{LEVEL:.0%} intervals for new prompts and new seeds",
        options=tuple(draft.option(strata) for draft in drafts),
        look=look,
        lead=(float(lead.estimate), float(lead.low), float(lead.high)),
    )


@dataclass(frozen=True)
class Draft:
    """An option with its prediction: diversity (prompt, seed), fidelity (prompt,)."""

    name: str
    plan: Plan
    diversity: np.ndarray
    fidelity: np.ndarray
    measured: bool
    because: str

    def option(self, strata: Sequence[str] | None = None) -> Option:
        mean = crossed_mean(self.diversity, strata=strata)
        fidelity = float(self.fidelity.mean())
        low, high = (
            float(v) if np.isfinite(v) else float(mean.estimate) for v in (mean.low, mean.high)
        )
        return Option(
            self.name,
            self.plan,
            float(self.plan.evaluations),
            float(mean.estimate),
            low,
            high,
            fidelity if np.isfinite(fidelity) else None,
            self.measured,
            self.because,
        )


def _drafts(seen: Mapping[str, Seen]) -> list[Draft]:
    """Every option: the student's traces as they stand, and every hybrid of a base and a student
    trace.
    """
    students = [one for name, one in seen.items() if name.startswith("student")]
    bases = [one for name, one in seen.items() if name.startswith("base")]
    drafts = [
        Draft(one.name, one.plan, one.diversity, one.fidelity, True, "as traced")
        for one in students
    ]
    for student in students:
        if student.whole:
            for base in bases:
                drafts += _hybrids(base, student)
    return drafts


def _hybrids(base: Seen, student: Seen) -> list[Draft]:
    """Hybrids of a base's first steps and a student's last, one for each place to hand over."""
    drafts = []
    steps = len(student.sigma)
    for k in range(1, steps):
        above = int((base.sigma > student.sigma[k] * (1 + 1e-5)).sum())
        if base.whole and 0 < above < len(base.sigma):
            drafts.append(_hybrid(base, student, above, k, steps))
    return drafts


def _hybrid(base: Seen, student: Seen, above: int, k: int, steps: int) -> Draft:
    c = settled_share(base.trace, above - 1)
    own, late = base.plan.segments[0], student.plan.segments[0]
    plan = Plan([replace(own, start=0, stop=above), replace(late, start=k)])
    diversity = student.diversity + c[:, None] * (base.diversity - student.diversity)
    fidelity = student.fidelity + k / steps * (base.fidelity - student.fidelity)
    return Draft(
        f"{base.name} {above} of {own.num_inference_steps}, then {student.name} from step {k}",
        plan,
        diversity,
        fidelity,
        False,
        f"since {c.mean():.0%} of the pictures of {base.name!r} are settled where it hands "
        "over, at σ = "
        f"{student.sigma[k]:.3g}, between {student.diversity.mean():.3f} of {student.name!r} and "
        f"{base.diversity.mean():.3f} of {base.name!r}",
    )


def _choose(drafts: list[Draft], budget: float, least: float | None) -> Draft:
    student = next(draft for draft in drafts if draft.name == "student")
    allowed = budget * student.plan.evaluations
    within = [d for d in drafts if d.plan.evaluations <= allowed + 1e-9]
    if not within:
        cheapest = min(drafts, key=lambda d: d.plan.evaluations)
        raise ValueError(
            f"a budget of {budget:g} allows {allowed:g} evaluations a picture, {budget:g} × "
            "the student's "
            f"{student.plan.evaluations}: nothing is that cheap. The cheapest option, "
            f"{cheapest.name}, takes "
            f"{cheapest.plan.evaluations}: give a budget of "
            f"{cheapest.plan.evaluations / student.plan.evaluations:g}"
        )
    faithful = [d for d in within if least is None or d.fidelity.mean() >= least]
    if not faithful:
        raise ValueError(
            f"of the options within a budget of {budget:g} none is expected to keep a fidelity "
            f"of {least:.3f}: "
            "give a larger budget or margin"
        )
    return max(faithful, key=lambda d: (d.diversity.mean(), -d.plan.evaluations))


def _look(student: Seen, chosen: Draft, worth: float) -> Look:
    """Where a prompt is worth the plan: the threshold on the spread under which net gains add up to
    most.
    """
    first = student.trace["pred_x0"].isel(step=0).transpose("prompt", "seed", ...).values
    spreads = np.array([spread(x) for x in first])
    gains = (chosen.diversity - student.diversity).mean(1)
    order = np.argsort(spreads, kind="stable")
    sums = np.cumsum((gains - worth * student.diversity.mean(1))[order])
    best = int(sums.argmax())
    threshold = float(spreads[order[best]]) if sums[best] > 0 else 0.0
    prompts = tuple(str(p) for p in student.trace["prompt"].values)
    return Look(threshold, prompts, tuple(spreads.tolist()), tuple(gains.tolist()), worth)
