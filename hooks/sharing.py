"""Two networks over one set of weights."""

from __future__ import annotations

import copy

from torch import nn


def sharing(network: nn.Module) -> nn.Module:
    """A copy of a network's modules over the very same weights: what is added to one is not in the
    other.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> twin = sharing(layer)
    >>> twin is layer, twin.weight is layer.weight
    (False, True)
    """
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(t): t for t in tensors})
