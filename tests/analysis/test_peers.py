"""Values against other people's implementations, where they are installed; to this package's conventions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xhat.analysis.similarity import cka, cka_matrix, minibatch_cka, rsa


@pytest.fixture
def xs():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(20, 6))
    return [np.tanh(base @ rng.normal(size=(6, p))) + 0.2 * rng.normal(size=(20, p)) for p in (6, 6, 6, 6)]


def test_cka_of_pytorch_cka(xs):
    peer = pytest.importorskip("cka")
    theirs = peer.cka_from_features([torch.from_numpy(x) for x in xs], [torch.from_numpy(x) for x in xs])
    np.testing.assert_allclose(cka_matrix(xs), theirs, atol=1e-5)


def test_hsic_of_torch_cka(xs):
    peer = pytest.importorskip("torch_cka")

    def hsic(x, y):
        k, l = (torch.from_numpy(a @ a.T).float().fill_diagonal_(0) for a in (x, y))
        return peer.CKA._HSIC(SimpleNamespace(device="cpu"), k, l)

    x, y = xs[:2]
    assert cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)), abs=1e-5)
    halves = [(x[:10], y[:10]), (x[10:], y[10:])]
    sums = [sum(hsic(p, q) for p, q in pairs) for pairs in (halves, *([(h[i],) * 2 for h in halves] for i in (0, 1)))]
    assert minibatch_cka(halves) == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), abs=1e-5)


@pytest.mark.parametrize("metric", ["correlation", "sqeuclidean"])
@pytest.mark.parametrize("compare", ["spearman", "pearson", "cosine"])
def test_rsa_of_rsatoolbox(xs, metric, compare):
    peer = pytest.importorskip("rsatoolbox")
    method = {"sqeuclidean": "euclidean"}.get(metric, metric)  # its "euclidean" is squared, over the number of features
    a, b = (peer.rdm.calc_rdm(peer.data.Dataset(x), method=method) for x in xs[:2])
    theirs = peer.rdm.compare(a, b, method={"pearson": "corr"}.get(compare, compare))
    assert rsa(*xs[:2], metric=metric, compare=compare) == pytest.approx(float(theirs[0, 0]), abs=1e-9)
