"""Similarity: identities, the published formulas in plain numpy, peers, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.cross_decomposition import CCA
from sklearn.neighbors import NearestNeighbors

from xhat.analysis.measures.similarity import (
    cka,
    cka_matrix,
    minibatch_cka,
    mutual_knn,
    procrustes,
    pwcca,
    rsa,
    svcca,
)

N = 24
INVARIANT = {  # measures that see neither rotation, scale nor offset
    "cka": cka,
    "cka biased": lambda x, y: cka(x, y, debiased=False),
    "cka rbf": lambda x, y: cka(x, y, kernel="rbf"),
    "cka rbf biased": lambda x, y: cka(x, y, kernel="rbf", debiased=False),
    "svcca": lambda x, y: svcca(x, y, dims=3),
    "procrustes": procrustes,
    "rsa": lambda x, y: rsa(x, y, metric="sqeuclidean"),
    "mutual_knn": lambda x, y: mutual_knn(x, y, k=5),
}
EVERY = INVARIANT | {"pwcca": pwcca, "rsa correlation": rsa}
BEST = {name: 0.0 if name == "procrustes" else 1.0 for name in EVERY}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def xy(rng):
    """Two related representations of different width."""
    x = rng.normal(size=(N, 6))
    return x, np.tanh(x @ rng.normal(size=(6, 9))) + 0.3 * rng.normal(size=(N, 9))


def rotation(rng, p):
    return np.linalg.qr(rng.normal(size=(p, p)))[0]


@pytest.mark.parametrize("name", EVERY)
def test_a_representation_is_as_like_itself_as_can_be(xy, name):
    assert EVERY[name](xy[0], xy[0]) == pytest.approx(BEST[name], abs=1e-7)


@pytest.mark.parametrize("name", INVARIANT)
def test_rotation_scale_and_offset_change_nothing(xy, rng, name):
    x, y = xy
    turned = 1e3 * x @ rotation(rng, 6) + 50
    assert INVARIANT[name](turned, y) == pytest.approx(INVARIANT[name](x, y), abs=1e-9)
    assert INVARIANT[name](x, turned) == pytest.approx(BEST[name], abs=1e-6)


@pytest.mark.parametrize("name", INVARIANT)
def test_symmetry_and_order_of_samples(xy, rng, name):
    x, y = xy
    order = rng.permutation(N)
    assert INVARIANT[name](y, x) == pytest.approx(INVARIANT[name](x, y))
    assert INVARIANT[name](x[order], y[order]) == pytest.approx(INVARIANT[name](x, y))


@pytest.mark.parametrize("name", EVERY)
def test_torch_and_numpy_are_the_same(xy, name):
    x, y = (a.astype(np.float32) for a in xy)
    assert EVERY[name](torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)) == EVERY[name](
        x, y
    )


@pytest.mark.parametrize("name", EVERY)
def test_refusals(xy, name):
    x, y = xy
    spoiled = x.copy()
    spoiled[3, 2] = np.nan
    cases = [
        (x, y[:-1], "same samples|must represent"),
        (x[0], y, "n_samples, n_features"),
        (x[None], y, "n_samples, n_features"),
        (spoiled, y, "NaN"),
        (x, np.full((N, 3), np.inf), "NaN or infinite"),
        (np.array([["a"] * 3] * N), y, "real numbers"),
    ]
    for a, b, says in cases:
        with pytest.raises(ValueError, match=says), np.errstate(invalid="ignore"):
            EVERY[name](a, b)
    with pytest.raises(ValueError):
        EVERY[name](np.ones((N, 4)), y)  # the same for every sample


@pytest.mark.parametrize("n", [1, 2, 3])
def test_debiased_cka_needs_four_samples(rng, n):
    x = rng.normal(size=(n, 5))
    for call in (
        lambda: cka(x, x),
        lambda: cka(x, x, kernel="rbf"),
        lambda: minibatch_cka([(x, x)]),
    ):
        with pytest.raises(ValueError, match=rf"{n} samples"):
            call()


# --- CKA
# --------------------------------------------------------------------------------------------------


def hsic1(k, l):
    """Song et al. 2012, eq. 5."""
    n, k, l = len(k), k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(n)
    inner = (
        np.trace(k @ l)
        + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ k @ l @ one)
    )
    return inner / (n * (n - 3))


def hsic0(k, l):
    """Gretton et al. 2005, eq. 9, without its constant."""
    h = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ h @ l @ h)


def rbf_gram(x):
    d2 = np.array([[((a - b) ** 2).sum() for b in x] for a in x])
    return np.exp(-d2 / (2 * np.median(d2[~np.eye(len(x), dtype=bool)])))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_cka_is_the_published_formula(xy, kernel, debiased):
    k, l = (rbf_gram(a) if kernel == "rbf" else a @ a.T for a in xy)
    h = hsic1 if debiased else hsic0
    assert cka(*xy, kernel=kernel, debiased=debiased) == pytest.approx(
        h(k, l) / np.sqrt(h(k, k) * h(l, l))
    )


def test_biased_linear_cka_is_the_feature_space_formula(xy):
    """Kornblith et al. 2019, eq. 7: ‖YᵀX‖² / (‖XᵀX‖·‖YᵀY‖)."""
    x, y = (a - a.mean(0) for a in xy)
    norm = np.linalg.norm
    assert cka(*xy, debiased=False) == pytest.approx(
        norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))
    )


def test_independent_noise_has_debiased_cka_about_zero_and_biased_cka_far_above():
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(size=(32, 400)), rng.normal(size=(32, 400))) for _ in range(60)]
    debiased = np.array([cka(x, y) for x, y in pairs])
    assert abs(debiased.mean()) < 3 * debiased.std() / np.sqrt(60)
    assert debiased.min() < 0  # not clamped
    assert np.mean([cka(x, y, debiased=False) for x, y in pairs]) > 0.85


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_matrix_is_pairwise_cka(rng, debiased):
    xs = [rng.normal(size=(N, p)) @ rng.normal(size=(p, p)) for p in (3, 7, 40)]
    ys = [xs[0] + rng.normal(size=xs[0].shape), xs[2]]
    pairwise = [[cka(x, y, debiased=debiased) for y in ys] for x in xs]
    np.testing.assert_allclose(cka_matrix(xs, ys, debiased=debiased), pairwise, atol=1e-12)
    own = cka_matrix(xs, debiased=debiased)
    np.testing.assert_allclose(own, own.T, atol=1e-14)
    np.testing.assert_allclose(np.diag(own), 1)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("memory", [1, 2000, 10**9])
def test_cka_matrix_in_strips_is_the_same(rng, memory, debiased):
    xs = rng.normal(size=(4, 11, 5))
    np.testing.assert_allclose(
        cka_matrix(xs, debiased=debiased, memory=memory), cka_matrix(xs, debiased=debiased)
    )


def test_cka_matrix_in_float32_and_on_tensors(rng):
    xs = rng.normal(size=(4, 30, 8)).astype(np.float32)
    exact = cka_matrix(xs)
    np.testing.assert_allclose(cka_matrix(xs, dtype="float32"), exact, atol=2e-6)
    np.testing.assert_allclose(cka_matrix(torch.from_numpy(xs)), exact, atol=1e-12)
    half = cka_matrix(torch.from_numpy(xs).half())
    np.testing.assert_allclose(half, exact, atol=5e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset", [0, 30, 1024])
def test_a_large_common_offset_costs_float32_nothing(rng, dtype, offset):
    grid = rng.integers(-512, 512, size=(2, 40, 6)) / 256  # exactly representable beside the offset
    shifted = (grid + offset).astype(np.float32)
    assert np.array_equal(shifted.astype(float) - offset, grid)
    expected = cka_matrix(grid)[0, 1]
    assert cka_matrix(shifted, dtype=dtype)[0, 1] == pytest.approx(
        expected, abs=2e-6 if dtype == "float32" else 1e-12
    )


def test_float64_arithmetic_on_float32_input_is_that_of_the_widened_input(rng):
    xs = [(rng.normal(size=(N, 30)) + 7).astype(np.float32) for _ in range(3)]
    np.testing.assert_array_equal(cka_matrix(xs), cka_matrix([x.astype(np.float64) for x in xs]))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(xy, scale):
    assert cka(scale * xy[0], xy[1] / scale) == pytest.approx(cka(*xy))
    xs = [(scale * xy[0]).astype(np.float32), xy[0]]
    assert cka_matrix(xs, dtype="float32")[0, 1] == pytest.approx(1, abs=1e-5)


def test_cka_matrix_refuses(rng):
    xs = rng.normal(size=(2, N, 3))
    for call, says in [
        (lambda: cka_matrix([]), "at least one"),
        (lambda: cka_matrix(xs, dtype="int8"), "dtype"),
        (lambda: cka_matrix([xs[0], xs[1][:5]]), r"xs\[1\] has 5 samples"),
        (lambda: cka_matrix(xs, [np.eye(N)]), r"ys\[0\] tells no pair"),
        (lambda: cka(*xs, kernel="poly"), "kernel must be"),
        (lambda: cka(*xs, sigma=1.0), "sigma is the width"),
    ]:
        with pytest.raises(ValueError, match=says):
            call()


def test_minibatch_cka_is_the_ratio_of_sums_and_one_batch_is_cka(xy):
    x, y = xy
    assert minibatch_cka([(x, y)]) == pytest.approx(cka(x, y))
    parts = [(x[i : i + 8], y[i : i + 8]) for i in range(0, N, 8)]
    kl, kk, ll = (
        sum(hsic1(a @ a.T, b @ b.T) for a, b in pairs)
        for pairs in (parts, [(a, a) for a, _ in parts], [(b, b) for _, b in parts])
    )
    assert minibatch_cka(iter(parts)) == pytest.approx(kl / np.sqrt(kk * ll))
    with pytest.raises(ValueError, match="no batch"):
        minibatch_cka([])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 15), p=st.integers(1, 20), q=st.integers(1, 20), seed=st.integers(0, 999))
def test_biased_cka_lies_between_0_and_1_and_debiased_never_above_1(n, p, q, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, p)), rng.normal(size=(n, q))
    assert -1e-12 <= cka(x, y, debiased=False) <= 1 + 1e-12
    assert abs(cka(x, y)) <= 1 + 1e-12


# --- RSA and neighbours
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["correlation", "sqeuclidean"])
def test_rsa_is_a_correlation_of_pdist(xy, metric):
    a, b = (pdist(x, metric) for x in xy)
    assert rsa(*xy, metric=metric) == pytest.approx(spearmanr(a, b).statistic)
    assert rsa(*xy, metric=metric, compare="pearson") == pytest.approx(np.corrcoef(a, b)[0, 1])
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert rsa(*xy, metric=metric, compare="cosine") == pytest.approx(cosine)


def test_rsa_shares_ranks_of_ties(rng):
    x, y = rng.integers(0, 2, size=(12, 3)).astype(float), rng.normal(size=(12, 3))
    expected = spearmanr(pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean")).statistic
    assert rsa(x, y, metric="sqeuclidean") == pytest.approx(expected)


def test_rsa_refuses(xy, rng):
    for options in ({"metric": "cosine"}, {"compare": "kendall"}):
        with pytest.raises(ValueError, match="must be one of"):
            rsa(*xy, **options)
    with pytest.raises(ValueError, match="at least 2"):
        rsa(rng.normal(size=(N, 1)), xy[1])


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("k", [1, 4, N - 1])
def test_mutual_knn_is_the_overlap_of_sklearns_neighbours(xy, k, centre):
    sets = []
    for x in xy:
        x = x - x.mean(0) if centre else x
        near = (
            NearestNeighbors(n_neighbors=k, metric="cosine")
            .fit(x)
            .kneighbors(return_distance=False)
        )
        sets.append([set(row) for row in near])
    expected = np.mean([len(a & b) / k for a, b in zip(*sets, strict=True)])
    assert mutual_knn(*xy, k=k, centre=centre) == pytest.approx(expected)


def test_mutual_knn_by_chance_is_k_over_n_less_1():
    rng = np.random.default_rng(0)
    scores = [
        mutual_knn(rng.normal(size=(40, 8)), rng.normal(size=(40, 8)), k=5) for _ in range(100)
    ]
    assert np.mean(scores) == pytest.approx(5 / 39, abs=3 * np.std(scores) / 10)


def test_mutual_knn_refuses(xy):
    for k in (0, N):
        with pytest.raises(ValueError, match="k"):
            mutual_knn(*xy, k=k)


# --- measures that align
# ----------------------------------------------------------------------------------


def canonical_correlations(x, y):
    """Square roots of the eigenvalues of Sxx⁻¹SxySyy⁻¹Syx, Hotelling 1936."""
    x, y = x - x.mean(0), y - y.mean(0)
    m = np.linalg.solve(x.T @ x, x.T @ y) @ np.linalg.solve(y.T @ y, y.T @ x)
    return np.sqrt(np.sort(np.clip(np.linalg.eigvals(m).real, 0, None))[::-1])


def test_svcca_of_everything_is_the_mean_canonical_correlation(xy):
    assert svcca(*xy, variance=1.0) == pytest.approx(canonical_correlations(*xy).mean())
    first = CCA(n_components=1, scale=False, max_iter=5000, tol=1e-12).fit(*xy).transform(*xy)
    rho = np.corrcoef(first[0][:, 0], first[1][:, 0])[0, 1]
    assert canonical_correlations(*xy)[0] == pytest.approx(rho, abs=1e-5)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_svcca_keeps_the_share_of_variance(xy, variance):
    kept = []
    for x in xy:
        c = x - x.mean(0)
        u, s, _ = np.linalg.svd(c, full_matrices=False)
        r = next(r for r in range(1, len(s) + 1) if (s[:r] ** 2).sum() >= variance * (s**2).sum())
        kept.append(u[:, :r])
    rho = canonical_correlations(*sorted(kept, key=lambda u: u.shape[1]))
    assert svcca(*xy, variance=variance) == pytest.approx(rho.mean())


def test_pwcca_is_the_published_formula(xy):
    """Morcos et al. 2018, eq. 3-4, with canonical variates from the whitened cross-covariance."""
    x, y = (a - a.mean(0) for a in xy)
    qx, qy = np.linalg.qr(x)[0], np.linalg.qr(y)[0]
    a, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    h = qx @ a
    alpha = [sum(abs(h[:, i] @ x[:, j]) for j in range(x.shape[1])) for i in range(len(rho))]
    assert pwcca(*xy) == pytest.approx(np.dot(alpha, rho) / np.sum(alpha))
    assert pwcca(*xy) != pytest.approx(pwcca(*xy[::-1]))  # directional


def test_procrustes_is_the_best_rotations_angle_and_agrees_with_scipy(xy):
    x, y = xy
    padded = np.pad(x, ((0, 0), (0, 3)))
    cos = np.sqrt(1 - scipy_procrustes(padded, y)[2])  # its disparity is 1 − (Σ singular values)²
    assert procrustes(x, y) == pytest.approx(np.arccos(cos))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999))
def test_procrustes_obeys_the_triangle_inequality(seed):
    rng = np.random.default_rng(seed)
    x, y, z = (rng.normal(size=(10, p)) for p in (3, 5, 4))
    assert procrustes(x, z) <= procrustes(x, y) + procrustes(y, z) + 1e-9


def test_more_features_than_samples(rng):
    x, y = rng.normal(size=(12, 60)), rng.normal(size=(12, 40))
    nuclear = np.linalg.svd((x - x.mean(0)).T @ (y - y.mean(0)), compute_uv=False).sum()
    cos = nuclear / np.linalg.norm(x - x.mean(0)) / np.linalg.norm(y - y.mean(0))
    assert procrustes(x, y) == pytest.approx(np.arccos(cos))
    assert 0 <= svcca(x, y, dims=3) <= 1
    for call in (lambda: svcca(x, y, variance=1.0), lambda: pwcca(x, y)):
        with pytest.raises(ValueError, match="whatever the data"):
            call()


def test_svcca_refuses(xy):
    for options in ({"variance": 0}, {"variance": 1.1}, {"dims": 0}, {"dims": 7}):
        with pytest.raises(ValueError):
            svcca(*xy, **options)
