"""The middle of a network, and taps on what it computes there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from xhat.hooks.points.names import named_points, parts_of
from xhat.hooks.points.readings import pick_output
from xhat.samplers.composite.run import Run
from xhat.samplers.composite.tap import Tap, differs


def middle_of(part: nn.Module) -> nn.Module:
    """The middle block of a UNet (its h-space, Kwon et al., arXiv 2210.10960), or of a transformer
    the block in the middle of its first stack.

    Raises ValueError for a network that has neither.
    """
    paths = {point.alias: point.path for point in named_points(part)}
    if "h" in paths:
        return part.get_submodule(paths["h"])
    blocks = [path for alias, path in paths.items() if _numbered(alias, "block")]
    blocks = blocks or [path for alias, path in paths.items() if _numbered(alias, "single")]
    if not blocks:
        raise ValueError(
            f"{type(part).__name__} has neither a middle block nor a stack of blocks: its features "
            "cannot be changed by a tap"
        )
    return part.get_submodule(blocks[(len(blocks) - 1) // 2])


def _numbered(alias: str, word: str) -> bool:
    first, _, number = alias.partition(".")
    return first == word and (number.isdigit() or not number)


@contextmanager
def changing_middle(
    network: nn.Module, taps: Sequence[Tap], run: Run, rows: int, cond_first: bool
) -> Iterator[None]:
    """For as long as the block runs, the output of the network's middle is what ``taps`` make of
    it, in the conditional branch alone. ``rows``: samples in a branch.
    """
    numbers = [i for i, tap in enumerate(taps) if type(tap).features is not Tap.features]
    if not numbers:
        yield
        return

    def change(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        h = pick_output(module, args, kwargs, output)
        if h is None or len(h) not in (rows, 2 * rows):
            shape = None if h is None else tuple(h.shape)
            raise ValueError(
                f"{type(module).__name__} gives {shape} for {rows} samples: its features cannot be "
                "changed by a tap, which needs a row a sample"
            )
        branch = slice(None) if len(h) == rows else slice(rows) if cond_first else slice(rows, None)
        x = given = h[branch]
        for number in numbers:
            before, x = x, taps[number].features(run, x)
            if x is not before and differs(x, before):
                run.note_change(number)
        if x is given:
            return output
        changed = h.clone()
        changed[branch] = x.to(h.dtype)
        return _with(output, h, changed)

    middles = [middle_of(part) for part in parts_of(network)]
    handles = [m.register_forward_hook(change, with_kwargs=True) for m in middles]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with(output: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """A module's output with one tensor in the place of another."""
    if output is old:
        return new
    if isinstance(output, tuple | list):
        return type(output)(new if part is old else part for part in output)
    output.sample = new
    return output
