"""What misreading does to shares and to entropy: undone where it is known, never more than
bounded.
"""

from __future__ import annotations

import numpy as np
import pytest

from xhat.analysis.measures.misreading import confusion_matrix, corrected_shares, entropy_bound


def entropy(shares):
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum() / np.log(len(shares)))


def test_a_known_confusion_is_undone():
    """10,000 pictures read by a judge whose confusion was measured on 10,000 others."""
    rng = np.random.default_rng(0)
    confusion = np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.1, 0.1, 0.8]])
    shares = np.array([0.85, 0.1, 0.05])

    def read(labels):
        u = rng.random(len(labels))
        return (u[:, None] > confusion[labels].cumsum(1)[:, :-1]).sum(1)

    known = rng.integers(3, size=10_000)
    measured = confusion_matrix(known, read(known), 3)
    np.testing.assert_allclose(measured, confusion, atol=0.02)
    seen = read(rng.choice(3, p=shares, size=10_000))
    observed = np.bincount(seen, minlength=3) / len(seen)
    assert abs(entropy(observed) - entropy(shares)) > 0.1  # mistakes hide collapse
    corrected = corrected_shares(observed, measured)
    np.testing.assert_allclose(corrected, shares, atol=0.03)
    assert abs(entropy(corrected) - entropy(shares)) < 0.05


def test_shares_stay_shares_where_readings_are_impossible():
    corrected = corrected_shares([1.0, 0.0], [[0.9, 0.1], [0.1, 0.9]])
    np.testing.assert_allclose(corrected, [1, 0])


@pytest.mark.parametrize("n", [2, 3, 7])
def test_no_misreading_passes_the_bound_and_one_meets_it(n):
    rng = np.random.default_rng(1)
    for error in (0.01, 0.1, 0.3):
        bound = float(entropy_bound(error, n))
        for _ in range(200):
            p = rng.dirichlet(np.full(n, 0.3))
            taken = error * rng.dirichlet(np.full(n, 0.3)).clip(max=1)
            taken = np.minimum(taken, p)
            q = p - taken + taken.sum() * rng.dirichlet(np.full(n, 0.3))
            assert abs(entropy(p) - entropy(q)) <= bound + 1e-12
        certain = np.eye(n)[0]
        worst = np.full(n, error / (n - 1))
        worst[0] = 1 - error
        assert entropy(worst) - entropy(certain) == pytest.approx(bound)
    assert float(entropy_bound(1 - 1 / n, n)) == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: confusion_matrix([0, 0], [0, 1], 2), "no picture has the value 1"),
        (lambda: confusion_matrix([0], [0, 1], 2), "two .n,. lists"),
        (lambda: corrected_shares([0.5, 0.5], np.eye(3)), "confusion of as many values"),
        (lambda: corrected_shares([0.5, 0.5], np.full((2, 2), 0.5)), "reads two values alike"),
        (lambda: entropy_bound(1.2, 3), "from 0 to 1"),
        (lambda: entropy_bound(0.1, 1), "two or more values"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(ValueError, match=says):
        call()
