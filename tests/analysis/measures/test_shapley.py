"""Shapley values against their definition and their axioms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xhat.analysis.measures.shapley import shapley, subsets


def by_orders(worth: np.ndarray) -> np.ndarray:
    """What each player adds when it comes, averaged over all orders, one by one."""
    players = len(worth).bit_length() - 1
    added = np.zeros((players, *worth.shape[1:]))
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        mask = 0
        for i in order:
            added[i] += worth[mask | 1 << i] - worth[mask]
            mask |= 1 << i
    return added / len(orders)


@given(st.integers(1, 5), st.integers(0, 100))
def test_they_are_the_average_over_all_orders(players, seed):
    worth = np.random.default_rng(seed).normal(size=(2**players, 2, 3))
    np.testing.assert_allclose(shapley(worth), by_orders(worth), atol=1e-12)


@given(st.integers(1, 5), st.integers(0, 100))
def test_they_sum_to_the_whole_and_a_dummy_gets_what_it_adds(players, seed):
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=2**players)
    assert shapley(worth).sum() == pytest.approx(worth[-1] - worth[0])
    alone = rng.normal(size=players)
    additive = np.array([sum(alone[i] for i in members) for members in subsets(players)])
    np.testing.assert_allclose(shapley(additive), alone, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (6, 2)])
def test_the_worth_of_every_set_is_needed(shape):
    with pytest.raises(ValueError, match="all 2ⁿ sets"):
        shapley(np.zeros(shape))
