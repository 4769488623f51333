"""The table of several arms that all experiments show alike: diversity, fidelity and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from xhat.analysis.intervals import BOUND
from xhat.analysis.measures.registry import headlines, measure_label
from xhat.analysis.sampling.arms import against, paired_values, summarised
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import margin_of, verdict

COSTS = {
    "evaluations": Column("evaluations"),
    "seconds": Column("s an image"),
    "megabytes": Column("MB"),
    "front_share": Column("on the front in"),
}
"""Numbers of an arm that have no interval, where they are there."""


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
    gains = against(measured, "student")[names[0]] if "student" in arms else None
    rows = [
        [
            text,
            *(levels[name].sel(arm=arm) for name in names),
            None if gains is None or arm == "student" else gains.sel(arm=arm),
            *(levels[name].sel(arm=arm) for name in costs),
        ]
        for arm, text in labels.items()
    ]
    columns = [
        Column("model"),
        *(Column(measure_label(name)) for name in names),
        Column(f"{measure_label(names[0])} less the student", signed=True),
        *(COSTS[name] for name in costs),
    ]
    return Table(columns, rows, caption, (*notes, means_note(measured, levels)))


def means_note(measured: xr.Dataset, levels: xr.Dataset) -> str:
    """What the means of :func:`~xhat.analysis.sampling.arms.summarised` are over."""
    attrs = next(v.attrs for v in levels.data_vars.values() if BOUND in v.dims)
    return (
        f"Means over {measured.sizes['prompt']} prompts × {measured.attrs['n_seeds']} seeds; "
        f"{attrs['level']:.0%} intervals: {attrs['method']}."
    )


def few_step_base(steps: int, evaluations: float) -> str:
    """How the base at the student's number of steps, unguided, is called in every table."""
    return f"base at {steps} steps, guidance 1 ({evaluations:g} evaluations)"


def contrast_sentence(
    measured: xr.Dataset, more: str, less: str, measure: str, words: Mapping[str, str]
) -> str:
    """The verdict on arm ``more`` less arm ``less``; ``words``: arm → what a sentence calls it.

    The margin is a quarter of the base's lead over the student, where there is such a lead.
    """
    margin = None
    if {"base", "student"} <= set(measured["arm"].values.tolist()):
        margin = margin_of(paired_values(measured, "base", "student", measure))
    judged = verdict(paired_values(measured, more, less, measure), margin)
    return judged.sentence(words.get(more, more), words.get(less, less), measure_label(measure))
