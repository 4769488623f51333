"""Which step decides: every step of a student's schedule made by its base, and the controls that
tell causes apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from xhat.analysis.experiments.arm_table import arm_table, few_step_base
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.experiments.swaps_text import contrasts, sentences
from xhat.analysis.intervals import BOUND, bounded_names
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import against, measure_arms, summarised
from xhat.analysis.sampling.sensitivity import measure_sensitivity
from xhat.analysis.sampling.swap_arms import SwapArms, control_lines, kind_of_pattern, swap_arms
from xhat.analysis.table import Table
from xhat.analysis.traces.curves import join_curves

FEW = "base_few"
TRACED = ("base", FEW, "student", "hybrid")
"""Arms of which x̂₀ is kept at every step, for :mod:`xhat.analysis.sampling.sensitivity`."""
PAIRED = (*TRACED, "skip", "fresh", "student_own", "hybrid_own")
"""Arms whose pictures are compared, seed by seed, with the base's of the same noise."""
REFERENCES = ("student", FEW)


@dataclass(frozen=True, kw_only=True)
class Swaps(Setting):
    """What :func:`measure_swaps` is asked.

    Parameters
    ----------
    guided_scale
        The base's guidance where its steps are guided (default: its own).
    """

    seeds: Sequence[int] = range(12)
    guided_scale: float | None = None


def measure_swaps(config: Swaps, *, cache: Path | None = None) -> Result:
    """The swap matrix and the controls, on the same prompts, seeds and noise.

    A batch holds all seeds of a prompt at least, so that a mean over seeds is that over all.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data``: ``swap_matrix`` and ``controls`` (:func:`swap_matrix`, :func:`control_table`),
        ``sensitivity`` (:mod:`~xhat.analysis.sampling.sensitivity`), ``contrasts``, and
        ``measured``, every arm with its ledger of noise
        (:func:`~xhat.analysis.sampling.arms.measure_arms`).
    """
    pair, space = config.models(), config.features(config.models())
    arms = swap_arms(pair.base, pair.student, guided_scale=config.guided_scale)
    batch_size = max(config.batch_size, len(config.seeds))
    measured = measure_arms(
        arms.arms,
        config.prompts,
        config.seeds,
        space=space,
        cache=cache,
        batch_size=batch_size,
        keep_x0=TRACED,
    )
    curves, pairing = measure_sensitivity(
        {name: arms.arms[name] for name in PAIRED},
        config.prompts,
        list(config.seeds),
        curves=TRACED,
        reference="base",
        features=space.features,
        cache=cache,
        batch_size=batch_size,
    )
    data = {
        "swap_matrix": swap_matrix(measured, arms.of_pattern),
        "controls": control_table(measured, arms.of_control),
        "sensitivity": sensitivity_data(curves, pairing, pair.chosen),
        "contrasts": contrasts(measured),
        "measured": measured,
    }
    return Result(
        "swaps",
        {name: array.assign_attrs(student=pair.chosen) for name, array in data.items()},
        swap_table(measured, arms),
        sentences(measured),
        config.settings() | {"guided_scale": arms.guided_scale},
    )


def swap_matrix(measured: xr.Dataset, of_pattern: Mapping[str, str]) -> xr.Dataset:
    """One line a pattern. Variables (arm): ``kind`` (:func:`~.swap_arms.swap_sets`), ``label``,
    ``evaluations``, ``seconds``; (arm, bound): each measure, and the same ``_less_student`` and
    ``_less_base_few``, paired over prompts."""
    kinds = {pattern: kind_of_pattern(pattern) for pattern in of_pattern}
    labels = [f"{pattern}  {kind}" for pattern, kind in kinds.items()]
    return _levels_and_gains(measured, of_pattern).assign(
        kind=("arm", np.array(list(kinds.values()))), label=("arm", np.array(labels))
    )


def control_table(measured: xr.Dataset, of_control: Mapping[str, str]) -> xr.Dataset:
    """One line a control, as :func:`swap_matrix`; ``varies`` (arm): what it varies, ``label``: what
    it is.
    """
    lines = control_lines(of_control)
    names, varies, labels = zip(*lines, strict=True)
    table = _levels_and_gains(measured, {name: of_control[name] for name in names})
    return table.assign(varies=("arm", np.array(varies)), label=("arm", np.array(labels)))


def _levels_and_gains(measured: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    """Means and differences, with intervals, of the named arms, under their names."""
    levels = summarised(measured)
    levels = levels[[n for n, v in levels.data_vars.items() if set(v.dims) - {BOUND} == {"arm"}]]
    for reference in REFERENCES:
        gains = against(measured, reference)
        gains = gains.reindex(arm=measured["arm"], fill_value=0.0)  # of an arm with itself
        levels = levels.assign(
            {f"{name}_less_{reference}": gains[name] for name in bounded_names(gains)}
        )
    return levels.sel(arm=list(names.values())).assign_coords(arm=list(names))


def swap_table(measured: xr.Dataset, arms: SwapArms) -> Table:
    """A row a pattern, then a row a control that no pattern is."""
    labels = {arm: f"{p}  {kind_of_pattern(p)}" for p, arm in arms.of_pattern.items()}
    if few := next((p for p, arm in arms.of_pattern.items() if arm == FEW), ""):
        evaluations = float(measured["evaluations"].sel(arm=FEW))
        labels[FEW] = f"{few}  all: {few_step_base(len(few), evaluations)}"
    controls = {
        arms.of_control[name]: f"{varies}: {label}"
        for name, varies, label in control_lines(arms.of_control)
        if arms.of_control[name] not in labels
    }
    letters = (
        "s: the student's step, b: the base's, f: the base's followed by fresh noise, "
        f"B: the base's at guidance {arms.guided_scale:g}."
    )
    return arm_table(measured, labels | controls, caption="Which step decides", notes=[letters])


def sensitivity_data(
    curves: Mapping[str, xr.Dataset], pairing: xr.Dataset, student: str
) -> xr.Dataset:
    """Curves of the traced arms and the pairing of all, the student under its own name."""
    together = join_curves({arm.replace("student", student): c for arm, c in curves.items()})
    names = [arm.replace("student", student) for arm in pairing["arm"].values.tolist()]
    return together.merge(pairing.assign_coords(arm=names), combine_attrs="override")
