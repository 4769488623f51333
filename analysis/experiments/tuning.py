"""Settings for every method, picked alike: from as many each, on the same prompts and seeds, by the
same rule.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.policy import FIT_PROMPTS
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.registry import measure_label
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import Arm, measure_arms, summarised
from xhat.analysis.table import Column, Table
from xhat.samplers.rivals.grids import GRIDS
from xhat.samplers.rivals.registry import InapplicableRival, rival
from xhat.zoo.pairs import Pair

LOSS = 0.05  # fidelity that a setting may lose to the student


@dataclass(frozen=True, kw_only=True)
class Tuning(Setting):
    """What :func:`measure_tuning` is asked.

    Parameters
    ----------
    prompts, seeds
        Others than those on which the methods are then measured.
    methods
        Names of :data:`~xhat.samplers.rivals.grids.GRIDS`.
    budget
        What a picture may cost: network evaluations, as a multiple of the student's own.
    measure
        What is meant by diversity.
    """

    prompts: Sequence[str] = FIT_PROMPTS
    seeds: Sequence[int] = range(1000, 1016)
    methods: Sequence[str] = tuple(GRIDS)
    budget: float = 2.0
    measure: str = "vendi_q2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.methods if name not in GRIDS]:
            raise ValueError(
                f"no settings are declared for {unknown[0]!r}; there are {', '.join(GRIDS)}"
            )


def measure_tuning(config: Tuning, *, cache: Path | None = None) -> Result:
    """Every setting of every method, and which is picked.

    The rule: of the settings within the budget whose mean fidelity is at most 0.05 below the
    student's, the most diverse; where there is none, the one that breaks the rule least: the most
    faithful of those within the budget, else the cheapest.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data``: ``tuning`` (arm), each with ``method``, ``options`` (JSON), whether it ``keeps``
        the rule and was ``picked``, measures and costs; ``measured``. :func:`options_of` reads the
        picked options.
    """
    pair = config.models()
    methods, arms = setting_arms(pair, config.methods)
    measured = measure_arms(
        arms,
        config.prompts,
        config.seeds,
        space=config.features(pair),
        cache=cache,
        batch_size=config.set_batch,
    )
    tuning = picked(measured, methods, config.budget, config.measure)
    return Result(
        "tuning",
        {"tuning": tuning.assign_attrs(student=pair.chosen), "measured": measured},
        tuning_table(tuning),
        (sentence(tuning),),
        config.settings(),
    )


def setting_arms(
    pair: Pair, methods: Sequence[str]
) -> tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, Arm]]:
    """Arm → (method, options), and arm → pipeline, of every setting that applies to the pair, and
    of the student.
    """
    of_arm: dict[str, tuple[str, dict[str, Any]]] = {}
    arms = {"student": Arm(rival("student", pair))}
    for method in methods:
        for number, options in enumerate(GRIDS[method], 1):
            try:
                arms[f"{method} {number}"] = Arm(rival(method, pair, **options))
            except InapplicableRival as error:
                warnings.warn(f"{method} with {options} is left out: {error}", stacklevel=3)
                continue
            of_arm[f"{method} {number}"] = method, dict(options)
    return of_arm, arms


def picked(
    measured: xr.Dataset,
    methods: Mapping[str, tuple[str, dict[str, Any]]],
    budget: float,
    measure: str,
) -> xr.Dataset:
    """``tuning`` of :func:`measure_tuning`, from every setting's measures."""
    student = measured.sel(arm="student")
    limit = budget * float(student["evaluations"])
    table = summarised(measured).sel(arm=list(methods))
    diversity = measured[measure].mean("prompt").sel(arm=list(methods)).values
    within = table["evaluations"].values <= limit + 1e-9
    loss = np.zeros(len(methods))
    if "fidelity" in measured:
        fidelity = measured["fidelity"].mean("prompt")
        loss = float(fidelity.sel(arm="student")) - fidelity.sel(arm=list(methods)).values
    keeps = within & (loss <= LOSS)
    names = np.array([name for name, _ in methods.values()])
    chosen = np.zeros(len(names), dtype="int8")
    for name in dict.fromkeys(names.tolist()):
        members = np.flatnonzero(names == name)
        cost = np.where(within[members], 0.0, table["evaluations"].values[members])
        order = np.lexsort((-diversity[members], loss[members] * ~keeps[members], cost))
        good = members[keeps[members]]
        best = good[diversity[good].argmax()] if len(good) else members[order[0]]
        chosen[best] = 1
    return table.assign(
        method=("arm", names),
        options=("arm", [json.dumps(options) for _, options in methods.values()]),
        keeps=("arm", keeps.astype("int8")),
        picked=("arm", chosen),
    ).assign_attrs(measure=measure, budget=budget)


def options_of(tuning: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Method → its picked options."""
    best = tuning.isel(arm=tuning["picked"].values.astype(bool))
    pairs = zip(best["method"].values.tolist(), best["options"].values.tolist(), strict=True)
    return {method: json.loads(options) for method, options in pairs}


def tuning_table(tuning: xr.Dataset) -> Table:
    """A row a method: the setting that was picked, and what it gave on the tuning prompts."""
    measure, names = tuning.attrs["measure"], [tuning.attrs["measure"]]
    names += ["fidelity"] if "fidelity" in tuning else []
    rows = []
    for arm in tuning["arm"].values[tuning["picked"].values.astype(bool)]:
        one = tuning.sel(arm=arm)
        options = json.loads(str(one["options"].values))
        rows.append(
            [
                str(one["method"].values),
                ", ".join(f"{name} {value}" for name, value in options.items()),
                *(one[name] for name in names),
                one["evaluations"],
                "" if int(one["keeps"]) else "none keeps the rule",
            ]
        )
    columns = [
        Column("method"),
        Column("setting"),
        *(Column(measure_label(name)) for name in names),
        Column("evaluations"),
        Column("note"),
    ]
    note = (
        f"Of each method's settings the most diverse ({measure_label(measure)}) within "
        f"{tuning.attrs['budget']:g} × the student's evaluations that loses at most {LOSS:g} of "
        "its fidelity. What was picked is too high on the prompts on which it was picked."
    )
    return Table(columns, rows, "Settings, picked alike", (note,))


def sentence(tuning: xr.Dataset) -> str:
    """How many settings were tried, and which methods have none that keeps the rule."""
    methods = list(dict.fromkeys(tuning["method"].values.tolist()))
    poor = [
        name
        for name in methods
        if not tuning["keeps"].values[tuning["method"].values == name].any()
    ]
    tried = f"{tuning.sizes['arm']} settings of {len(methods)} methods were tried on the same"
    text = f"{tried} prompts and seeds, by one rule."
    return f"{text} No setting keeps the rule: {', '.join(poor)}." if poor else text
