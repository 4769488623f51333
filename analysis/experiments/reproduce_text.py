"""What was measured beside what the paper prints, and how the two differ in protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.paper import CITATION
from xhat.analysis.experiments.paper import TABLES as PUBLISHED
from xhat.analysis.measures.by_seed import values_of
from xhat.analysis.measures.registry import MEASURES, headlines
from xhat.analysis.sampling.arms import summarised
from xhat.analysis.stats import jackknife
from xhat.analysis.table import Column, Table
from xhat.zoo.suites import PAPER

STUDENTS = {
    "sdxl/dmd2": "DMD2",
    "sdxl/lcm": "LCM",
    "sdxl/turbo": "Turbo",
    "sdxl/lightning": "Lightning",
}
"""Pair → the column of the paper's Table 1."""
BACKBONES = {"pixart/delta": "PixArt-α → PixArt-δ", "sd21/turbo": "SD 2.1 → SD-Turbo"}
"""Pair → the row of Table D.1."""
WORDS = {
    "base": "base",
    "student": "student",
    "hybrid": "hybrid, base's step without guidance",
    "hybrid_guided": "hybrid, base's step at guidance 7",
    "later": "only later steps replaced",
    "skip": "first step skipped",
}
MEASURE = "mean_pairwise_distance"
Row = tuple[str, str, str, Any, Any]


def reproduced_table(data: Mapping[str, xr.Dataset], pair: str, tables: Sequence[str]) -> Table:
    """A line a number: table, row, sampler, what was measured here, what the paper prints."""
    rows: list[Row] = []
    if "measured" in data:
        measured = data["measured"]
        makers = {"diversity": diversity_rows, "swap": swap_rows, "cost": cost_rows}
        rows += [row for name in tables if name in makers for row in makers[name](measured, pair)]
    if "transfer" in data:
        rows += transfer_rows(data["transfer"], pair)
    columns: list[Column | str] = [
        "table",
        "row",
        "sampler",
        Column("measured here"),
        Column("published"),
    ]
    return Table(columns, rows, f"{pair}, beside {CITATION}")


def diversity_rows(measured: xr.Dataset, pair: str) -> list[Row]:
    """Table 2: mean pairwise distance within each prompt, and its mean over prompts."""
    arms = _arms(measured, ("base", "student", "hybrid", "hybrid_guided"))
    levels = summarised(measured)[MEASURE]
    rows: list[Row] = []
    for prompt in [str(p) for p in measured["prompt"].values]:
        for arm in arms:
            here = _of_prompt(measured, arm, prompt)
            rows.append(("2 diversity", prompt, WORDS[arm], here, _table2(pair, prompt, arm)))
    for arm in arms:
        mean = levels.sel(arm=arm)
        printed = _table2(pair, "mean", arm)
        if printed is None and pair in BACKBONES and not arm.endswith("guided"):
            printed = _published("D.1", BACKBONES[pair], arm)
        rows.append(("2 diversity", "mean over prompts", WORDS[arm], mean, printed))
    return rows


def swap_rows(measured: xr.Dataset, pair: str) -> list[Row]:
    """Table E.1: which steps the base replaces."""
    levels = summarised(measured)[MEASURE]
    printed = {
        "base": "base",
        "student": "student",
        "hybrid": "only the first step replaced",
        "hybrid_guided": "only the first step replaced",
        "later": "only later steps replaced",
    }
    return [
        (
            "E.1 swap",
            printed[arm],
            WORDS[arm],
            levels.sel(arm=arm),
            _published("E.1", printed[arm], "diversity") if pair == "sdxl/dmd2" else None,
        )
        for arm in _arms(measured, printed)
    ]


def cost_rows(measured: xr.Dataset, pair: str) -> list[Row]:
    """Table 3 without FID and IS, which need COCO-30k: seconds an image, evaluations and scores."""
    printed = {
        "base": "base (50 steps)",
        "student": "student (4 steps)",
        "hybrid": "hybrid (4 steps)",
        "hybrid_guided": "hybrid (4 steps)",
        "skip": "first step skipped (3 steps)",
    }
    levels = summarised(measured)
    scores = [n for n in headlines(measured.data_vars) if MEASURES[n].needs == "scores"]
    rows: list[Row] = []
    for arm in _arms(measured, printed):
        known = pair == "sdxl/dmd2"
        seconds = _published("3", printed[arm], "seconds") if known else None
        rows.append(
            ("3 cost", "seconds an image", WORDS[arm], measured["seconds"].sel(arm=arm), seconds)
        )
        evaluations = measured["evaluations"].sel(arm=arm)
        rows.append(("3 cost", "evaluations", WORDS[arm], evaluations, None))
        for name in scores:
            clip = name == "clip_score" and known
            value = _published("3", printed[arm], "CLIP") if clip else None
            here = levels[name].sel(arm=arm)
            rows.append(("3 cost", MEASURES[name].label, WORDS[arm], here, value))
    return rows


def transfer_rows(transfer: xr.Dataset, pair: str) -> list[Row]:
    """Table 1: change of the CLIP score, in percent."""
    rows: list[Row] = []
    for control in [str(c) for c in transfer["control"].values]:
        for model in ("base", "student"):
            column = "base" if model == "base" else STUDENTS.get(pair)
            printed = None
            if pair in STUDENTS and control in PUBLISHED["1"].rows and column:
                printed = _published("1", control, column)
            here = transfer["change"].sel(control=control, model=model)
            rows.append(("1 transfer, %", control, model, here, printed))
    return rows


def protocol(settings: Mapping[str, Any], data: Mapping[str, xr.Dataset]) -> list[str]:
    """What differs from the paper's protocol, a sentence each."""
    lines = [
        "Seeds are paired across samplers here and give every one the same x_T; the authors' code "
        "passes no generator.",
        "Steps are aligned by noise level here. The base's step of the hybrid is tried without "
        "guidance, as in the authors' notebooks, and at 7, the default of their script.",
        "Intervals are this project's; the paper prints none.",
    ]
    if settings["pair"] not in STUDENTS and settings["pair"] not in BACKBONES:
        lines.append(f"The paper has no numbers of {settings['pair']}.")
    if list(settings["prompts"]) != list(PAPER):
        lines.append("The prompts are not the paper's five subjects.")
    if len(settings["seeds"]) != 100:
        lines.append(f"{len(settings['seeds'])} seeds a prompt; the paper has 100.")
    if "measured" in data and settings["space"] != "dreamsim":
        lines.append(
            f"Distances are in the space {settings['space']}; the paper's are DreamSim: the two "
            "cannot be compared in size."
        )
    if settings["base"]["num_inference_steps"] != 50:
        lines.append(f"The base makes {settings['base']['num_inference_steps']} steps; there, 50.")
    if "cost" in settings["tables"]:
        lines.append(
            "Seconds are of a whole call on this machine, decoding included; the authors' timer "
            "starts after the base's step. FID and Inception score are not measured: they need "
            "COCO-30k."
        )
    return lines


def _of_prompt(measured: xr.Dataset, arm: str, prompt: str) -> Any:
    """Mean pairwise distance within one prompt, with the jackknife's interval over its seeds."""
    values = values_of(measured.sel(arm=arm, prompt=[prompt]), MEASURE)[0]
    if len(values) < 2:
        return float(values.mean())
    left_out = (values.sum() - values) / (len(values) - 1)
    return jackknife(values.mean(), left_out, unit="seed").array()


def _table2(pair: str, prompt: str, arm: str) -> float | None:
    if pair != "sdxl/dmd2":
        return None
    row = next((r for r in PUBLISHED["2"].rows if r == prompt or prompt.endswith(r)), None)
    column = {"base": "base", "student": "DMD2"}.get(arm, "hybrid")
    return None if row is None else _published("2", row, column)


def _published(table: str, row: str, column: str) -> float | None:
    printed = PUBLISHED[table]
    value = printed.rows[row][printed.columns.index(column)]
    return None if np.isnan(value) else value


def _arms(measured: xr.Dataset, names: Sequence[str] | Mapping[str, str]) -> list[str]:
    there = set(measured["arm"].values.tolist())
    return [name for name in names if name in there]
