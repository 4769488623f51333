"""What a difference says, in one of four words, and how many prompts and seeds would say more.

``yes``         the interval of the difference lies above zero
``opposite``    it lies below zero
``equivalent``  the difference is shown to be smaller than a stated margin (two one-sided tests)
``undecided``   none of these: the least effect that would have been seen, and what would decide

Every sentence of every experiment is made here. "Not told from zero" is not "equal", no verdict
hides an opposite one, and fewer than five prompts decide nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import t

from xhat.analysis.crossed import (
    Components,
    UndefinedRatio,
    check_told,
    components,
    crossed_mean,
    simultaneous,
    standard_error,
)
from xhat.analysis.intervals import format_interval, format_number
from xhat.analysis.stats import LEVEL, Interval

Kind = Literal["yes", "opposite", "equivalent", "undecided"]
POWER, SHARE = 0.8, 0.25
SEEDS = (8, 12, 16, 24, 32, 48, 64, 96, 192, 384)
MOST_PROMPTS = 2000
ROUNDING, ROUNDED = 1e-6, "no difference but rounding"
FEWEST_PROMPTS = 5
"""Below this nothing is found: an interval of Student's t from two to four prompts leans on their
being normal, which so few cannot show."""


@dataclass(frozen=True)
class Size:
    """A number of prompts and of seeds under each; one seed where seeds are not told apart.

    ``unit``: what is counted where it is not prompts, for instance ``"control"``."""

    prompts: int
    seeds: int
    unit: str = "prompt"

    def __str__(self) -> str:
        prompts = f"{self.prompts} {self.unit}{'s' * (self.prompts != 1)}"
        return prompts if self.seeds == 1 else f"{prompts} × {self.seeds} seeds"


@dataclass(frozen=True)
class Verdict:
    """What a difference says.

    Parameters
    ----------
    kind
        ``yes``, ``opposite``, ``equivalent`` or ``undecided``.
    interval
        Of the difference.
    margin
        What counts as no difference worth having; None where none can be named.
    detectable
        Effect that would be told from zero with a power of 80 % at this size; NaN under
        :data:`FEWEST_PROMPTS` prompts, which decide nothing.
    size
        Prompts and seeds that were measured.
    needed
        Of an undecided one: the cheapest size that tells an effect as large as the margin, or
        without a margin as large as the estimate, from zero with a power of 80 %; None where
        there is no such size up to 2000 prompts.
    """

    kind: Kind
    interval: Interval
    margin: float | None
    detectable: float
    size: Size
    needed: Size | None = None

    @property
    def within_margin(self) -> bool:
        """Whether a significant difference is all the same shown to be smaller than the margin."""
        if self.margin is None:
            return False
        return bool(max(abs(self.interval.low), abs(self.interval.high)) < self.margin)

    @property
    def no_loss(self) -> bool:
        """Whether a loss as large as the margin is excluded (a test of non-inferiority)."""
        if self.margin is None or np.isnan(self.detectable):
            return False
        return bool(self.interval.low > -self.margin)

    def sentence(self, more: str, less: str, measure: str, unit: str = "") -> str:
        """The verdict in a sentence with its numbers.

        >>> values = np.array([[1.0, 1.2, 0.9], [1.1, 1.4, 1.0], [0.8, 1.1, 0.9]])
        >>> more = verdict(np.concatenate([values, values + 0.1]))
        >>> more.sentence("the hybrid", "the student", "Vendi").split(" (")[0]
        'Vendi: the hybrid has more than the student'
        """
        numbers = self._numbers(unit)
        head = f"{measure}: {more}"
        if numbers == ROUNDED and self.kind == "undecided":
            return f"{head} and {less} are the same, but for rounding."
        if self.kind in ("yes", "opposite"):
            how = "more" if self.kind == "yes" else "less"
            small = f", though by less than the margin of {self._margin()}"
            return f"{head} has {how} than {less} ({numbers}{small if self.within_margin else ''})."
        if self.kind == "equivalent":
            return (
                f"{head} and {less} are equivalent within a margin of {self._margin()} ({numbers})."
            )
        return f"{head} and {less} are not told apart ({numbers}). {self._undecided()}"

    def beside(self, other: Verdict, who: str) -> str:
        """What another measurement of the same difference says, in a sentence: the same or not."""
        how = {"yes": "more", "opposite": "less", "undecided": "not told apart"}
        numbers = other._numbers()
        if other.kind == self.kind:
            return f"{who} says the same ({numbers})."
        return f"{who} does not: {how.get(other.kind, other.kind)} ({numbers})."

    def _numbers(self, unit: str = "") -> str:
        """The estimate with its interval; without one where there are too few prompts for it."""
        bounds = np.abs(self.interval.array().values)
        if (bounds < ROUNDING).all():
            return ROUNDED
        if np.isnan(self.detectable):
            return f"{format_number(float(self.interval.estimate), signed=True)}{unit}, no interval"
        numbers = format_interval(self.interval.array(), signed=True, unit=unit)
        family = self.interval.attrs.get("family")
        return f"{numbers}, held for all {family} together" if family else numbers

    def _undecided(self) -> str:
        if np.isnan(self.detectable):
            return (
                f"{self.size} decide nothing: measure {FEWEST_PROMPTS} {self.size.unit}s or more."
            )
        seen = format_number(self.detectable)
        unit = f"{self.size.unit}s"
        least = f"At {self.size} the least effect that would be seen is {seen}"
        effect = f"the margin of {self._margin()}" if self.margin else "an effect as large as this"
        if self.needed is None:
            return f"{least}; no number of {unit} up to {MOST_PROMPTS} would tell {effect}."
        return f"{least}; {self.needed} would tell {effect} from none."

    def _margin(self) -> str:
        return "none" if self.margin is None else format_number(self.margin)


def verdict(
    difference: Any,
    margin: float | None = None,
    *,
    level: float = LEVEL,
    strata: Sequence[Any] | None = None,
    interval: Interval | None = None,
    unit: str = "prompt",
) -> Verdict:
    """The verdict on a difference of two arms; undecided under :data:`FEWEST_PROMPTS` prompts.

    Parameters
    ----------
    difference
        (prompt, seed) paired differences, seeds shared by prompts; or (prompt,) where seeds are
        not told apart, which then covers these seeds only.
    margin
        What is too small to matter, above zero: of :func:`margin_of` by default in experiments.
        Without one nothing can be called equivalent.
    level
        Of the interval. Equivalence is tested by two one-sided tests at the same error, that is
        by an interval of level 2·level − 1 (Schuirmann 1987, doi:10.1007/BF01068419).
    strata
        As in :func:`~xhat.analysis.crossed.crossed_mean`.
    interval
        Decides in place of the difference's own: that of
        :func:`~xhat.analysis.crossed.simultaneous` where the arm was picked among others.
    unit
        What the rows are, where they are not prompts.

    Raises
    ------
    ValueError
        For NaN, another shape, and a margin that is not above zero.
    """
    values = np.asarray(difference, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ValueError(f"expected differences (prompt, seed) or (prompt,), got {values.shape}")
    if margin is not None and not margin > 0:
        raise ValueError(f"a margin must be above zero, got {margin}")
    alone = interval is None
    if interval is None:
        interval = crossed_mean(values, level=level, strata=strata)
    size = Size(len(values), values.shape[1], unit)
    if size.prompts < FEWEST_PROMPTS:
        return Verdict("undecided", interval, margin, np.nan, size)
    error, freedom = (float(x) for x in standard_error(values, strata))
    half = (float(interval.high) - float(interval.low)) / 2
    detectable = half + t.ppf(POWER, freedom) * error
    kind = _kind(interval, margin, t.ppf(level, freedom) * error if alone else half)
    needed = None
    if kind == "undecided":
        effect = margin if margin is not None else abs(float(interval.estimate))
        found = needed_size(components(values, strata), effect, level=level)
        needed = replace(found, unit=unit) if found else None
    return Verdict(kind, interval, margin, float(detectable), size, needed)


def verdicts(
    differences: Any,
    margin: float | None = None,
    *,
    level: float = LEVEL,
    strata: Sequence[Any] | None = None,
) -> list[Verdict]:
    """The verdict on each of many differences, by intervals that hold for all of them together.

    ``differences``: (arm, prompt, seed). The largest of them may be looked for: its verdict errs no
    more often for having been picked. Other arguments, and what is raised, as in :func:`verdict`.
    """
    values = np.asarray(differences, dtype=np.float64)
    held = simultaneous(values, level=level, strata=strata)
    each = zip(values, held.estimate, held.low, held.high, strict=True)
    return [
        verdict(
            x, margin, level=level, strata=strata, interval=Interval(mean, low, high, held.attrs)
        )
        for x, mean, low, high in each
    ]


def best_of(differences: Any, margin: float | None = None, **options: Any) -> tuple[int, Verdict]:
    """Which of many differences is largest, and its verdict among :func:`verdicts`."""
    every = verdicts(differences, margin, **options)
    best = int(np.argmax([float(v.interval.estimate) for v in every]))
    return best, every[best]


def margin_of(
    lead: Any,
    *,
    share: float = SHARE,
    level: float = LEVEL,
    strata: Sequence[Any] | None = None,
) -> float | None:
    """A quarter of the base's lead over the student: what is too small to matter.

    ``lead``: (prompt, seed) or (prompt,) differences base − student. None where the lead is not
    told from zero, or comes from fewer than :data:`FEWEST_PROMPTS` prompts: there is then nothing
    to be a quarter of.
    """
    values = np.asarray(lead, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    interval = crossed_mean(values, level=level, strata=strata)
    if len(values) < FEWEST_PROMPTS:
        return None
    try:
        check_told(interval, "the base's lead")
    except UndefinedRatio:
        return None
    return share * abs(float(interval.estimate))


def needed_size(
    pilot: Components, effect: float, *, level: float = LEVEL, power: float = POWER
) -> Size | None:
    """The cheapest prompts × seeds at which an effect is told from zero with this power.

    ``pilot``: variances from a pilot. None where more than 2000 prompts × 384 seeds are needed.
    """
    sizes = [
        size
        for seeds in (SEEDS if pilot.seeds > 1 else (1,))
        if (size := _prompts_for(pilot, abs(effect), seeds, level, power)) is not None
    ]
    return min(sizes, key=lambda s: (s.prompts * s.seeds, s.seeds), default=None)


def detectable_effect(
    pilot: Components, size: Size, *, level: float = LEVEL, power: float = POWER
) -> float:
    """Effect that is told from zero with this power at a size, from a pilot's variances."""
    fewest = size.prompts if size.seeds == 1 else min(size.prompts, size.seeds)
    freedom = max(fewest - 1, 1)
    factor = t.ppf((1 + level) / 2, freedom) + t.ppf(power, freedom)
    return float(factor * pilot.error(size.prompts, size.seeds))


def _prompts_for(
    pilot: Components, effect: float, seeds: int, level: float, power: float
) -> Size | None:
    def enough(prompts: int) -> bool:
        return detectable_effect(pilot, Size(prompts, seeds), level=level, power=power) <= effect

    if effect <= 0 or not enough(MOST_PROMPTS):
        return None
    low, high = 3, MOST_PROMPTS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return Size(high, seeds)


def _kind(interval: Interval, margin: float | None, half: float) -> Kind:
    if interval.low > 0:
        return "yes"
    if interval.high < 0:
        return "opposite"
    if margin is not None and abs(float(interval.estimate)) + half < margin:
        return "equivalent"
    return "undecided"
