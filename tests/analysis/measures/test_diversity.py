"""Diversity: closed forms, the published formulas, and the measures of a trace against a loop over
its cells.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from xhat.analysis.measures.diversity import (
    attribute_entropy,
    mean_pairwise_distance,
    mode_coverage,
    prdc,
    vendi,
)

ORDERS = [0.1, 0.5, 1, 2, 3.5, np.inf]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- Vendi
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", ORDERS)
def test_vendi_of_orthogonal_samples_is_their_number_and_of_equal_samples_one(q):
    assert vendi(3 * np.eye(7, 9), q=q) == pytest.approx(7)
    assert vendi(np.tile([[1.0, 2, 3]], (7, 1)), q=q) == pytest.approx(1)
    assert vendi([[1.0, 2, 3]], q=q) == pytest.approx(1)


@pytest.mark.parametrize("q", ORDERS)
def test_vendi_of_unequal_modes_is_the_hill_number_of_their_shares(q):
    """Orthogonal modes seen 5, 3 and 2 times: the Hill number of (.5, .3, .2), Hill 1973."""
    p = np.array([0.5, 0.3, 0.2])
    x = np.repeat(np.eye(3), [5, 3, 2], axis=0)
    expected = {1: np.exp(-(p * np.log(p)).sum()), np.inf: 1 / p.max()}.get(q)
    expected = (p**q).sum() ** (1 / (1 - q)) if expected is None else expected
    assert vendi(x, q=q) == pytest.approx(expected)


def test_vendi_of_two_samples_at_an_angle():
    """K/2 has the eigenvalues (1 ± cos)/2."""
    lam = (1 + np.cos(0.7) * np.array([1, -1])) / 2
    x = [[1, 0], [np.cos(0.7), np.sin(0.7)]]
    assert vendi(x) == pytest.approx(np.exp(-(lam * np.log(lam)).sum()))
    assert vendi(x, q=2) == pytest.approx(1 / (lam**2).sum())


def test_vendi_of_order_2_needs_no_eigenvalues_and_agrees_with_them(rng):
    x = rng.normal(size=(12, 5))
    assert vendi(x, q=2) == pytest.approx(vendi(x, q=2 + 1e-9), rel=1e-7)


@pytest.mark.parametrize("near", [1 - 1e-5, 1 + 1e-5, 1 + 1e-8])
def test_vendi_is_continuous_at_order_1(rng, near):
    x = rng.normal(size=(12, 5))
    assert vendi(x, q=near) == pytest.approx(vendi(x, q=1), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), d=st.integers(1, 12), seed=st.integers(0, 99))
def test_vendi_falls_with_the_order_and_stays_between_1_and_n(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d))
    values = [vendi(x, q=q) for q in ORDERS]
    assert all(a >= b - 1e-6 for a, b in zip(values, values[1:], strict=False))
    assert values[-1] >= 1 - 1e-9
    assert values[0] <= n + 1e-6


@pytest.mark.parametrize("q", [1, 2])
def test_vendi_by_cosine_sees_neither_rotation_nor_scale_of_samples(rng, q):
    x = rng.normal(size=(9, 4))
    turned = x @ np.linalg.qr(rng.normal(size=(4, 4)))[0] * rng.uniform(1e-200, 1e200, size=(9, 1))
    assert vendi(turned, q=q) == pytest.approx(vendi(x, q=q))


def test_vendi_by_rbf_is_the_formula_and_does_not_see_an_offset(rng):
    x = rng.normal(size=(8, 3))
    k = np.exp(-euclidean_distances(x, squared=True) / (2 * 1.3**2))
    lam = np.linalg.eigvalsh(k / 8)
    assert vendi(x, kernel="rbf", sigma=1.3) == pytest.approx(np.exp(-(lam * np.log(lam)).sum()))
    assert vendi(x + 1e4, kernel="rbf", sigma=1.3) == pytest.approx(
        vendi(x, kernel="rbf", sigma=1.3)
    )
    assert vendi(x[:1], kernel="rbf", sigma=1.3) == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "options", "says"),
    [
        (np.eye(3), {"q": 0}, "q, the order"),
        (np.eye(3), {"q": np.nan}, "q, the order"),
        (np.eye(3), {"kernel": "linear"}, "kernel must be one of"),
        (np.eye(3), {"kernel": "rbf"}, "sigma"),
        (np.eye(3), {"sigma": 1.0}, "sigma"),
        (np.eye(3), {"kernel": "rbf", "sigma": -1.0}, "sigma"),
        (np.zeros((3, 2)), {}, "zero in every feature"),
        ([[1.0, np.nan], [0, 1]], {}, "NaN"),
        (np.ones(3), {}, "n_samples, n_features"),
        (np.ones((0, 3)), {}, "0 samples"),
    ],
)
def test_vendi_refuses(x, options, says):
    with pytest.raises(ValueError, match=says):
        vendi(x, **options)


# --- distances, prdc, entropy
# -----------------------------------------------------------------------------


def test_mean_pairwise_distance_is_the_mean_over_different_pairs(rng):
    x, pairs = rng.normal(size=(9, 4)), np.triu_indices(9, 1)
    assert mean_pairwise_distance(x) == pytest.approx(cosine_distances(x)[pairs].mean())
    assert mean_pairwise_distance(x, metric="euclidean") == pytest.approx(
        euclidean_distances(x)[pairs].mean()
    )
    assert mean_pairwise_distance(np.ones((3, 2))) == pytest.approx(0)
    for bad, says in [
        ({"metric": "l1"}, "metric"),
        ({"x": x[:1]}, "at least 2"),
        ({"x": x * np.nan}, "NaN"),
    ]:
        with pytest.raises(ValueError, match=says):
            mean_pairwise_distance(**{"x": x, **bad})


def published_prdc(real, fake, k):
    """Naeem et al. 2020, eq. 1-6, a sum at a time."""

    def reach(x):
        return [
            sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]
            for i in range(len(x))
        ]

    r, f = reach(real), reach(fake)
    inside = np.array([[np.linalg.norm(a - b) < r[i] for b in fake] for i, a in enumerate(real)])
    recalled = np.array(
        [any(np.linalg.norm(a - b) < f[j] for j, b in enumerate(fake)) for a in real]
    )
    return {
        "precision": np.mean([inside[:, j].any() for j in range(len(fake))]),
        "recall": recalled.mean(),
        "density": inside.sum() / (k * len(fake)),
        "coverage": np.mean([inside[i].any() for i in range(len(real))]),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_prdc_is_the_published_formula(rng, k):
    real, fake = rng.normal(size=(20, 2)), rng.normal(size=(15, 2)) * 0.7 + 0.5
    assert prdc(real, fake, k=k) == pytest.approx(published_prdc(real, fake, k))


def test_prdc_of_the_same_far_and_collapsed_samples(rng):
    real = rng.normal(size=(30, 3))
    same = prdc(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert prdc(real, real + 100) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    collapsed = prdc(real, np.repeat(real[:1], 30, axis=0))
    assert collapsed["precision"] == 1
    assert collapsed["recall"] == 0
    assert collapsed["coverage"] < 0.5


def test_prdc_counts_strictly_inside_a_ball():
    """Reals at 0, 1, 3: at k = 1 their balls reach 1, 1, 2; a fake at 1 is on the rim of the first
    and third.
    """
    found = prdc([[0.0], [1.0], [3.0]], [[1.0], [50.0]], k=1)
    assert found["coverage"] == pytest.approx(1 / 3)
    assert found["precision"] == 0.5


def test_prdc_refuses(rng):
    x = rng.normal(size=(6, 2))
    for real, fake, k in [
        (x, x, 6),
        (x, x, 0),
        (x, x[:, :1], 2),
        (x, x[:3], 3),
        (x * np.inf, x, 2),
    ]:
        with pytest.raises(ValueError):
            prdc(real, fake, k=k)


def test_attribute_entropy_closed_forms():
    assert attribute_entropy([0, 1] * 5, 2) == pytest.approx(1)
    assert attribute_entropy([0, 1] * 5, 4) == pytest.approx(0.5)
    assert attribute_entropy([3] * 5, 4) == 0
    p = np.array([0.25, 0.75])
    assert attribute_entropy([1, 1, 0, 1], 3) == pytest.approx(-(p * np.log(p)).sum() / np.log(3))
    assert attribute_entropy(np.array([0, 1], np.uint8), 2) == pytest.approx(1)


def test_mode_coverage_of_uniform_samples_is_the_coupon_collectors(rng):
    covered = [mode_coverage(rng.integers(0, 12, size=20), 12) for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(1 - (11 / 12) ** 20, abs=0.01)
    assert mode_coverage(np.repeat(5, 9), 12) == pytest.approx(1 / 12)
    with pytest.raises(ValueError, match="from 0 to 2"):
        mode_coverage([0, 3], 3)
    with pytest.raises(ValueError, match="least=0"):
        mode_coverage([0, 1], 3, least=0)


def test_miller_and_madow_remove_most_of_the_bias_of_few_samples(rng):
    draws = rng.integers(0, 4, size=(2000, 24))
    plain = np.mean([attribute_entropy(d, 4) for d in draws])
    corrected = np.mean([attribute_entropy(d, 4, corrected=True) for d in draws])
    assert 1 - plain == pytest.approx(3 / (2 * 24 * np.log(4)), rel=0.15)  # what the docstring says
    assert abs(1 - corrected) < 0.15 * (1 - plain)


@pytest.mark.parametrize(
    ("labels", "n"), [([0, 4], 4), ([-1, 0], 4), ([0, 0], 1), ([], 4), ([0.5, 1], 4), ([[0]], 4)]
)
def test_attribute_entropy_refuses(labels, n):
    with pytest.raises(ValueError):
        attribute_entropy(labels, n)
