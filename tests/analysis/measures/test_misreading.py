"""What misreading does to shares and to entropy: undone where it is known, never more than
bounded.
"""

from __future__ import annotations

import numpy as np
import pytest

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.measures.by_seed import entropy_by_seed
from xhat.analysis.measures.misreading import (
    confusion_matrix,
    corrected_entropy_by_seed,
    corrected_shares,
    entropy_bound,
)


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


def test_without_mistakes_it_is_the_jackknifed_entropy():
    labels = np.array([0, 0, 1, 2, 2, 2, 0, 1])
    ours = corrected_entropy_by_seed(labels, np.eye(3))
    np.testing.assert_allclose(ours, entropy_by_seed(labels, 3), atol=1e-12)
    with pytest.raises(ValueError, match="3 or more labels"):
        corrected_entropy_by_seed([0, 1], np.eye(2))


def test_the_interval_of_a_noisy_judge_covers_the_truth_once_it_is_corrected():
    """Collapsed prompts of 48 seeds under a judge that errs in a fifth of its readings: the
    corrected interval covers the true entropy as it claims, the plain one hardly ever."""
    rng, confusion = np.random.default_rng(0), 0.8 * np.eye(4) + 0.2 / 3 * (1 - np.eye(4))
    hits = {"corrected": 0, "plain": 0}
    for _ in range(60):
        values = {name: [] for name in hits}
        truth = []
        for _ in range(24):
            shares = rng.dirichlet([6.0, 2.0, 1.0, 1.0])
            truth.append(entropy(shares))
            true = rng.choice(4, p=shares, size=48)
            u = rng.random(48)
            read = (u[:, None] > confusion[true].cumsum(1)[:, :-1]).sum(1)
            values["corrected"].append(corrected_entropy_by_seed(read, confusion))
            values["plain"].append(entropy_by_seed(read, 4))
        for name, found in values.items():
            interval = crossed_mean(np.array(found) - np.array(truth)[:, None])
            hits[name] += bool(interval.low <= 0 <= interval.high)
    assert hits["corrected"] >= 52  # of 60; 95 % of them are 57, less three standard deviations
    assert hits["plain"] <= 6
