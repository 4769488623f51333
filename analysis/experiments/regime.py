"""Where a student commits, and when the first step decides: one student on grids of several sizes.

A student samples on four timesteps. The noise level at which its first x̂₀ is handed to its second
step says how much of that x̂₀ is still to be seen there. The same weights are run on grids whose
hand-overs lie where SDXL's four timesteps lie in latents of several sizes
(:func:`~xhat.analysis.measures.handover_snr.matched_timesteps`), and at each it is asked

- how much of the student's diversity is left when only x_T varies, and when only the noise drawn
  after the first step does;
- what the student loses against its base, and what the base's first step gives back.

The published students' hand-overs, seen at the size of these latents, are arithmetic and stand
beside: they are predictions that anyone with the weights can test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.crossed import UndefinedRatio, crossed_mean, crossed_ratio
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.by_seed import vendi_q2_by_seed
from xhat.analysis.measures.diversity import similarities
from xhat.analysis.measures.handover_snr import (
    PUBLISHED_GRIDS,
    SDXL_TIMESTEPS,
    matched_timesteps,
    scaled_linear_log_snr,
)
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import kinds_of
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.analysis.sampling.noise_sources import SOURCES, sample_noise_sources
from xhat.analysis.stats import Interval
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import margin_of, verdict
from xhat.hooks.describe import checksum, describe
from xhat.probes.features import FeatureSpace
from xhat.samplers.composite.pipeline import hybrid
from xhat.zoo.family.attributes import OPEN_PROMPTS


@dataclass(frozen=True, kw_only=True)
class Regime(Setting):
    """What :func:`measure_regime` is asked.

    Parameters
    ----------
    sides
        Sides of the latents whose hand-over is matched: the student is run on the timesteps that
        show in its own latents what SDXL's grid shows in latents of these sides.
    """

    prompts: Sequence[str] = OPEN_PROMPTS[:12]
    seeds: Sequence[int] = range(16)
    sides: Sequence[int] = (8, 16, 32, 64, 96)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sides", tuple(int(side) for side in self.sides))
        if len(self.sides) < 2 or min(self.sides) < 1:
            raise ValueError(
                f"sides are two or more sizes of latents, 1 or above, got {self.sides}"
            )


def measure_regime(config: Regime, *, cache: Path | None = None) -> Result:
    """The dose–response of commitment over the log-SNR at the hand-over.

    Returns
    -------
    Result
        ``data["regime"]``: by ``grid`` and ``bound``, ``left_x_T`` and ``left_later`` (share of
        Vendi q = 2 above 1 that is left when one source varies alone), ``lost`` (student less
        base), ``given_back`` (hybrid less student); ``timesteps`` and ``handover`` (matched
        log-SNR) of each grid; ``published`` students with their hand-overs.
    """
    pair = config.models()
    side = pair.base.unet.config.sample_size
    grids = [_grid(s, side) for s in config.sides]
    space = config.features(pair)
    base, hybrids = _with_the_base(pair, grids, config, space, cache)
    strata = kinds_of(config.prompts)
    columns: dict[str, list[Interval]] = {
        n: [] for n in ("left_x_T", "left_later", "lost", "given_back")
    }
    verdicts = []
    for grid, mixed in zip(grids, hybrids, strict=True):
        alone = _alone(pair.student, grid, config, space, cache)
        student = alone["both"]
        for source in SOURCES[1:]:
            columns[f"left_{source}"].append(_share(student - 1, alone[source] - 1, strata))
        columns["lost"].append(crossed_mean(student - base, strata=strata))
        columns["given_back"].append(crossed_mean(mixed - student, strata=strata))
        margin = margin_of(base - student, strata=strata)
        both = (student - base, mixed - student)
        lost, back = (verdict(x, margin, strata=strata) for x in both)
        verdicts.append((lost, back))
    data = _dataset(columns, grids, side, config, space.name)
    return Result(
        "regime",
        {"regime": data},
        _table(data),
        _sentences(data, verdicts),
        config.settings(),
    )


def _grid(side: int, reference_side: int) -> tuple[int, ...]:
    """SDXL's timesteps as latents of ``side`` show them, on the schedule of smaller ones."""
    grid = matched_timesteps(SDXL_TIMESTEPS, side, reference_side)
    if len(set(grid)) < len(grid):
        raise ValueError(
            f"side {side} of sides: seen in latents of side {reference_side} its timesteps are "
            f"{grid}, two of which are one. Give larger sides"
        )
    return grid


def _with_the_base(
    pair: Any,
    grids: Sequence[tuple[int, ...]],
    config: Regime,
    space: FeatureSpace,
    cache: Path | None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Vendi by (prompt, seed) of the base, and of the default hybrid on each grid."""
    arms = {"base": Arm(pair.base)} | {
        f"hybrid {grid[1]}": Arm(hybrid(pair.base, pair.student, student_timesteps=grid))
        for grid in grids
    }
    samples = sample_arms(
        arms, config.prompts, config.seeds, cache=cache, batch_size=config.batch_size
    )
    values = [_vendi(found["final"].values, space) for found in samples.values()]
    return values[0], values[1:]


def _alone(
    student: Any,
    grid: tuple[int, ...],
    config: Regime,
    space: FeatureSpace,
    cache: Path | None,
) -> dict[str, np.ndarray]:
    """Vendi by (prompt, seed) of the student with both sources of noise, and with each alone."""
    call = {"timesteps": list(grid), "num_inference_steps": len(grid)}
    size = config.batch_size
    key = {
        "model": checksum(describe(student)),
        "prompts": config.prompts,
        "seeds": config.seeds,
        "grid": grid,
    }
    finals = Cache(cache).get(
        "sources",
        key,
        lambda: sample_noise_sources(
            student, config.prompts, config.seeds, call=call, batch_size=size
        ),
    )["final"]
    return {source: _vendi(finals.sel(source=source).values, space) for source in SOURCES}


def _vendi(finals: np.ndarray, space: FeatureSpace) -> np.ndarray:
    """Values by (prompt, seed) of Vendi q = 2 of final latents (prompt, seed, …)."""
    return np.stack([vendi_q2_by_seed(similarities(space.features(x))) for x in finals])


def _share(whole: np.ndarray, part: np.ndarray, strata: Sequence[str] | None) -> Interval:
    """Of the effective number of pictures beyond one; without a number where that is not told."""
    try:
        return crossed_ratio(whole, part, strata=strata)
    except UndefinedRatio:
        missing = np.array(np.nan)
        return Interval(missing, missing, missing, crossed_mean(whole, strata=strata).attrs)


def _dataset(
    columns: Mapping[str, Sequence[Interval]],
    grids: Sequence[tuple[int, ...]],
    side: int,
    config: Regime,
    space: str,
) -> xr.Dataset:
    arrays = {
        name: xr.concat([i.array() for i in intervals], "grid", combine_attrs="override")
        for name, intervals in columns.items()
    }
    handover = [float(scaled_linear_log_snr(grid[1])) for grid in grids]
    data = xr.Dataset(arrays).assign_coords(
        side=("grid", list(config.sides)),
        handover=("grid", handover),
        timesteps=("grid", ["/".join(map(str, grid)) for grid in grids]),
        published=[grid.name for grid in PUBLISHED_GRIDS],
        published_handover=("published", [grid.handover(side) for grid in PUBLISHED_GRIDS]),
        published_source=("published", [grid.source for grid in PUBLISHED_GRIDS]),
    )
    return data.assign_attrs(
        latent_side=side, prompts=len(config.prompts), seeds=len(config.seeds), space=space
    )


def _table(data: xr.Dataset) -> Table:
    columns: list[Column | str] = [
        "timesteps",
        Column("log-SNR at hand-over", decimals=1),
        "left: x_T alone",
        "left: later noise alone",
        Column("student − base", signed=True),
        Column("hybrid − student", signed=True),
    ]
    rows = [
        [str(at["timesteps"].values), float(at["handover"])]
        + [at[name] for name in ("left_x_T", "left_later", "lost", "given_back")]
        for at in (data.isel(grid=i) for i in range(data.sizes["grid"]))
    ]
    size = f"{data.attrs['prompts']} prompts × {data.attrs['seeds']} seeds"
    notes = (
        f"Vendi q = 2 without the bias of few seeds, {size}, 95 % for new prompts and seeds. Left: "
        "share of Vendi − 1 when one source of noise varies alone. The hybrid is the default one.",
    )
    return Table(columns, rows, caption="One student on grids of several hand-overs", notes=notes)


def _sentences(data: xr.Dataset, verdicts: Sequence[tuple[Any, Any]]) -> list[str]:
    """The two ends of the dose–response, then what it predicts."""
    lines = []
    levels = data["handover"].values
    for i in (int(levels.argmax()), int(levels.argmin())):
        at, (lost, back) = data.isel(grid=i), verdicts[i]
        level = at["handover"].item()
        grid = f"On {at['timesteps'].item()} (log-SNR {level:+.1f} at the hand-over)"
        lines.append(f"{grid}: {lost.sentence('the student', 'the base', 'Vendi (q = 2)')}")
        lines.append(f"{grid}: {back.sentence('the hybrid', 'the student', 'Vendi (q = 2)')}")
    crossing = crossing_of(data)
    if crossing is None:
        return [*lines, "At no hand-over that was tried do x_T and later noise weigh alike."]
    sides = [f"{n} {v:+.1f}" for n, v in _published(data, crossing)]
    lines.append(
        "By straight lines between the grids' estimates, x_T and the later noise weigh alike at a "
        f"log-SNR of {crossing:+.1f} at the hand-over. Above it, and so predicted to commit at "
        "their first step if they do as this student, are at their own size of latents: "
        f"{', '.join(sides) or 'none of the published students listed'}."
    )
    return lines


def _published(data: xr.Dataset, crossing: float) -> list[tuple[str, float]]:
    pairs = zip(data["published"].values, data["published_handover"].values, strict=True)
    return [(str(name), float(value)) for name, value in pairs if value > crossing]


def crossing_of(data: xr.Dataset) -> float | None:
    """log-SNR at the hand-over where x_T alone and later noise alone leave the same share.

    By straight lines between the grids; None where the curves do not cross.
    """
    data = data.sortby("handover")
    estimate = {"bound": "estimate"}
    gap = (data["left_x_T"].sel(estimate) - data["left_later"].sel(estimate)).values
    x = data["handover"].values
    for i in range(len(x) - 1):
        if gap[i] < 0 <= gap[i + 1]:
            return float(x[i] - gap[i] * (x[i + 1] - x[i]) / (gap[i + 1] - gap[i]))
    return None
