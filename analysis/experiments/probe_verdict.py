"""What a probe lets one say of a checkpoint, and which plan it recommends: sentences of the
numbers, either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.arm_table import comparable, contrast, margin_for
from xhat.analysis.intervals import format_interval, format_number
from xhat.analysis.measures.registry import MEASURES, headlines, measure_label
from xhat.analysis.sampling.arms import against, paired_values, strata_of, summarised
from xhat.analysis.sampling.structure import has_learned
from xhat.analysis.verdicts import Verdict as Difference
from xhat.analysis.verdicts import verdicts
from xhat.samplers.plans.plan import Plan

MEASURE, CLOSE = "vendi_q2", 2.0
"""What diversity means; and how many times the student's evaluations a plan may take to be
recommended."""

ARMS = {
    "student": "the checkpoint as it is",
    "hybrid": "the base for the first step, in several evaluations, the checkpoint after",
    "hybrid_one": "the base for the first step, in one evaluation, the checkpoint after",
    "later": "the checkpoint for the first step, the base after",
    "skip": "the checkpoint without its first step",
    "base_few": "the base at the checkpoint's number of steps, guidance 1",
    "base": "the base at its own steps",
}


@dataclass(frozen=True)
class ProbeVerdict:
    """``headline`` and ``recommendation`` in a sentence or two each, the ``evidence`` for them, the
    ``plan`` as JSON (None where there is none to recommend), and whether there was something to
    ``show`` at all."""

    headline: str
    recommendation: str
    evidence: list[str] = field(default_factory=list)
    plan: str | None = None
    show: bool = True


def nothing(unlearned: list[str], shown: Mapping[str, xr.Dataset]) -> ProbeVerdict:
    """For models that do not denoise: no measure of diversity means anything there."""
    both = len(unlearned) == len(shown) > 1
    who = "Neither the checkpoint nor its base" if both else f"The {_model(unlearned[0])}"
    verb = "has" if both else "has not"
    return ProbeVerdict(
        headline=f"{who} {verb} learned to make pictures: there is nothing to show.",
        recommendation="No plan is recommended. A network with random or broken weights looks "
        "like this, and so does one that is run with a scheduler, prediction type or precision "
        "that is not its own.",
        evidence=[learned_text(name, found) for name, found in shown.items()],
        show=False,
    )


def learned_text(name: str, found: xr.Dataset) -> str:
    """What the two tests of structure say of one model."""
    gain = format_interval(found["gain_mean"], signed=True)
    how = "better than" if has_learned(found) else "not shown to be better than"
    near = float(found["neighbours_mean"].sel(bound="estimate"))
    return (
        f"{_model(name).capitalize()}: given noise at σ = {format_number(found.attrs['sigma'])}, "
        f"its prediction of what tells its own pictures apart is {how} a straight line in x_t "
        f"(gain {gain}, {found['gain_mean'].attrs['level']:.0%} interval; 1 is perfect, 0 the "
        "line). "
        f"Neighbouring values of its final latents correlate at {format_number(near, decimals=2)}; "
        "in white noise, at 0."
    )


def alone(
    measured: xr.Dataset, diversity: Mapping[str, xr.Dataset], commitment: Mapping[str, xr.Dataset]
) -> ProbeVerdict:
    """For one model without a base: what it does, and that whether it lost something cannot be
    told.
    """
    own = summarised(measured).sel(arm="student")
    n = int(measured.attrs["n_seeds"])
    count = _level(own, MEASURE)
    return ProbeVerdict(
        headline=f"Across {n} seeds of a prompt its pictures count as {count} different ones.",
        recommendation="Whether that is a collapse cannot be told without the model it was "
        "distilled from: give --base. No plan is recommended.",
        evidence=_evidence(diversity, commitment) + _fidelity(own, "The checkpoint"),
    )


def recommended(
    measured: xr.Dataset,
    plans: Mapping[str, Plan],
    similar: xr.Dataset | None,
    moved: list[dict[str, Any]],
    *,
    diversity: Mapping[str, xr.Dataset],
    commitment: Mapping[str, xr.Dataset],
) -> ProbeVerdict:
    """For a pair: whether the checkpoint lost diversity to its base (the primary contrast), where,
    and which plan gives it back at its cost.

    A plan is recommended where its gain over the checkpoint is above zero, by intervals that hold
    for all plans together, its fidelity (where known) is not told to be below the checkpoint's,
    and it takes at most twice the evaluations: of those, the one of most diversity."""
    lost = contrast(measured, "student", "base", MEASURE)
    gains = _gains(measured, list(plans))
    good = [arm for arm in gains if gains[arm].kind == "yes" and _fits(measured, plans, arm)]
    evidence = (
        _evidence(diversity, commitment)
        + _cells(against(measured, "student"), summarised(measured))
        + _layers(similar)
        + _sliders(moved)
    )
    headline = _headline(measured, lost)
    if not good:
        return ProbeVerdict(headline, _nothing_to_do(lost), evidence)
    best = max(good, key=lambda arm: float(gains[arm].interval.estimate))
    gain = gains[best].sentence(ARMS[best], "the checkpoint alone", measure_label(MEASURE))
    text = (
        f"Sample with {ARMS[best]}, {plans[best].evaluations} evaluations a picture. {gain}"
        f"{_share(gains[best], lost)}"
    )
    return ProbeVerdict(headline, text, evidence, plans[best].to_json())


def _headline(measured: xr.Dataset, lost: Difference | None) -> str:
    if lost is None:
        return "Whether it collapses cannot be told: some prompt's pictures have nothing in common."
    begin = {"opposite": "It collapses", "yes": "No collapse", "equivalent": "No collapse"}
    levels = summarised(measured)
    counts = [_level(levels.sel(arm=arm), MEASURE) for arm in ("student", "base")]
    sentence = lost.sentence("the checkpoint", "the base", measure_label(MEASURE))
    return (
        f"{begin.get(lost.kind, 'Not decided')}: across seeds, its pictures count as "
        f"{counts[0]} different ones, the base's as {counts[1]}. {sentence}"
    )


def _nothing_to_do(lost: Difference | None) -> str:
    if lost is not None and lost.kind == "opposite":
        return (
            "No plan that was tried is shown to give diversity back: sample it as it is, train "
            "another student, or measure more prompts and seeds."
        )
    return (
        "Sample it as it is: no loss of diversity was found that a plan could undo, and none that "
        "was tried is shown to add any. More prompts and seeds tell smaller differences."
    )


def _gains(measured: xr.Dataset, arms: list[str]) -> dict[str, Difference]:
    """Every plan that can be compared over the checkpoint, by intervals that hold for all of them
    together.
    """
    arms = comparable(measured, arms, "student", MEASURE)
    if not arms:
        return {}
    values = np.stack([paired_values(measured, arm, "student", MEASURE) for arm in arms])
    margin = margin_for(measured, MEASURE)
    return dict(zip(arms, verdicts(values, margin, strata=strata_of(measured)), strict=True))


def _share(gain: Difference, lost: Difference | None) -> str:
    """What part of the loss comes back, where there is a loss to be a part of."""
    if lost is None or lost.kind != "opposite":
        return ""
    share = -float(gain.interval.estimate) / float(lost.interval.estimate)
    return f" That is {share:.0%} of what was lost."


def _fits(measured: xr.Dataset, plans: Mapping[str, Plan], arm: str) -> bool:
    judged = contrast(measured, arm, "student", "fidelity") if "fidelity" in measured else None
    faithful = judged is None or judged.kind != "opposite" or judged.within_margin
    affordable = plans[arm].evaluations <= CLOSE * plans["base_few"].evaluations
    return faithful and affordable


def _evidence(
    diversity: Mapping[str, xr.Dataset], commitment: Mapping[str, xr.Dataset]
) -> list[str]:
    """Where the seeds part, and how soon a run is decided."""
    lines = []
    for name, found in diversity.items():
        mean = found[f"{MEASURE}_mean"].sel(bound="estimate")
        first, last = float(mean[0]), float(mean[-1])
        at = float(commitment[name]["cosine_mean"].sel(bound="estimate")[0])
        sigma = float(np.median(commitment[name]["committed_sigma"]))
        lines.append(
            f"{_model(name).capitalize()}: x̂₀ of its first step counts as {first:.3g} different "
            f"pictures across seeds, its last as {last:.3g}. The first x̂₀ is at cosine "
            f"{format_number(at, decimals=2)} to the run's own last, and half of the runs are "
            f"within a tenth of it from σ = {format_number(sigma)} on."
        )
    return lines


def _cells(gains: xr.Dataset, levels: xr.Dataset) -> list[str]:
    lines = []
    for arm in gains["arm"].values:
        one = gains.sel(arm=arm)
        beside = [name for name in headlines(one.data_vars) if MEASURES[name].says != "diversity"]
        more = "".join(f"; {measure_label(name)} {_interval(one, name)}" for name in beside)
        rms = float(levels["rms"].sel(arm=arm, bound="estimate"))
        lines.append(
            f"{ARMS[str(arm)].capitalize()}: Vendi {_interval(one, MEASURE)} against the "
            f"checkpoint{more}; RMS of its latents {format_number(rms)}."
        )
    return lines


def _layers(similar: xr.Dataset | None) -> list[str]:
    if similar is None:
        return []
    same = [n for n in similar["layer_a"].values if n in similar["layer_b"].values and n != "x_t"]
    cells = xr.concat(
        [similar["similarity"].sel(layer_a=n, layer_b=n, drop=True) for n in same], "layer"
    )
    first, last = cells.isel(pair=0), cells.isel(pair=-1)
    if not np.isfinite(first).any():
        return ["Layers could not be compared: they do not tell the samples apart."]
    least = same[int(np.nanargmin(first.values))]
    sigmas = [float(similar["sigma_b"][i]) for i in (0, -1)]
    return [
        f"Layers of base and checkpoint are alike at {_two(first.mean())} (debiased CKA, mean "
        f"over {len(same)} points) at σ = {sigmas[0]:.3g} and at {_two(last.mean())} at "
        f"σ = {sigmas[1]:.3g}; least alike at the first is {least}, {_two(first.min())}."
    ]


def _two(value: Any) -> str:
    return format_number(float(value), decimals=2)


def _sliders(moved: list[dict[str, Any]]) -> list[str]:
    return [str(found["said"]) for found in moved]


def _fidelity(own: xr.Dataset, who: str) -> list[str]:
    return (
        [f"{who} draws what the prompt states at {_level(own, 'fidelity')}."]
        if "fidelity" in own
        else []
    )


def _level(found: xr.Dataset, name: str) -> str:
    return format_number(float(found[name].sel(bound="estimate")))


def _interval(found: xr.Dataset, name: str) -> str:
    return format_interval(found[name], signed=True)


def _model(name: str) -> str:
    return "checkpoint" if name == "student" else name
