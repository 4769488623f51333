"""The table of several arms that all experiments show alike: diversity, fidelity and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from xhat.analysis.intervals import BOUND, format_number
from xhat.analysis.measures.registry import (
    DISAGREEMENT,
    ENTROPY_BOUND,
    SECOND,
    headlines,
    measure_label,
)
from xhat.analysis.sampling.arms import against, paired_values, strata_of, summarised
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import FEWEST_PROMPTS, Verdict, margin_of, verdict

FIDELITY_MARGIN = 0.05
"""Fidelity that may be lost and still be called kept."""

COSTS = {
    "fid": Column("FID (too large at few pictures)"),
    "recall": Column("recall"),
    "evaluations": Column("evaluations"),
    "seconds": Column("s an image"),
    "megabytes": Column("MB"),
    "front_share": Column("on the front in"),
}
"""Numbers of an arm that have no interval, where they are there: of all its pictures together, and
what they cost."""


def arm_table(
    measured: xr.Dataset, labels: Mapping[str, str], *, caption: str = "", notes: Sequence[str] = ()
) -> Table:
    """A row an arm of ``labels`` (arm → what is printed), in that order.

    Columns: the headline measures with intervals, the first of them less the student's, and the
    costs. ``measured``: of :func:`~xhat.analysis.sampling.arms.measure_arms`.
    """
    levels = summarised(measured)
    names = headlines(measured.data_vars)
    costs = [name for name in COSTS if name in measured]
    arms = measured["arm"].values.tolist()
    compared = "student" in arms and len(arms) > 1
    gains = against(measured, "student")[names[0]] if compared else None
    rows = [
        [
            text,
            *(levels[name].sel(arm=arm) for name in names),
            *([] if gains is None else [None if arm == "student" else gains.sel(arm=arm)]),
            *(levels[name].sel(arm=arm) for name in costs),
        ]
        for arm, text in labels.items()
    ]
    columns = [
        Column("model"),
        *(Column(measure_label(name)) for name in names),
        *([Column(f"{measure_label(names[0])} less the student", signed=True)] * compared),
        *(COSTS[name] for name in costs),
    ]
    return Table(
        columns, rows, caption, (*notes, means_note(measured, levels), *judges_note(measured))
    )


def means_note(measured: xr.Dataset, levels: xr.Dataset) -> str:
    """What the means of :func:`~xhat.analysis.sampling.arms.summarised` are over."""
    attrs = next(v.attrs for v in levels.data_vars.values() if BOUND in v.dims)
    strata = f" within {attrs['strata']} kinds of prompts" if "strata" in attrs else ""
    few = measured.sizes["prompt"] < FEWEST_PROMPTS
    return (
        f"Means over {measured.sizes['prompt']} prompts × {measured.attrs['n_seeds']} seeds; "
        f"{attrs['level']:.0%} intervals: {attrs['method']}{strata}."
        + (f" Under {FEWEST_PROMPTS} prompts no interval is a finding." if few else "")
    )


def judges_note(measured: xr.Dataset) -> list[str]:
    """How often two judges differ, and how far that leaves attribute entropy open."""
    if ENTROPY_BOUND not in measured:
        return []
    differ, bound = (
        float(measured[name].mean("prompt").max()) for name in (DISAGREEMENT, ENTROPY_BOUND)
    )
    return [
        f"Two judges differ in at most {differ:.1%} of an arm's readings; if the first were wrong "
        f"in all of these, an attribute entropy would be off by {format_number(bound)} at most."
    ]


def few_step_base(steps: int, evaluations: float) -> str:
    """How the base at the student's number of steps, unguided, is called in every table."""
    return f"base at {steps} steps, guidance 1 ({evaluations:g} evaluations)"


def contrast(measured: xr.Dataset, more: str, less: str, measure: str) -> Verdict | None:
    """The verdict on arm ``more`` less arm ``less``; None where a diversity is infinite.

    The margin is that of :func:`margin_for`.
    """
    difference = paired_values(measured, more, less, measure)
    if not np.isfinite(difference).all():
        return None
    return verdict(difference, margin_for(measured, measure), strata=strata_of(measured))


def contrast_sentence(
    measured: xr.Dataset, more: str, less: str, measure: str, words: Mapping[str, str]
) -> str:
    """:func:`contrast` in a sentence, and whether a second judge says the same, where there is one;
    ``words``: arm → what a sentence calls it.
    """
    of = words.get(more, more), words.get(less, less), measure_label(measure)
    judged = contrast(measured, more, less, measure)
    if judged is None:
        return (
            f"{of[2]}: {of[0]} and {of[1]} cannot be compared: of some prompt no two pictures are "
            "alike at all. Give more seeds."
        )
    sentence = judged.sentence(*of)
    if f"{measure}{SECOND}" not in measured:
        return sentence
    second = contrast(measured, more, less, f"{measure}{SECOND}")
    return sentence if second is None else f"{sentence} {judged.beside(second, 'A second judge')}"


def comparable(measured: xr.Dataset, arms: Sequence[str], less: str, measure: str) -> list[str]:
    """Those of ``arms`` that can be compared with arm ``less``: whose diversity, and whose, is
    finite for every prompt.
    """
    return [arm for arm in arms if np.isfinite(paired_values(measured, arm, less, measure)).all()]


def margin_for(measured: xr.Dataset, measure: str) -> float | None:
    """A quarter of the base's lead over the student, where both are there and there is such a
    lead.
    """
    if not {"base", "student"} <= set(measured["arm"].values.tolist()):
        return None
    lead = paired_values(measured, "base", "student", measure)
    return margin_of(lead, strata=strata_of(measured)) if np.isfinite(lead).all() else None
