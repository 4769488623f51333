"""Distances to reference pictures: closed forms, sums written out, another package."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from xhat.analysis.measures.reference import (
    frechet_distance,
    kernel_distance_by_sample,
    precision_by_sample,
    recall,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5)), 1.5 * RNG.normal(size=(20, 5)) + 0.5


def kernel(a, b):
    return (a @ b / len(a) + 1) ** 3


def test_kernel_distance_is_the_sum_over_pairs():
    within_x = np.mean([kernel(a, b) for i, a in enumerate(X) for j, b in enumerate(X) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(Y) for j, b in enumerate(Y) if i != j])
    across = np.mean([kernel(a, b) for a in X for b in Y])
    found = kernel_distance_by_sample(X, Y).mean()
    assert found == pytest.approx(within_x + within_y - 2 * across, rel=1e-10)


@pytest.mark.parametrize(("shift", "most"), [(0.0, 1.7), (0.5, 1.25)])
def test_kernel_distance_has_no_bias_and_its_values_its_spread(shift, most):
    """Without a difference the jackknife errs on the safe side: it is then of the second order."""
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(4000, 3))
    runs = [
        kernel_distance_by_sample(rng.normal(size=(60, 3)) + shift, reference) for _ in range(300)
    ]
    means = np.array([run.mean() for run in runs])
    truth = kernel_distance_by_sample(rng.normal(size=(6000, 3)) + shift, reference).mean()
    assert means.mean() == pytest.approx(truth, abs=4 * means.std() / np.sqrt(300) + 0.02)
    told = np.sqrt(np.mean([run.var(ddof=1) / 60 for run in runs]))
    assert 0.9 * means.std() < told < most * means.std()


@pytest.mark.parametrize(("n", "m", "d"), [(12, 20, 5), (4, 30, 6), (3, 4, 8)])
def test_frechet_distance_is_that_of_the_roots_of_matrices(n, m, d):
    x, y = RNG.normal(size=(n, d)), RNG.normal(size=(m, d)) * np.arange(1, d + 1)
    a, b = np.cov(x.T), np.cov(y.T)
    cross = 2 * sqrtm(a @ b + 1e-12 * np.eye(d)).real.trace()
    means = np.square(x.mean(0) - y.mean(0)).sum()
    assert frechet_distance(x, y) == pytest.approx(
        means + np.trace(a) + np.trace(b) - cross, abs=1e-3
    )
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_see_what_is_not_there_and_what_is_left_out():
    modes = np.repeat([[0.0, 0.0], [10.0, 0.0]], 50, axis=0)
    reference = modes + RNG.normal(size=modes.shape)
    one = RNG.normal(size=(50, 2)) * 0.5
    wrong = one + [0, 30]
    assert precision_by_sample(one, reference).mean() > 0.95
    assert recall(one, reference) < 0.5
    assert precision_by_sample(wrong, reference).sum() == 0
    assert recall(reference, reference) == 1
    neighbours = [sorted(np.linalg.norm(y - Y, axis=1))[3] for y in Y]
    by_hand = [any(np.linalg.norm(x - Y, axis=1) <= neighbours) for x in X]
    assert precision_by_sample(X, Y).tolist() == by_hand


def test_large_references_are_taken_in_parts(monkeypatch):
    whole = kernel_distance_by_sample(X, Y), precision_by_sample(X, Y)
    monkeypatch.setattr("xhat.analysis.measures.reference.ROWS", 7)
    parts = kernel_distance_by_sample(X, Y), precision_by_sample(X, Y)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-10)
    np.testing.assert_array_equal(parts[1], whole[1])


def test_another_package_says_the_same():
    pytest.importorskip("torch_fidelity")
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = (torch.from_numpy(v) for v in (X, Y))
    stats = [fid_features_to_statistics(v) for v in (x, y)]
    fid = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(X, Y) == pytest.approx(fid, rel=1e-6)
    same = {"kid_subsets": 1, "kid_subset_size": 12, "verbose": False}
    kid = kid_features_to_metric(x, y[:12], **same)["kernel_inception_distance_mean"]
    assert kernel_distance_by_sample(X, Y[:12]).mean() == pytest.approx(kid, rel=1e-6)
    prc = prc_features_to_metric(x, y, verbose=False)
    assert precision_by_sample(X, Y).mean() == pytest.approx(prc["precision"])
    assert recall(X, Y) == pytest.approx(prc["recall"])


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance_by_sample, recall])
def test_what_cannot_be_compared_is_refused(measure):
    with pytest.raises(ValueError, match=r"got shape \(1, 5\)"):
        measure(X[:1], Y)
    with pytest.raises(ValueError, match="features of two spaces"):
        measure(X[:, :4], Y)
    with pytest.raises(ValueError, match="NaN"):
        measure(np.where(X > 1, np.nan, X), Y)
