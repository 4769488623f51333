"""Gram matrices and kernels: centring, and what may be read from a Gram instead of activations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from xhat.analysis.measures import grams, kernels
from xhat.analysis.measures.cca import (
    factor,
    factor_of_gram,
    procrustes,
    procrustes_of,
    svcca,
    svcca_of,
)

N = 14


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(N, 5)) + 3


def test_recentre_is_h_k_h_and_equals_centred_features(x):
    h = np.eye(N) - 1 / N
    k = x @ x.T
    np.testing.assert_allclose(grams.recentre(k), h @ k @ h, atol=1e-12)
    np.testing.assert_allclose(grams.recentre(k), grams.centred_gram(x), atol=1e-12)


def test_u_centred_matrices_have_zero_diagonal_and_rows_and_see_no_centring(x):
    u = grams.u_centre(x @ x.T)
    np.testing.assert_allclose(np.diag(u), 0, atol=1e-12)
    np.testing.assert_allclose(u.sum(0), 0, atol=1e-11)
    np.testing.assert_allclose(u, grams.u_centre(grams.centred_gram(x)), atol=1e-11)


@pytest.mark.parametrize("debiased", [True, False])
def test_the_triangle_holds_half_the_inner_product_or_all_of_it(x, debiased):
    y = x - x.mean(0)
    full = grams.u_centre(y @ y.T) if debiased else y @ y.T
    index = grams.strip_index(N, 0, N, not debiased, y)
    packed = grams.triangle(y, 0, N, debiased, index)
    assert packed @ packed == pytest.approx(np.vdot(full, full) / (2 if debiased else 1))


EVERY = {
    "cka": kernels.cka_kernel(),
    "cka biased": kernels.cka_kernel(debiased=False),
    "cka rbf": kernels.cka_kernel("rbf"),
    "rsa": kernels.rsa_kernel("sqeuclidean"),
    "mutual_knn": kernels.knn_kernel(3),
    "mutual_knn raw": kernels.knn_kernel(3, centre=False),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_gram_stands_for_the_activations(x, name):
    kernel = EVERY[name]
    assert kernel.from_gram is not None
    from_gram = kernel.vector(kernel.from_gram(x @ x.T))
    np.testing.assert_allclose(from_gram, kernel.vector(kernel.matrix(x)), atol=1e-9)
    assert np.linalg.norm(from_gram) == pytest.approx(1)


@pytest.mark.parametrize("name", EVERY)
def test_a_subset_of_samples_is_a_submatrix(x, name):
    kernel, kept = EVERY[name], np.arange(N) % 3 != 0
    part = kernel.vector(kernel.matrix(x)[np.ix_(kept, kept)])
    np.testing.assert_allclose(part, kernel.vector(kernel.matrix(x[kept])), atol=1e-9)


def test_a_gram_cannot_give_correlation_distances():
    assert kernels.rsa_kernel("correlation").from_gram is None


def test_distances_agree_with_scipy(x):
    np.testing.assert_allclose(
        kernels.squared_distances(x @ x.T), squareform(pdist(x, "sqeuclidean")), atol=1e-10
    )
    np.testing.assert_allclose(
        kernels.correlation_distances(x), squareform(pdist(x, "correlation")), atol=1e-12
    )


def test_rbf_takes_its_width_from_the_median_of_different_samples(x):
    d2 = pdist(x, "sqeuclidean")
    expected = np.exp(-squareform(d2) / (2 * np.median(d2)))
    np.testing.assert_allclose(kernels.rbf(x @ x.T), expected)
    np.testing.assert_allclose(kernels.rbf(x @ x.T, sigma=2.0), np.exp(-squareform(d2) / 8))
    with pytest.raises(ValueError, match="median distance is 0"):
        kernels.rbf(np.ones((4, 4)))


@pytest.mark.parametrize("p", [3, 40])
def test_factors_stand_for_centred_features(p):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, p)), rng.normal(size=(N, 6))
    f = factor(x)
    assert f.shape == (N, min(N, p))
    np.testing.assert_allclose(f @ f.T, grams.centred_gram(x), atol=1e-10)
    g, h = factor_of_gram(x @ x.T), factor_of_gram(y @ y.T)
    np.testing.assert_allclose(g @ g.T, grams.centred_gram(x), atol=1e-10)
    assert procrustes_of(g, h) == pytest.approx(procrustes(x, y))
    assert svcca_of(g, h, dims=2) == pytest.approx(svcca(x, y, dims=2))
