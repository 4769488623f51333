"""Intervals and tests: closed forms, coverage on simulated data, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from xhat.analysis.stats import (
    bootstrap_difference,
    bootstrap_mean,
    group_permutations,
    jackknife,
    max_statistic,
    paired_ratio,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.slow
def test_bootstrap_of_many_units_is_the_normal_interval(rng):
    x = rng.normal(size=400)
    interval = bootstrap_mean(x, resamples=20000)
    half = 1.96 * x.std(ddof=1) / 20
    assert float(interval.estimate) == pytest.approx(x.mean())
    np.testing.assert_allclose(
        interval.bounds(), [x.mean() - half, x.mean() + half], atol=0.05 * half
    )


@pytest.mark.slow
def test_bootstrap_of_few_units_covers_as_it_says():
    """At 8 units a plain percentile interval of 95 % covers about 88 %: the expansion is what is
    tested.
    """
    rng = np.random.default_rng(3)
    hits = [
        i.low <= 0 <= i.high
        for i in (bootstrap_mean(rng.normal(size=8), resamples=400) for _ in range(600))
    ]
    assert 0.92 <= np.mean(hits) <= 0.975


def test_bootstrap_draws_the_same_units_for_every_column_and_is_seeded(rng):
    x = rng.normal(size=(9, 2))
    a = bootstrap_mean(np.stack([x, x], axis=-1), seed=5)
    np.testing.assert_allclose(a.low[..., 0], a.low[..., 1])
    np.testing.assert_array_equal(a.low, bootstrap_mean(np.stack([x, x], axis=-1), seed=5).low)
    assert not np.array_equal(a.low, bootstrap_mean(np.stack([x, x], axis=-1), seed=6).low)
    assert a.low.shape == (2, 2)
    assert a.attrs["n"] == 9
    assert a.attrs["seed"] == 5
    assert "bootstrap" in a.attrs["interval"]


def test_an_interval_becomes_an_array_with_bounds(rng):
    interval = bootstrap_mean(rng.normal(size=(9, 2)), level=0.9)
    array = interval.array("arm", {"arm": ["a", "b"]})
    np.testing.assert_array_equal(array.sel(bound=["low", "high"]).T, interval.bounds())
    assert array.attrs["level"] == 0.9
    assert "bootstrap" in array.attrs["method"]
    assert array.attrs["n"] == 9


def test_one_unit_has_no_bounds():
    interval = bootstrap_mean([3.0])
    assert float(interval.estimate) == 3
    assert np.isnan(interval.bounds()).all()


def test_a_paired_interval_forgets_what_the_arms_share(rng):
    shared = 100 * rng.normal(size=12)
    a, b = shared + rng.normal(size=12), shared + 5 + rng.normal(size=12)
    paired = bootstrap_difference(a, b)
    assert float(paired.estimate) == pytest.approx((b - a).mean())
    alone = bootstrap_mean(b)
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.low > 0


def test_a_ratio_of_proportional_arms_is_certain(rng):
    a = rng.uniform(1, 2, size=10)
    ratio = paired_ratio(a, 3 * a)
    np.testing.assert_allclose([ratio.low, ratio.estimate, ratio.high], 3)


def test_the_jackknife_of_a_mean_is_students_interval(rng):
    x = rng.normal(size=15)
    left_out = [np.delete(x, i).mean() for i in range(15)]
    interval = jackknife(x.mean(), left_out, level=0.9)
    half = student.ppf(0.95, 14) * x.std(ddof=1) / np.sqrt(15)
    np.testing.assert_allclose(interval.bounds(), [x.mean() - half, x.mean() + half])


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_mean([]),
        lambda: bootstrap_mean(3.0),
        lambda: bootstrap_mean([1.0, np.nan]),
        lambda: bootstrap_mean([1.0, 2.0], level=1),
        lambda: bootstrap_mean([1.0, 2.0], resamples=10),
        lambda: bootstrap_difference([1.0, 2.0], [1.0]),
        lambda: jackknife(1.0, [1.0]),
        lambda: group_permutations(["a", "a", "b"], 5),
        lambda: group_permutations(["a", "a"], 5),
    ],
)
def test_refusals(call):
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize(
    ("groups", "count", "expected"), [(3, 100, 5), (4, 100, 23), (4, 7, 7), (12, 50, 50)]
)
def test_whole_groups_change_places(rng, groups, count, expected):
    labels = rng.permutation(np.repeat(np.arange(groups), 3))
    orders = group_permutations(labels, count)
    assert orders.shape == (expected, 3 * groups)
    within = np.array([np.flatnonzero(labels == g).tolist().index(i) for i, g in enumerate(labels)])
    for order in orders:
        assert sorted(order) == list(range(3 * groups))
        assert (order != np.arange(3 * groups)).any()
        moved = labels[order]
        assert all(
            len(set(moved[labels == g])) == 1 for g in range(groups)
        )  # a group goes to one place
        assert (within[order] == within).all()  # and keeps its order
    if expected != count:
        assert len({tuple(o) for o in orders}) == expected


def test_the_largest_statistic_holds_its_level_over_a_map():
    """40 cells of pure noise: any p_map ≤ 5 % in about 5 % of maps, though most maps have a raw p ≤
    5 %.
    """
    rng = np.random.default_rng(0)
    raw, corrected = [], []
    for _ in range(300):
        draws = rng.normal(size=(100, 40))
        found = max_statistic(draws[0], draws[1:])
        raw.append(found.p.min() <= 0.05)
        corrected.append(found.p_map.min() <= 0.05)
    assert np.mean(raw) > 0.7
    assert 0.02 <= np.mean(corrected) <= 0.085


def test_a_true_cell_is_found_and_distances_count_downward(rng):
    null = rng.normal(size=(199, 5))
    observed = np.array([8.0, 0, 0, 0, 0])
    found = max_statistic(observed, null)
    assert found.p_map[0] == 1 / 200
    assert (found.p_map[1:] > 0.1).all()
    assert observed[0] > found.critical[0]
    assert (observed[1:] < found.critical[1:]).all()
    downward = max_statistic(-observed, -null, larger=False)
    np.testing.assert_allclose(downward.p_map, found.p_map)
    np.testing.assert_allclose(downward.critical, -found.critical)


def test_cells_outside_the_family_do_not_set_the_bar(rng):
    null = rng.normal(size=(99, 3))
    family = np.array([True, True, False])
    found = max_statistic(np.zeros(3), null, family=family)
    assert np.isnan(found.p_map[2])
    assert np.isfinite(found.p_map[:2]).all()
    np.testing.assert_array_equal(found.p_map[:2], max_statistic(np.zeros(2), null[:, :2]).p_map)
