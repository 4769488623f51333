"""What a comparison of methods says: one table, and sentences that are computed, whichever way they
fall.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from xhat.analysis.experiments.arm_table import (
    FIDELITY_MARGIN,
    arm_table,
    comparable,
    contrast_sentence,
    margin_for,
)
from xhat.analysis.intervals import BOUNDS, format_number
from xhat.analysis.measures.pareto_front import distance
from xhat.analysis.measures.registry import measure_label
from xhat.analysis.sampling.arms import paired_values, strata_of
from xhat.analysis.table import Table
from xhat.analysis.verdicts import best_of, verdict, verdicts
from xhat.samplers.plans.policy import Policy

BUDGETS = (1.0, 1.2, 2.0)  # of the student's evaluations
COMBINED = ("hybrid_embedding_noise",)  # two ways at once: against the best single one


def pareto_table(measured: xr.Dataset) -> Table:
    """A row a method, the most diverse first; ``*`` where it is on the front."""
    best = measured[measured.attrs["measure"]].mean("prompt").values
    order = measured.isel(arm=np.argsort(-best, kind="stable"))
    rows = zip(order["arm"].values, order["label"].values, order["front"].values, strict=True)
    labels = {str(arm): f"{'*' if front else ' '} {text}" for arm, text, front in rows}
    note = (
        f"*: on the front of {measured.attrs['front_of']}; beside it, in which share of bootstrap "
        "samples of prompts and seeds."
    )
    return arm_table(measured, labels, caption="What more diversity costs", notes=[note])


def sentences(measured: xr.Dataset, policy: Policy, expected: xr.Dataset) -> tuple[str, ...]:
    """Whether the policy's plan beats the student (the primary contrast), whether it is on the
    front, what wins at the budget, and how well the policy foresaw.
    """
    arms = [name for name in ("policy", "policy_adaptive") if name in measured["arm"].values]
    words = {"policy": "the policy's plan", "student": "the student"}
    measure = measured.attrs["measure"]
    lines = [contrast_sentence(measured, "policy", "student", measure, words)]
    arms += [name for name in COMBINED if name in measured["arm"].values]
    lines += [_of_front(measured, name) for name in arms]
    for budget in sorted({*BUDGETS, policy.budget}):
        lines.append(_at_budget(measured, budget, "evaluations", "evaluations"))
    lines.append(_at_budget(measured, policy.budget, "seconds", "time"))
    lines += [_front_by_budget(measured), gains_shown(measured), _choices(policy)]
    return (*lines, _foreseen(expected))


def _label(measured: xr.Dataset, arm: str) -> str:
    return str(measured["label"].sel(arm=arm).values)


def _of_front(measured: xr.Dataset, arm: str) -> str:
    measure, text = measured.attrs["measure"], _label(measured, arm)
    where = "on" if bool(measured["front"].sel(arm=arm)) else "off"
    share = float(measured["front_share"].sel(arm=arm))
    means = (
        f"By its means “{text}” is {where} the front, and in {share:.0%} of bootstrap samples of "
        "prompts and seeds it is on it."
    )
    margin = margin_for(measured, measure)
    off = distance(measured, arm, measure, margin=margin, strata=strata_of(measured))
    if off is None:
        return f"{means} No other was measured that is as cheap and as faithful."
    best = f"{_label(measured, off.other)}, {_picked(off.rivals, 'as cheap and as faithful')},"
    return f"{means} {off.verdict.sentence(best, text, measure_label(measure))}"


def _at_budget(measured: xr.Dataset, budget: float, cost: str, text: str) -> str:
    limit = budget * float(measured[cost].sel(arm="student"))
    within = [
        str(a)
        for a in measured["arm"].values
        if str(a) != "student" and float(measured[cost].sel(arm=a)) <= limit + 1e-9
    ]
    begin = f"At {budget:g} × the student's {text}"
    if not within:
        return f"{begin} there is nothing but the student."
    within = comparable(measured, within, "student", measured.attrs["measure"])
    if not within:
        return f"{begin} nothing can be compared: some prompt's pictures have nothing in common."
    faithful = [arm for arm in within if _keeps(measured, arm)]
    best, sentence = best_arm(measured, within, "")
    line = f"{begin}: {sentence}"
    if not faithful:
        return f"{line} None of them is shown to keep fidelity to {FIDELITY_MARGIN:g}."
    other, sentence = best_arm(
        measured, faithful, f"that are shown to keep fidelity to {FIDELITY_MARGIN:g}"
    )
    return (
        f"{line} It is shown to keep fidelity to {FIDELITY_MARGIN:g}."
        if other == best
        else (f"{line} {sentence}")
    )


def _front_by_budget(measured: xr.Dataset) -> str:
    """Who is on the front, by what it costs: a method is beaten by none that is as cheap, so that
    the front within a budget is the part of the front that costs no more.
    """
    share = measured["evaluations"] / float(measured["evaluations"].sel(arm="student"))
    front, parts, below = measured["front"].values.astype(bool), [], 0.0
    for budget in BUDGETS:
        there = front & (share.values > below + 1e-9) & (share.values <= budget + 1e-9)
        names = ", ".join(map(str, measured["label"].values[there])) or "nothing more"
        parts.append(f"within {budget:g} × the student's evaluations {names}")
        below = budget
    return f"On the front of {measured.attrs['front_of']}, by the means: {'; '.join(parts)}."


def gains_shown(measured: xr.Dataset) -> str:
    """Which methods are shown to be more diverse than the student, and which less, by intervals
    that hold for all of them together.
    """
    measure = measured.attrs["measure"]
    arms = [str(arm) for arm in measured["arm"].values if str(arm) != "student"]
    gains = np.stack([paired_values(measured, arm, "student", measure) for arm in arms])
    judged = verdicts(gains, margin_for(measured, measure), strata=strata_of(measured))
    named = {
        kind: [
            f"{_label(measured, arm)} ({float(one.interval.estimate):+.2f})"
            for arm, one in zip(arms, judged, strict=True)
            if one.kind == kind
        ]
        for kind in ("yes", "opposite", "equivalent", "undecided")
    }
    words = {
        "yes": "have more than the student",
        "opposite": "have less",
        "equivalent": "are equivalent to it",
        "undecided": "are not told apart from it",
    }
    parts = [f"{len(of)} {words[kind]}: {', '.join(of)}" for kind, of in named.items() if of]
    text = f"{measure_label(measure)} of {len(arms)} methods, all held together"
    return f"{text}: {'; '.join(parts)}."


def _choices(policy: Policy) -> str:
    return (
        f"The policy picked among {len(policy.options)} plans by traces of base and student alone. "
        "A method with settings has six, which --tune measures, and its defaults without it."
    )


def best_arm(measured: xr.Dataset, arms: list[str], which: str) -> tuple[str, str]:
    """The most diverse of some arms, and the verdict on it against the student, in a sentence."""
    measure = measured.attrs["measure"]
    gains = np.stack([paired_values(measured, arm, "student", measure) for arm in arms])
    best, judged = best_of(gains, margin_for(measured, measure), strata=strata_of(measured))
    name = f"{_label(measured, arms[best])}, {_picked(len(arms), which)},"
    return arms[best], judged.sentence(name, "the student", measure_label(measure))


def _picked(count: int, which: str) -> str:
    if count == 1:
        return f"the only one {which}".rstrip()
    return f"the most diverse of {count} {which}".rstrip()


def _keeps(measured: xr.Dataset, arm: str) -> bool:
    """Whether an arm is shown to lose less fidelity than the margin to the student."""
    if "fidelity" not in measured:
        return True
    lost = paired_values(measured, arm, "student", "fidelity")
    return verdict(lost, FIDELITY_MARGIN, strata=strata_of(measured)).no_loss


def _foreseen(expected: xr.Dataset) -> str:
    n = expected.sizes["plan"]
    if n == 0:
        return "None of the plans that the policy predicted was measured."
    came, low, high = (expected["measured"].sel(bound=part) for part in BOUNDS)
    error = float(np.abs(expected["expected"] - came).mean())
    inside = int(((expected["expected"] >= low) & (expected["expected"] <= high)).sum())
    nothing = float(np.abs(came).mean())
    return (
        f"The policy foresaw the gains of {n} hybrids on prompts and seeds it never saw with a "
        f"mean error of {format_number(error)}, where expecting no gain at all would err by "
        f"{format_number(nothing)}; "
        f"{inside} of {n} predictions lie within the measured interval."
    )
