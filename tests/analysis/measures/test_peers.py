"""Each measure beside at least two independent ways to it: another library, or the published
formula spelled out.

To this package's conventions. Libraries that are not installed are skipped.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg as sl
import torch
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr
from sklearn.neighbors import NearestNeighbors

from xhat.analysis.measures.diversity import prdc, vendi
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


@pytest.fixture
def xs():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(20, 6))
    return [
        np.tanh(base @ rng.normal(size=(6, p))) + 0.2 * rng.normal(size=(20, p))
        for p in (6, 6, 6, 6)
    ]


@pytest.mark.slow
def test_cka_of_pytorch_cka(xs):
    peer = pytest.importorskip("cka")
    theirs = peer.cka_from_features(
        [torch.from_numpy(x) for x in xs], [torch.from_numpy(x) for x in xs]
    )
    np.testing.assert_allclose(cka_matrix(xs), theirs, atol=1e-5)


def test_hsic_of_torch_cka(xs):
    peer = pytest.importorskip("torch_cka")

    def hsic(x, y):
        k, l = (torch.from_numpy(a @ a.T).float().fill_diagonal_(0) for a in (x, y))
        return peer.CKA._HSIC(SimpleNamespace(device="cpu"), k, l)

    x, y = xs[:2]
    assert cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)), abs=1e-5)
    halves = [(x[:10], y[:10]), (x[10:], y[10:])]
    sums = [
        sum(hsic(p, q) for p, q in pairs)
        for pairs in (halves, *([(h[i],) * 2 for h in halves] for i in (0, 1)))
    ]
    assert minibatch_cka(halves) == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), abs=1e-5)


@pytest.mark.parametrize("metric", ["correlation", "sqeuclidean"])
@pytest.mark.parametrize("compare", ["spearman", "pearson", "cosine"])
def test_rsa_of_rsatoolbox(xs, metric, compare):
    peer = pytest.importorskip("rsatoolbox")
    method = {"sqeuclidean": "euclidean"}.get(
        metric, metric
    )  # its "euclidean" is squared, over the number of features
    a, b = (peer.rdm.calc_rdm(peer.data.Dataset(x), method=method) for x in xs[:2])
    theirs = peer.rdm.compare(a, b, method={"pearson": "corr"}.get(compare, compare))
    assert rsa(*xs[:2], metric=metric, compare=compare) == pytest.approx(
        float(theirs[0, 0]), abs=1e-9
    )


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 7)) @ rng.normal(size=(7, 7)) + 3
    return x, np.tanh(x @ rng.normal(size=(7, 5)) / 8) + 0.3 * rng.normal(size=(60, 5))


def centred(x):
    return x - x.mean(0)


def leading(x, variance):
    """Principal components that hold so much of the variance, by the eigenvectors of the covariance
    matrix.
    """
    values, vectors = np.linalg.eigh(np.cov(x.T))
    order = np.argsort(-values)
    kept = 1 + int(np.argmax(np.cumsum(values[order]) / values.sum() >= variance))
    return centred(x) @ vectors[:, order[:kept]]


def by_whitening(x, y):
    """ρ and directions in x, from Σxx^-½ Σxy Σyy^-½ (Raghu et al. 2017, as their cca_core has
    it).
    """
    x, y = centred(x), centred(y)
    roots = [np.linalg.inv(sl.sqrtm(a.T @ a).real) for a in (x, y)]
    u, rho, _ = np.linalg.svd(roots[0] @ x.T @ y @ roots[1])
    return rho, x @ roots[0] @ u[:, : len(rho)]


def by_eigenvalues(x, y):
    """ρ² and directions in x as a generalised eigenvalue problem: Σxy Σyy⁻¹ Σyx w = ρ² Σxx w
    (Hotelling 1936).
    """
    x, y = centred(x), centred(y)
    squares, w = sl.eigh(x.T @ y @ np.linalg.solve(y.T @ y, y.T @ x), x.T @ x)
    count = min(x.shape[1], y.shape[1])
    return np.sqrt(squares[::-1][:count]), (x @ w)[:, ::-1][:, :count]


@pytest.mark.parametrize("peer", [by_whitening, by_eigenvalues])
@pytest.mark.parametrize("variance", [0.9, 0.99])
def test_svcca(pair, peer, variance):
    rho, _ = peer(*(leading(a, variance) for a in pair))
    assert svcca(*pair, variance=variance) == pytest.approx(rho.mean(), abs=1e-9)


def test_svcca_of_scikit_learn(pair):
    from sklearn.cross_decomposition import CCA
    from sklearn.decomposition import PCA

    kept = [PCA(3).fit_transform(a) for a in pair]
    variates = CCA(3, max_iter=20_000, tol=1e-14).fit(*kept).transform(*kept)
    rho = [np.corrcoef(a, b)[0, 1] for a, b in zip(*(v.T for v in variates), strict=True)]
    assert svcca(*pair, dims=3) == pytest.approx(np.mean(rho), abs=1e-6)


@pytest.mark.parametrize("peer", [by_whitening, by_eigenvalues])
def test_pwcca(pair, peer):
    """Σ αᵢρᵢ / Σ αᵢ, αᵢ = Σⱼ |⟨hᵢ, xⱼ⟩| (Morcos et al. 2018, eq. 3)."""
    for x, y in (pair, pair[::-1]):
        rho, h = peer(x, y)
        alpha = np.abs((h / np.linalg.norm(h, axis=0)).T @ centred(x)).sum(1)
        assert pwcca(x, y) == pytest.approx(alpha @ rho / alpha.sum(), abs=1e-9)


def padded(pair):
    x, y = (centred(a) for a in pair)
    return x, np.pad(y, ((0, 0), (0, x.shape[1] - y.shape[1])))


def test_procrustes_of_scipy(pair):
    """Its disparity of unit shapes is 1 − cos²θ."""
    from scipy.spatial import procrustes as disparity

    assert procrustes(*pair) == pytest.approx(
        np.arccos(np.sqrt(1 - disparity(*padded(pair))[2])), abs=1e-7
    )


def test_procrustes_of_the_best_rotation(pair):
    x, y = padded(pair)
    rotation, _ = sl.orthogonal_procrustes(y, x)
    cosine = np.vdot(x, y @ rotation) / (np.linalg.norm(x) * np.linalg.norm(y))
    assert procrustes(*pair) == pytest.approx(np.arccos(cosine), abs=1e-7)


def test_procrustes_of_grams(pair):
    """‖XᵀY‖₊ is the fidelity tr √(√Kx · Ky · √Kx) of the Gram matrices (Harvey et al. 2024, arXiv
    2311.11436).
    """
    kx, ky = (centred(a) @ centred(a).T for a in pair)
    values, vectors = np.linalg.eigh(kx)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    fidelity = np.sqrt(np.linalg.eigvalsh(root @ ky @ root).clip(0)).sum()
    assert procrustes(*pair) == pytest.approx(
        np.arccos(fidelity / np.sqrt(np.trace(kx) * np.trace(ky))), abs=1e-6
    )


@pytest.mark.parametrize("metric", ["correlation", "sqeuclidean"])
def test_rsa_of_scipy(pair, metric):
    a, b = (pdist(x, metric) for x in pair)
    assert rsa(*pair, metric=metric) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert rsa(*pair, metric=metric, compare="pearson") == pytest.approx(
        pearsonr(a, b).statistic, abs=1e-12
    )
    cosine = a @ b / np.sqrt(a @ a * (b @ b))
    assert rsa(*pair, metric=metric, compare="cosine") == pytest.approx(cosine, abs=1e-12)


@pytest.mark.parametrize("centre", [True, False])
def test_mutual_knn_of_scikit_learn(pair, centre):
    near = []
    for x in pair:
        x = centred(x) if centre else x
        near.append(
            NearestNeighbors(n_neighbors=10, metric="cosine")
            .fit(x)
            .kneighbors(return_distance=False)
        )
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert mutual_knn(*pair, k=10, centre=centre) == pytest.approx(overlap, abs=1e-12)


def test_mutual_knn_of_its_formula(pair):
    """Huh et al. 2024, arXiv 2405.07987, appendix A: top-k of normalised products, mean size of the
    intersection.
    """
    masks = []
    for x in pair:
        f = torch.nn.functional.normalize(torch.from_numpy(x), dim=1)
        nearest = (f @ f.T).fill_diagonal_(-1e8).topk(10, dim=1).indices
        masks.append(torch.zeros(len(x), len(x)).scatter_(1, nearest, 1))
    assert mutual_knn(*pair, k=10, centre=False) == pytest.approx(
        float((masks[0] * masks[1]).sum(1).mean() / 10)
    )


@pytest.mark.parametrize("batch", [10, 30])
def test_minibatch_cka_of_its_formula(pair, batch):
    """HSIC₁ of Song et al. 2012, eq. 5, with its three terms (Nguyen et al. 2021, eq. 3)."""

    def hsic(k, l):
        n, k, l = len(k), k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
        one = np.ones(n)
        terms = (
            np.trace(k @ l),
            (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)),
            2 * (one @ k @ l @ one),
        )
        return (terms[0] + terms[1] - terms[2] / (n - 2)) / (n * (n - 3))

    cuts = [tuple(a[i : i + batch] for a in pair) for i in range(0, 60, batch)]
    grams = [(x @ x.T, y @ y.T) for x, y in cuts]
    kl, kk, ll = (sum(hsic(g[i], g[j]) for g in grams) for i, j in ((0, 1), (0, 0), (1, 1)))
    assert minibatch_cka(cuts) == pytest.approx(kl / np.sqrt(kk * ll), abs=1e-12)


@pytest.fixture
def unit(pair):
    return pair[0] / np.linalg.norm(pair[0], axis=1, keepdims=True)


@pytest.mark.parametrize("q", [0.5, 1, 2, 3, float("inf")])
def test_vendi_of_the_dual(unit, q):
    """K/n and XᵀX/n share their eigenvalues (Friedman & Dieng 2023, section 4.3); orders: Pasarkar
    & Dieng, eq. 2.
    """
    p = np.linalg.svd(unit, compute_uv=False) ** 2 / len(unit)
    p = p[p > 1e-15]
    if q == 1:
        expected = np.exp(-np.sum(p * np.log(p)))
    else:
        expected = 1 / p.max() if np.isinf(q) else np.sum(p**q) ** (1 / (1 - q))
    assert vendi(unit, q=q) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("q", [1, 2, 3, float("inf")])
def test_vendi_of_matrix_functions(unit, q):
    """−tr(ρ ln ρ), tr ρ^q and ‖ρ‖₂ of the density matrix ρ = XᵀX/n, without eigenvalues."""
    rho = unit.T @ unit / len(unit)
    if q == 1:
        expected = np.exp(-np.trace(rho @ sl.logm(rho)).real)
    elif np.isinf(q):
        expected = 1 / np.linalg.norm(rho, 2)
    else:
        expected = np.trace(np.linalg.matrix_power(rho, q)) ** (1 / (1 - q))
    assert vendi(unit, q=q) == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def sets():
    rng = np.random.default_rng(1)
    return rng.normal(size=(40, 3)), 0.8 * rng.normal(size=(30, 3)) + 0.4


def test_prdc_of_its_package(sets):
    peer = pytest.importorskip("prdc")
    theirs = peer.compute_prdc(*sets, nearest_k=4)
    assert prdc(*sets, k=4) == pytest.approx(
        {name: float(value) for name, value in theirs.items()}, abs=1e-12
    )


def test_prdc_of_its_formula(sets):
    """Sample by sample: Kynkäänniemi et al. 2019, eq. 1-2; Naeem et al. 2020, eq. 4-6."""
    k = 4

    def reach(of):
        return [sorted(np.linalg.norm(a - b) for b in of)[k] for a in of]

    real, fake = sets
    ball, other = reach(real), reach(fake)
    inside = [[np.linalg.norm(f - r) < ball[i] for i, r in enumerate(real)] for f in fake]
    expected = {
        "precision": np.mean([any(row) for row in inside]),
        "recall": np.mean(
            [any(np.linalg.norm(r - f) < other[j] for j, f in enumerate(fake)) for r in real]
        ),
        "density": np.sum(inside) / (k * len(fake)),
        "coverage": np.mean([any(column) for column in zip(*inside, strict=True)]),
    }
    assert prdc(*sets, k=k) == pytest.approx(expected, abs=1e-12)


def test_prdc_of_scikit_learn(sets):
    real, fake = sets
    reach, other = (
        NearestNeighbors(n_neighbors=4).fit(a).kneighbors()[0][:, -1] for a in (real, fake)
    )
    apart = NearestNeighbors().fit(fake)
    inside = [
        apart.radius_neighbors([r], np.nextafter(d, 0), return_distance=False)[0]
        for r, d in zip(real, reach, strict=True)
    ]
    counts = np.bincount(np.concatenate(inside).astype(int), minlength=len(fake))
    found = prdc(*sets, k=4)
    assert found["precision"] == pytest.approx((counts > 0).mean())
    assert found["density"] == pytest.approx(counts.mean() / 4)
    assert found["coverage"] == pytest.approx(np.mean([len(i) > 0 for i in inside]))
    covered = NearestNeighbors().fit(real)
    held = [
        covered.radius_neighbors([f], np.nextafter(d, 0), return_distance=False)[0]
        for f, d in zip(fake, other, strict=True)
    ]
    assert found["recall"] == pytest.approx(len(set(np.concatenate(held).tolist())) / len(real))
