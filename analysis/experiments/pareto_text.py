"""What a comparison of methods says: one table, and sentences that are computed, whichever way they
fall.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.measures.pareto_front import distance
from xhat.analysis.sampling.arms import MEASURES, against, summarised
from xhat.samplers.plans.policy import Policy

MARGIN = 0.05  # fidelity that may be lost and still be called kept


def table(measured: xr.Dataset) -> str:
    """A line a method, the most diverse first; ``*`` where it is on the front."""
    names = [
        name
        for name in MEASURES
        if name in measured and name not in ("rms", "mean_pairwise_distance")
    ]
    found = summarised(measured)
    order = np.argsort(-found[f"{measured.attrs['measure']}_mean"].values, kind="stable")
    head = f"  {'':24}" + "".join(f"{MEASURES[name]:>22}" for name in names)
    lines = [f"{head}{'evals':>7}{'s/image':>9}{'MB':>7}{'front in':>10}"]
    for i in order:
        one = found.isel(arm=int(i))
        cells = "".join(f"{_cell(one, name):>22}" for name in names)
        star = "*" if bool(one["front"]) else " "
        lines.append(
            f"{star} {str(one['label'].values):24}{cells}{float(one['evaluations']):7.1f}{float(one['seconds']):9.4f}"
            f"{float(one['megabytes']):7.2f}{float(one['front_share']):10.0%}"
        )
    lines.append(
        f"Means over {measured.sizes['prompt']} prompts × {measured.attrs['n_seeds']} seeds; 95 % bootstrap over "
        f"prompts. *: on the front of {measured.attrs['front_of']}; beside it, in which share of bootstrap samples."
    )
    return "\n".join(lines)


def _cell(one: xr.Dataset, name: str) -> str:
    mean, low, high = (float(one[f"{name}_{part}"]) for part in ("mean", "low", "high"))
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def sentences(measured: xr.Dataset, policy: Policy, expected: xr.Dataset) -> list[str]:
    """Whether the policy's plans lie on the front, what wins at the budget, and how well the policy
    foresaw.
    """
    arms = [name for name in ("policy", "policy_adaptive") if name in measured["arm"].values]
    said = [_of_front(measured, name) for name in arms]
    for cost, text in (("evaluations", "evaluations"), ("seconds", "time")):
        said.append(_at_budget(measured, policy, cost, text))
    return [*said, _foreseen(expected)]


def _label(measured: xr.Dataset, arm: str) -> str:
    return str(measured["label"].sel(arm=arm).values)


def _of_front(measured: xr.Dataset, arm: str) -> str:
    measure, text = measured.attrs["measure"], _label(measured, arm)
    share = float(measured["front_share"].sel(arm=arm))
    off = distance(measured, arm, measure)
    if bool(measured["front"].sel(arm=arm)):
        return f"The {text} lies on the front, and does so in {share:.0%} of bootstrap samples of the prompts."
    if off.other is None:
        return f"The {text} is not on the front: another is as diverse, and better in fidelity or evaluations."
    holds = "" if off.low > 0 else "; the interval holds zero, so it is not told from the front"
    return (
        f"The {text} is off the front by {off.gap:.3f} [{off.low:.3f}, {off.high:.3f}] in {MEASURES[measure]}, behind "
        f"{_label(measured, off.other)}{holds}. It is on the front in {share:.0%} of bootstrap samples."
    )


def _at_budget(measured: xr.Dataset, policy: Policy, cost: str, text: str) -> str:
    limit = policy.budget * float(measured[cost].sel(arm="student"))
    within = [
        str(a) for a in measured["arm"].values if float(measured[cost].sel(arm=a)) <= limit + 1e-9
    ]
    measure = measured.attrs["measure"]
    gains = against(measured, "student")
    others = [arm for arm in within if arm != "student"]
    kept = [arm for arm in others if _keeps(gains, arm)]
    if not others:
        return f"At {policy.budget:g} × the student's {text} there is nothing but the student."
    best, faithful = (
        max(of, key=lambda a: float(gains[f"{measure}_mean"].sel(arm=a)), default=None)
        for of in (others, kept)
    )
    begin = f"At {policy.budget:g} × the student's {text}, {_label(measured, str(best))} is the most diverse"
    sentence = f"{begin}: {_gain(measured, gains, str(best))}"
    if faithful is not None and faithful != best:
        sentence += (
            f"; of those that keep fidelity to {MARGIN:g}, {_label(measured, faithful)}: "
            f"{_gain(measured, gains, faithful)}"
        )
    own = "policy"
    if own in within and own not in (best, faithful):
        sentence += f". The policy: {_gain(measured, gains, own)}"
    return sentence + "."


def _keeps(gains: xr.Dataset, arm: str) -> bool:
    return "fidelity_mean" not in gains or float(gains["fidelity_mean"].sel(arm=arm)) >= -MARGIN


def _gain(measured: xr.Dataset, gains: xr.Dataset, arm: str) -> str:
    measure = measured.attrs["measure"]
    mean, low, high = (
        float(gains[f"{measure}_{part}"].sel(arm=arm)) for part in ("mean", "low", "high")
    )
    gap = float((measured[measure].sel(arm="base") - measured[measure].sel(arm="student")).mean())
    share = (
        f", {mean / gap:.0%} of the base's lead"
        if gap > 0
        else ", where the base has no lead over the student"
    )
    holds = "" if low > 0 or high < 0 else " (the interval holds zero)"
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] over the student{share}{holds}"


def _foreseen(expected: xr.Dataset) -> str:
    n = expected.sizes["plan"]
    if n == 0:
        return "None of the plans that the policy predicted was measured."
    error = float(np.abs(expected["expected"] - expected["found"]).mean())
    inside = int(
        (
            (expected["expected"] >= expected["low"]) & (expected["expected"] <= expected["high"])
        ).sum()
    )
    nothing = float(np.abs(expected["found"]).mean())
    return (
        f"The policy foresaw the gains of {n} hybrids on prompts and seeds it never saw with a mean error of "
        f"{error:.3f}, where expecting no gain at all would err by {nothing:.3f}; {inside} of {n} predictions lie "
        "within the measured interval."
    )


def to_results(measured: xr.Dataset, policy: Policy, expected: xr.Dataset) -> dict[str, Any]:
    """All of it as JSON: settings, a row a method, the policy's predictions, the sentences."""
    found = summarised(measured)
    rows = []
    for arm in found["arm"].values:
        one = found.sel(arm=arm)
        intervals = {
            name: [float(one[f"{name}_{part}"]) for part in ("mean", "low", "high")]
            for name in MEASURES
            if f"{name}_mean" in found
        }
        costs = {
            name: float(one[name])
            for name in ("evaluations", "seconds", "megabytes", "front_share")
        }
        rows.append(
            {
                "arm": str(arm),
                "label": str(one["label"].values),
                **intervals,
                **costs,
                "front": bool(one["front"]),
            }
        )
    return {
        "prompts": [str(p) for p in measured["prompt"].values],
        "seeds": list(measured.attrs["seeds"]),
        "measure": measured.attrs["measure"],
        "front_of": measured.attrs["front_of"],
        "chosen": policy.chosen,
        "budget": policy.budget,
        "rows": rows,
        "predictions": [
            {
                "plan": str(p),
                **{str(n): float(v.sel(plan=p)) for n, v in expected.data_vars.items()},
            }
            for p in expected["plan"].values
        ],
        "sentences": sentences(measured, policy, expected),
    }
