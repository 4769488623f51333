"""How many prompts and seeds a study takes: a small pilot, then prompts × seeds, time and disk for
a wished effect.

The pilot measures a contrast on a few prompts and seeds. Its variances of prompts, of seeds and of
what is left say how the standard error falls with either, and so at which size an effect is told
from zero in four studies of five. A pilot knows its own variances roughly: beside what it
estimates stands what is enough if they are at the upper end of what it allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import chi2

from xhat.analysis.crossed import Components, components
from xhat.analysis.experiments.arm_table import contrast_sentence, margin_for
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.intervals import format_number
from xhat.analysis.measures.by_seed import values_of
from xhat.analysis.measures.registry import MEASURES, measure_label
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import Arm, measure_arms, paired_values, strata_of
from xhat.analysis.sampling.budget import duration, room_of
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import (
    MOST_PROMPTS,
    POWER,
    Size,
    detectable_effect,
    needed_size,
)
from xhat.hooks.points.table import bytes_text
from xhat.samplers.composite.pipeline import hybrid
from xhat.zoo.family.attributes import OPEN_PROMPTS

ARMS = {"base": "the base", "student": "the student", "hybrid": "the hybrid"}
CAUTION = 0.8
"""Share of pilots whose variances are below the cautious ones."""
SHARE_OF_BASE = 0.05
"""Effect that is planned for where the base has no lead over the student, as a share of the base's
value."""
USUAL = (Size(8, 24), Size(20, 24), Size(40, 32), Size(100, 48))
"""Sizes that are shown beside those that are needed."""


@dataclass(frozen=True, kw_only=True)
class PlanStudy(Setting):
    """What :func:`plan_study` is asked.

    Parameters
    ----------
    prompts, seeds
        Of the pilot: four and more of each, or its variances say nothing.
    more, less
        The contrast that the study is to decide: two of ``base``, ``student``, ``hybrid``.
    effect
        The difference that is to be told from zero (default: a quarter of the base's lead over the
        student, or a twentieth of the base's value where the pilot shows no such lead).
    measure
        What is compared, of :data:`~xhat.analysis.measures.registry.MEASURES`.
    """

    prompts: Sequence[str] = OPEN_PROMPTS[:8]
    seeds: Sequence[int] = range(8)
    more: str = "hybrid"
    less: str = "student"
    effect: float | None = None
    measure: str = "vendi_q2"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("prompts", self.prompts), ("seeds", self.seeds)):
            if len(values) < 4:
                raise ValueError(f"a pilot needs four {name} or more to plan from: {len(values)}")
        for arm in (self.more, self.less):
            if arm not in ARMS:
                raise ValueError(f"a contrast is of {', '.join(ARMS)}; got {arm!r}")
        if self.more == self.less:
            raise ValueError(f"a contrast is of two models, got {self.more!r} twice")
        if self.effect is not None and not self.effect > 0:
            raise ValueError(f"an effect to plan for is above zero, got {self.effect}")
        if self.measure not in MEASURES:
            raise ValueError(f"no measure is named {self.measure!r}: {', '.join(MEASURES)}")


def plan_study(config: PlanStudy, *, cache: Path | None = None) -> Result:
    """Run the pilot and plan the study.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data["plan"]`` (size): ``prompts``, ``seeds``; ``least_effect``, what is told from zero in
        four studies of five by the pilot's variances, and ``cautious_effect`` by variances as large
        as the pilot allows; ``pictures``, ``seconds`` and ``disk`` (bytes, of traces) of all
        models; ``why`` the size is there. Its attributes are the wished ``effect`` and its
        ``source``. ``data["measured"]``: the pilot.

    Raises
    ------
    ValueError
        For a measure that the space cannot tell, and a pilot of which no variance can be had.
    """
    pair = config.models()
    base, student = pair.base, pair.student
    pipes = {"base": base, "student": student, "hybrid": hybrid(base, student)}
    measured = measure_arms(
        {name: Arm(pipe) for name, pipe in pipes.items()},
        config.prompts,
        config.seeds,
        space=config.features(pair),
        cache=cache,
        batch_size=config.batch_size,
    )
    if config.measure not in measured:
        raise ValueError(
            f"{config.measure} cannot be measured in the space {config.space!r}: choose another"
        )
    effect, source = wished_effect(measured, config)
    cost = {
        "seconds": float(measured["seconds"].sum()),
        "disk": float(room_of(pipes, config.prompts[0], {})["disk"]),
    }
    plan = planned(pilot_of(measured, config), effect, cost)
    plan = plan.assign_attrs(effect=effect, source=source)
    return Result(
        "plan-study",
        {"plan": plan, "measured": measured},
        plan_table(plan, config),
        sentences(plan, measured, config),
        config.settings(),
    )


def wished_effect(measured: xr.Dataset, config: PlanStudy) -> tuple[float, str]:
    """The effect that is planned for, and where it is from."""
    if config.effect is not None:
        return config.effect, "as asked for"
    margin = margin_for(measured, config.measure)
    if margin is not None:
        return margin, "a quarter of the base's lead over the student in the pilot"
    level = abs(float(values_of(measured.sel(arm="base"), config.measure).mean()))
    if not np.isfinite(level) or level == 0:
        raise ValueError("the pilot shows nothing to plan for: say what effect is wished")
    return SHARE_OF_BASE * level, (
        f"{SHARE_OF_BASE:.0%} of the base's value, since no lead of the base is told from zero"
    )


def pilot_of(measured: xr.Dataset, config: PlanStudy) -> Components:
    """Variances of the contrast, of prompts, seeds and what is left, in the pilot."""
    difference = paired_values(measured, config.more, config.less, config.measure)
    if not np.isfinite(difference).all():
        raise ValueError("some prompt's pictures have nothing in common: give the pilot more seeds")
    pilot = components(difference, strata_of(measured))
    if pilot.error(1, 1) == 0:
        raise ValueError(
            f"{config.more} and {config.less} differ by the same in every prompt and seed of the "
            "pilot: nothing can be planned from it. Give more prompts and seeds"
        )
    return pilot


def planned(pilot: Components, effect: float, cost: Mapping[str, float]) -> xr.Dataset:
    """(size) what each size tells and takes, the smallest first.

    ``cost``: seconds and bytes of one picture of every model.
    """
    upper = cautious(pilot)
    why = dict.fromkeys(USUAL, "") | {Size(pilot.prompts, pilot.seeds): "the pilot's"}
    needed = {"to be safe": needed_size(upper, effect), "enough": needed_size(pilot, effect)}
    why |= {size: reason for reason, size in needed.items() if size is not None}
    sizes = sorted(why, key=lambda size: size.prompts * size.seeds)
    pictures = np.array([size.prompts * size.seeds for size in sizes])
    columns = {
        "why": [why[size] for size in sizes],
        "prompts": [size.prompts for size in sizes],
        "seeds": [size.seeds for size in sizes],
        "least_effect": [detectable_effect(pilot, size) for size in sizes],
        "cautious_effect": [detectable_effect(upper, size) for size in sizes],
        "pictures": pictures * len(ARMS),
    } | {name: pictures * each for name, each in cost.items()}
    return xr.Dataset({name: ("size", np.asarray(values)) for name, values in columns.items()})


def cautious(pilot: Components) -> Components:
    """The pilot's variances at the upper end of what it allows.

    Each mean square at ν·MS/χ²₀.₂(ν), with ν its degrees of freedom, less that of the rest: a
    variance of seeds that came out at zero in a small pilot is not planned with as zero.

    Examples
    --------
    >>> one = Components(*np.ones((3, 1)), prompts=8, seeds=8)
    >>> [round(float(x[0]), 2) for x in (cautious(one).prompt, cautious(one).rest)]
    [1.94, 1.21]
    """
    p, s, rest = pilot.prompts, pilot.seeds, pilot.rest
    prompt = np.maximum(_upper(s * pilot.prompt + rest, p - 1) - rest, 0) / s
    seed = np.maximum(_upper(p * pilot.seed + rest, s - 1) - rest, 0) / p
    return replace(pilot, prompt=prompt, seed=seed, rest=_upper(rest, (p - 1) * (s - 1)))


def _upper(mean_square: np.ndarray, freedom: int) -> np.ndarray:
    return mean_square * freedom / chi2.ppf(1 - CAUTION, freedom)


def plan_table(plan: xr.Dataset, config: PlanStudy) -> Table:
    """A row a size."""
    rows = [
        [
            _size(one),
            float(one["least_effect"]),
            float(one["cautious_effect"]),
            int(one["pictures"]),
            duration(float(one["seconds"])),
            bytes_text(int(one["disk"])),
            str(one["why"].values),
        ]
        for one in (plan.isel(size=i) for i in range(plan.sizes["size"]))
    ]
    columns: list[Column | str] = [
        "prompts × seeds",
        Column("least effect"),
        Column("to be safe"),
        "pictures",
        "time",
        "disk, at most",
        "",
    ]
    pilot = Size(len(config.prompts), len(config.seeds))
    label, power = measure_label(config.measure), f"{POWER:.0%} of studies"
    notes = (
        f"Least effect: {label}, {config.more} less {config.less}, that is told from zero in "
        f"{power}, from a pilot of {pilot}. To be safe: by variances larger than {CAUTION:.0%} of "
        f"such pilots would show. Pictures, time on this machine and disk are of {len(ARMS)} "
        "models; on disk are traces without activations.",
    )
    return Table(columns, rows, "What a study tells, and takes", notes)


def _size(one: xr.Dataset) -> str:
    return f"{int(one['prompts'])} × {int(one['seeds'])}"


def sentences(plan: xr.Dataset, measured: xr.Dataset, config: PlanStudy) -> tuple[str, str]:
    """What the wished effect takes, and what the pilot itself says of the contrast."""
    rows = {str(w): plan.isel(size=i) for i, w in enumerate(plan["why"].values)}
    begin = f"To tell an effect of {format_number(plan.attrs['effect'])} ({plan.attrs['source']})"
    if "to be safe" not in rows:
        takes = f"{begin} for sure, more than {MOST_PROMPTS} prompts are needed"
        if "enough" in rows:
            takes += f"; by the pilot's own variances {_size(rows['enough'])} (prompts × seeds)"
    else:
        one, safe = rows.get("enough", rows["to be safe"]), rows["to be safe"]
        takes = (
            f"{begin}: {_size(one)} (prompts × seeds), about {duration(float(one['seconds']))} on "
            f"this machine and at most {bytes_text(int(one['disk']))} of traces; to be safe "
            f"{_size(safe)}, about {duration(float(safe['seconds']))}"
        )
    pilot = contrast_sentence(measured, config.more, config.less, config.measure, ARMS)
    return f"{takes}.", f"The pilot itself: {pilot}"
