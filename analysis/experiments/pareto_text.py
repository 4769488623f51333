"""What a comparison of methods says: one table, and sentences that are computed, whichever way they
fall.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from xhat.analysis.experiments.arm_table import arm_table, contrast_sentence
from xhat.analysis.intervals import BOUNDS, excludes, format_interval
from xhat.analysis.measures.pareto_front import distance
from xhat.analysis.measures.registry import measure_label
from xhat.analysis.sampling.arms import against
from xhat.analysis.table import Table
from xhat.samplers.plans.policy import Policy

MARGIN = 0.05  # fidelity that may be lost and still be called kept


def pareto_table(measured: xr.Dataset) -> Table:
    """A row a method, the most diverse first; ``*`` where it is on the front."""
    best = measured[measured.attrs["measure"]].mean("prompt").values
    order = measured.isel(arm=np.argsort(-best, kind="stable"))
    rows = zip(order["arm"].values, order["label"].values, order["front"].values, strict=True)
    labels = {str(arm): f"{'*' if front else ' '} {text}" for arm, text, front in rows}
    note = (
        f"*: on the front of {measured.attrs['front_of']}; beside it, in which share of bootstrap "
        "samples of the prompts."
    )
    return arm_table(measured, labels, caption="What more diversity costs", notes=[note])


def sentences(measured: xr.Dataset, policy: Policy, expected: xr.Dataset) -> list[str]:
    """Whether the policy's plans lie on the front, what wins at the budget, and how well the policy
    foresaw.
    """
    arms = [name for name in ("policy", "policy_adaptive") if name in measured["arm"].values]
    words = {"policy": "the policy's plan", "student": "the student"}
    measure = measured.attrs["measure"]
    lines = [contrast_sentence(measured, "policy", "student", measure, words)]
    lines += [_of_front(measured, name) for name in arms]
    for cost, text in (("evaluations", "evaluations"), ("seconds", "time")):
        lines.append(_at_budget(measured, policy, cost, text))
    return [*lines, _foreseen(expected)]


def _label(measured: xr.Dataset, arm: str) -> str:
    return str(measured["label"].sel(arm=arm).values)


def _of_front(measured: xr.Dataset, arm: str) -> str:
    measure, text = measured.attrs["measure"], _label(measured, arm)
    share = float(measured["front_share"].sel(arm=arm))
    off = distance(measured, arm, measure)
    if bool(measured["front"].sel(arm=arm)):
        return (
            f"The {text} lies on the front, and does so in {share:.0%} of bootstrap samples of the "
            "prompts."
        )
    if off.other is None:
        return (
            f"The {text} is not on the front: another is as diverse, and better in fidelity or "
            "evaluations."
        )
    holds = "" if off.low > 0 else "; the interval holds zero, so it is not told from the front"
    return (
        f"The {text} is off the front by {off.gap:.3f} [{off.low:.3f}, {off.high:.3f}] in "
        f"{measure_label(measure)}, behind {_label(measured, off.other)}{holds}. It is on the "
        f"front in {share:.0%} of bootstrap samples."
    )


def _at_budget(measured: xr.Dataset, policy: Policy, cost: str, text: str) -> str:
    limit = policy.budget * float(measured[cost].sel(arm="student"))
    within = [
        str(a) for a in measured["arm"].values if float(measured[cost].sel(arm=a)) <= limit + 1e-9
    ]
    measure = measured.attrs["measure"]
    gains = against(measured, "student")
    others = [arm for arm in within if arm != "student"]
    as_faithful = [arm for arm in others if _keeps(gains, arm)]
    if not others:
        return f"At {policy.budget:g} × the student's {text} there is nothing but the student."
    best, faithful = (
        max(of, key=lambda a: float(gains[measure].sel(arm=a, bound="estimate")), default=None)
        for of in (others, as_faithful)
    )
    begin = f"At {policy.budget:g} × the student's {text}, {_label(measured, str(best))}"
    sentence = f"{begin} is the most diverse: {_gain(measured, gains, str(best))}"
    if faithful is not None and faithful != best:
        sentence += (
            f"; of those that keep fidelity to {MARGIN:g}, {_label(measured, faithful)}: "
            f"{_gain(measured, gains, faithful)}"
        )
    if "policy" in within and "policy" not in (best, faithful):
        sentence += f". The policy: {_gain(measured, gains, 'policy')}"
    return sentence + "."


def _keeps(gains: xr.Dataset, arm: str) -> bool:
    if "fidelity" not in gains:
        return True
    return float(gains["fidelity"].sel(arm=arm, bound="estimate")) >= -MARGIN


def _gain(measured: xr.Dataset, gains: xr.Dataset, arm: str) -> str:
    gain = gains[measured.attrs["measure"]].sel(arm=arm)
    holds = "" if excludes(gain) else " (the interval holds zero)"
    return f"{format_interval(gain, signed=True)} over the student{holds}"


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
        f"mean error of {error:.3f}, where expecting no gain at all would err by {nothing:.3f}; "
        f"{inside} of {n} predictions lie within the measured interval."
    )
