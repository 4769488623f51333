"""Shapley values: what each step adds to a whole, however many of the other steps are made the
same way.
"""

from __future__ import annotations

from math import factorial
from typing import Any

import numpy as np


def subsets(players: int) -> list[tuple[int, ...]]:
    """All sets of players, by the number whose bits they are.

    >>> subsets(2)
    [(), (0,), (1,), (0, 1)]
    """
    return [tuple(i for i in range(players) if mask >> i & 1) for mask in range(2**players)]


def shapley(values: Any) -> np.ndarray:
    """(n, …) the Shapley value of each of n players, exact, from the worth of every set of them.

    φᵢ = Σ over sets S without i of |S|!·(n − |S| − 1)!/n! · (v(S ∪ i) − v(S)): what i adds,
    averaged over all orders in which the players may come. They sum to v(all) − v(none).

    Parameters
    ----------
    values
        (2ⁿ, …) the worth of every set, in the order of :func:`subsets`.

    Raises
    ------
    ValueError
        Where the number of values is not a power of two above one.

    References
    ----------
    Shapley 1953, "A value for n-person games", doi:10.1515/9781400881970-018.

    Examples
    --------
    A pair of gloves, a left one of player 0, right ones of players 1 and 2:

    >>> shapley([0, 0, 0, 1, 0, 1, 0, 1]).round(4).tolist()
    [0.6667, 0.1667, 0.1667]
    """
    worth = np.asarray(values, dtype=np.float64)
    players = len(worth).bit_length() - 1 if worth.ndim else 0
    if players < 1 or len(worth) != 2**players:
        raise ValueError(
            f"Shapley values need the worth of all 2ⁿ sets of n players, got shape {worth.shape}"
        )
    return np.tensordot(_weights(players), worth, axes=1)


def _weights(players: int) -> np.ndarray:
    """(n, 2ⁿ) with which the worth of each set enters each player's value."""
    weights = np.zeros((players, 2**players))
    for mask, members in enumerate(subsets(players)):
        size = len(members)
        for i in range(players):
            others = size - 1 if i in members else size
            share = factorial(others) * factorial(players - others - 1) / factorial(players)
            weights[i, mask] = share if i in members else -share
    return weights
