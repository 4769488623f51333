"""Prompts × seeds: closed forms, coverage on simulated layouts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from xhat.analysis.crossed import (
    UndefinedRatio,
    check_told,
    components,
    crossed_difference,
    crossed_jackknife,
    crossed_log_ratio,
    crossed_mean,
    crossed_ratio,
    simultaneous,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def layout(rng, prompts, seeds, spread=(1.0, 1.0, 1.0)):
    """m + aₚ + bₛ + eₚₛ with these standard deviations."""
    parts = rng.normal(size=(prompts, 1)), rng.normal(size=(1, seeds))
    return sum(
        s * x for s, x in zip(spread, (*parts, rng.normal(size=(prompts, seeds))), strict=True)
    )


def test_one_seed_is_students_interval_over_prompts(rng):
    x = rng.normal(size=9)
    found = crossed_mean(x[:, None], level=0.9)
    half = student.ppf(0.95, 8) * x.std(ddof=1) / 3
    np.testing.assert_allclose(found.bounds(), [x.mean() - half, x.mean() + half])


def test_values_that_seeds_do_not_move_give_students_interval_over_prompts(rng):
    x = rng.normal(size=7)
    found = crossed_mean(np.repeat(x[:, None], 5, axis=1))
    half = student.ppf(0.975, 6) * x.std(ddof=1) / np.sqrt(7)
    assert float(found.high - found.estimate) == pytest.approx(half)


def test_prompts_and_seeds_change_places(rng):
    x = layout(rng, 6, 6, (1, 0.3, 0.5))
    np.testing.assert_allclose(crossed_mean(x).bounds(), crossed_mean(x.T).bounds())


def test_columns_are_treated_one_by_one(rng):
    x = rng.normal(size=(5, 4, 3))
    both = crossed_mean(x)
    for i in range(3):
        np.testing.assert_allclose(both.bounds()[:, i], crossed_mean(x[..., i]).bounds())


@pytest.mark.parametrize("spread", [(1, 0, 1), (0, 1, 1), (0.5, 0.5, 1), (0, 0, 1)])
def test_intervals_hold_for_new_prompts_and_new_seeds(spread):
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(500):
        found = crossed_mean(layout(rng, 8, 12, spread))
        hits.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.985


def test_prompts_alone_would_miss_what_seeds_add():
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(300):
        rows = crossed_mean(layout(rng, 20, 8, (0.5, 1, 0.5)).mean(1)[:, None])
        hits.append(rows.low <= 0 <= rows.high)
    assert np.mean(hits) < 0.6


def test_components_are_those_that_were_put_in():
    rng = np.random.default_rng(3)
    every = [components(layout(rng, 30, 30, (2, 1, 3))) for _ in range(50)]
    found = [np.mean([getattr(c, n) for c in every]) for n in ("prompt", "seed", "rest")]
    np.testing.assert_allclose(found, [4, 1, 9], rtol=0.15)
    assert float(every[0].error(10**9, 10**9)) < 1e-3


def test_strata_take_the_differences_between_kinds_away(rng):
    kinds = np.repeat(["a", "b", "c", "d"], 3)
    x = layout(rng, 12, 6, (0.2, 0.1, 0.3)) + np.repeat([0, 5, 10, 15], 3)[:, None]
    wide, narrow = crossed_mean(x), crossed_mean(x, strata=kinds)
    assert narrow.high - narrow.low < 0.2 * (wide.high - wide.low)
    np.testing.assert_allclose(narrow.estimate, wide.estimate)
    with pytest.raises(ValueError, match=r"one prompt.*: b"):
        crossed_mean(x[:4], strata=["a", "a", "a", "b"])


def test_a_paired_difference_forgets_what_the_arms_share(rng):
    shared = 50 * layout(rng, 8, 6)
    found = crossed_difference(shared, shared + 1 + 0.1 * layout(rng, 8, 6))
    assert 0.7 < found.low < 1 < found.high < 1.3


def test_a_ratio_is_read_from_both_arms_and_refused_without_a_denominator(rng):
    a = 3 + layout(rng, 8, 12, (0.3, 0.1, 0.5))
    ratio = crossed_ratio(a, 2 * a + 0.1 * layout(rng, 8, 12))
    assert 1.9 < ratio.low < 2 < ratio.high < 2.1
    same = crossed_ratio(-a, 2 * a)
    np.testing.assert_allclose([same.low, same.estimate, same.high], -2)
    with pytest.raises(UndefinedRatio, match="not told from zero"):
        crossed_ratio(a - 3, a)
    with pytest.raises(UndefinedRatio, match="the lead"):
        check_told(crossed_mean(a - 3), "the lead")


def test_a_ratio_of_variances_is_symmetric_on_the_logarithmic_scale(rng):
    a = np.exp(layout(rng, 8, 12))
    found, turned = crossed_log_ratio(a, 3 * a**1.1), crossed_log_ratio(3 * a**1.1, a)
    np.testing.assert_allclose(found.low * turned.high, 1)
    assert found.low < (3 * a**1.1).mean() / a.mean() < found.high
    np.testing.assert_allclose(crossed_log_ratio(a, 2 * a).bounds(), 2)
    with pytest.raises(ValueError, match="above zero"):
        crossed_log_ratio(a, -a)


def test_the_two_way_jackknife_of_a_mean_adds_both_variances(rng):
    x = rng.normal(size=(7, 5))
    without = [[np.delete(x, i, axis).mean() for i in range(x.shape[axis])] for axis in (0, 1)]
    found = crossed_jackknife(x.mean(), *without)
    variance = x.mean(1).var(ddof=1) / 7 + x.mean(0).var(ddof=1) / 5
    assert float(found.estimate) == pytest.approx(x.mean())
    normal = float(found.high - found.estimate) / np.sqrt(variance)
    assert student.ppf(0.975, 10) < normal < student.ppf(0.975, 4)
    with pytest.raises(ValueError, match="at least 2 units"):
        crossed_jackknife(0.0, [1.0], [1.0, 2.0])


@pytest.mark.slow
def test_the_two_way_jackknife_takes_the_bias_of_few_prompts_off():
    """Of the square of a mean, whose bias is its variance, nothing is left."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(2000):
        x = layout(rng, 6, 5, (1, 0.5, 0.2))
        without = [
            [np.delete(x, i, axis).mean() ** 2 for i in range(x.shape[axis])] for axis in (0, 1)
        ]
        value = x.mean() ** 2
        found.append((value, float(crossed_jackknife(value, *without).estimate)))
    plain, corrected = np.mean(found, axis=0)
    assert plain > 0.15
    assert abs(corrected) < 0.03


@pytest.mark.slow
def test_simultaneous_intervals_hold_together():
    """18 arms of no effect that share prompts and seeds: any is flagged in about 5 % of runs."""
    rng = np.random.default_rng(4)
    alone, together = [], []
    for _ in range(200):
        x = np.stack([layout(rng, 8, 12) for _ in range(18)])
        x = x - layout(rng, 8, 12)
        own = crossed_mean(np.moveaxis(x, 0, -1))
        alone.append(((own.low > 0) | (own.high < 0)).any())
        wide = simultaneous(x, draws=500)
        together.append(((wide.low > 0) | (wide.high < 0)).any())
    assert np.mean(alone) > 0.2
    assert np.mean(together) <= 0.085


def test_kinds_do_not_widen_intervals_that_hold_together(rng):
    kinds = list("aabbccdd")
    shift = np.repeat([-3.0, -1.0, 1.0, 3.0], 2)[:, None]
    x = np.stack([0.1 * layout(rng, 8, 12) + shift for _ in range(3)])
    plain, within = simultaneous(x), simultaneous(x, strata=kinds)
    assert ((within.high - within.low) < (plain.high - plain.low) / 3).all()
    assert within.attrs["family"] == 3
    assert np.isnan(simultaneous(x[:, :1]).low).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: crossed_mean([1.0, 2.0]),
        lambda: crossed_mean(np.full((3, 3), np.nan)),
        lambda: crossed_mean(np.eye(3), level=95),
        lambda: crossed_mean(np.eye(3), strata=["a", "a"]),
        lambda: crossed_difference(np.eye(3), np.eye(4)),
        lambda: components(np.ones((1, 3))),
    ],
)
def test_refusals(call):
    with pytest.raises(ValueError):
        call()


def test_one_prompt_has_no_bounds():
    found = crossed_mean([[1.0, 2.0]])
    assert float(found.estimate) == 1.5
    assert np.isnan(found.bounds()).all()
