"""What swaps and controls say: contrasts fixed in advance, the primary one first, and their
verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from xhat.analysis.experiments.arm_table import contrast_sentence
from xhat.analysis.measures.registry import DIVERSITY, headlines
from xhat.analysis.sampling.arms import against


@dataclass(frozen=True)
class Contrast:
    """A difference of two arms that tells one cause from the rest. ``asks``: what it means where it
    is above zero.
    """

    cause: str
    more: str
    less: str
    asks: str


CONTRASTS = (
    Contrast(
        "effect",
        "hybrid",
        "student",
        "one base step in place of the student's first raises diversity",
    ),
    Contrast(
        "skipped step", "skip", "student", "leaving the student's first step out raises diversity"
    ),
    Contrast("base's x̂₀", "hybrid", "skip", "the base's first step gives more than no first step"),
    Contrast(
        "base's x̂₀",
        "fresh",
        "student",
        "the base's x̂₀ for the student's, under the same noise, raises it",
    ),
    Contrast("base's x̂₀", "fresh", "fresh_mean", "that each seed has an x̂₀ of its own matters"),
    Contrast("base's x̂₀", "fresh", "fresh_zero", "that there is any x̂₀ matters"),
    Contrast("base's x̂₀", "fresh", "fresh_shuffle", "it matters that the x̂₀ is the seed's own"),
    Contrast(
        "noise",
        "student_own",
        "student",
        "the student keeps more without fresh noise between its steps",
    ),
    Contrast(
        "noise", "hybrid", "fresh", "the base's own noise carried on gives more than fresh noise"
    ),
    Contrast(
        "noise",
        "student",
        "student_shared",
        "noise that differs between seeds adds diversity to the student",
    ),
    Contrast(
        "guidance",
        "student",
        "student_guided",
        "guidance at the first step costs the student diversity",
    ),
    Contrast(
        "guidance", "hybrid", "hybrid_guided", "guidance at the base's first step costs diversity"
    ),
)
WORDS = {
    "student": "the student",
    "base": "the base at its own steps and guidance",
    "base_few": "the base at the student's steps, guidance 1",
    "hybrid": "the hybrid",
    "hybrid_one": "the hybrid of one evaluation",
    "skip": "the student without its first step",
    "fresh": "the student with the base's x̂₀ under fresh noise",
    "student_own": "the student without fresh noise",
    "later": "the base at all steps but the first",
}


def contrasts(measured: xr.Dataset) -> xr.Dataset:
    """Each contrast (contrast): ``cause``, ``more``, ``less``, ``asks``; every measure (contrast,
    bound).
    """
    parts = [
        against(measured.sel(arm=[c.more, c.less]), c.less).isel(arm=0, drop=True)
        for c in CONTRASTS
    ]
    joined = xr.concat(parts, "contrast", combine_attrs="override")
    fields = ("cause", "more", "less", "asks")
    return joined.assign({n: ("contrast", [getattr(c, n) for c in CONTRASTS]) for n in fields})


def sentences(measured: xr.Dataset) -> list[str]:
    """Does one base step help, is it the first step that decides, and which cause is behind it.

    Each sentence is the verdict on one contrast fixed in advance; they are not corrected for their
    number, and the first is the primary one."""
    later = later_steps(measured)
    words = WORDS | {later: WORDS["later"]}
    asked = (
        ("hybrid", "student"),
        ("student", "base"),
        ("hybrid", "base"),
        ("student", "base_few"),
        ("hybrid_one", "student"),
        (later, "student"),
        ("hybrid_one", later),
        ("skip", "student"),
        ("fresh", "student"),
        ("student_own", "student"),
        ("hybrid", "skip"),
    )
    arms = set(measured["arm"].values.tolist())
    return [
        contrast_sentence(measured, more, less, measure, words)
        for measure in headlines(measured.data_vars)
        if measure in DIVERSITY
        for more, less in asked
        if {more, less} <= arms
    ]


def later_steps(measured: xr.Dataset) -> str:
    """The arm in which the base makes all steps but the first."""
    names = [str(arm) for arm in measured["arm"].values]
    return next(n for n in names if n.startswith("sb") and set(n[1:]) == {"b"})
