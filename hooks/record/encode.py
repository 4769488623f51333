"""Prompts are encoded once, however many batches of seeds they are sampled in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

KEPT = 8  # answers kept of each text encoder: a batch's prompts, and its negative ones


@contextmanager
def encoded_once(pipe: Any) -> Iterator[None]:
    """Within the block, the pipeline's text encoders answer from memory what they were just asked.

    The pipeline calls them as always, and gets copies of the very bits that they gave the first
    time for the same tokens. An encoder in training mode, whose dropout makes each answer another,
    is left alone."""
    with ExitStack() as stack:
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            encoder = getattr(pipe, name, None)
            if isinstance(encoder, nn.Module) and not encoder.training:
                stack.enter_context(_remembering(encoder))
        yield


@contextmanager
def _remembering(encoder: nn.Module) -> Iterator[None]:
    forward, own = encoder.forward, "forward" in vars(encoder)
    known: OrderedDict[Any, Any] = OrderedDict()

    def remembered(*args: Any, **kwargs: Any) -> Any:
        key = _key((args, kwargs))
        if key not in known:
            known[key] = forward(*args, **kwargs)
            if len(known) > KEPT:
                known.popitem(last=False)
        known.move_to_end(key)
        return tree_map(_copy, known[key])

    encoder.forward = remembered
    try:
        yield
    finally:
        if own:
            encoder.forward = forward
        else:
            del encoder.forward


def _key(arguments: Any) -> Any:
    """What makes two calls the same: structure, and the content of every tensor."""
    leaves, structure = tree_flatten(arguments)
    return str(structure), tuple(_content(x) for x in leaves)


def _content(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return tuple(x.shape), x.dtype, x.device, tuple(x.detach().reshape(-1).tolist())
    return type(x).__name__, repr(x)


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x
