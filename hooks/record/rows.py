"""Rows of a batch, picked and put together through whatever holds the tensors: dicts, lists,
tuples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def take(value: Any, rows: int, index: Any, lists: bool = False) -> Any:
    """``value`` with every tensor of ``rows`` rows cut down to ``index``; everything else as it is.

    ``lists``: whether a list of that length has a sample in each entry.

    >>> take({"a": torch.arange(4), "b": [torch.arange(3), None]}, 4, slice(2, None))
    {'a': tensor([2, 3]), 'b': [tensor([0, 1, 2]), None]}
    """
    if isinstance(value, torch.Tensor):
        return value[index] if value.ndim and len(value) == rows else value
    if isinstance(value, Mapping):
        return {key: take(entry, rows, index, lists) for key, entry in value.items()}
    if lists and isinstance(value, list) and len(value) == rows:
        return value[index] if isinstance(index, slice) else [value[i] for i in index]
    if isinstance(value, list | tuple):
        return type(value)(take(entry, rows, index, lists) for entry in value)
    return value


def joined(first: Any, second: Any, lists: bool = False) -> Any:
    """Two values of the same make, tensors row upon row; of what is no tensor, the second.

    ``lists``: whether lists have a sample in each entry."""
    if isinstance(second, torch.Tensor):
        return torch.cat([first, second]) if second.ndim else second
    if isinstance(second, Mapping):
        return {key: joined(first[key], entry, lists) for key, entry in second.items()}
    if lists and isinstance(second, list):
        return [*first, *second]
    if isinstance(second, list | tuple):
        return type(second)(joined(a, b, lists) for a, b in zip(first, second, strict=True))
    return second
