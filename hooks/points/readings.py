"""Readings of a module: its output, its input, what it adds, and its attention: all probabilities,
or those from the picture to the tokens of the prompt, the mean over heads.

A hook gives what it reads, reduced, to a sink; it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from xhat.hooks.families import IMAGE_LAST
from xhat.hooks.points.attention import Attention, Sink
from xhat.hooks.points.reductions import Reduction
from xhat.hooks.points.taps import hooked
from xhat.hooks.points.text_tokens import PromptPart


def pick_output(
    module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
) -> torch.Tensor | None:
    """The image stream among what a module gives: a tensor, or the one of a tuple or of a model
    output.
    """
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "sample"):
        return output.sample
    tensors = (
        [x for x in output if isinstance(x, torch.Tensor)]
        if isinstance(output, tuple | list)
        else []
    )
    if not tensors:
        return None
    return tensors[-1] if type(module).__name__ in IMAGE_LAST else tensors[0]


def pick_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The image stream among what a module is given: ``hidden_states`` or ``sample``, or the first
    tensor.
    """
    for name in ("hidden_states", "sample"):
        if isinstance(kwargs.get(name), torch.Tensor):
            return kwargs[name]
    return next((x for x in args if isinstance(x, torch.Tensor)), None)


@contextmanager
def attached(module: nn.Module, reading: str, reduction: Reduction, sink: Sink) -> Iterator[None]:
    """For as long as the block runs, ``sink`` is given the reduced reading of every call."""
    after = module.register_forward_hook
    with ExitStack() as stack:
        match reading:
            case "output":
                stack.enter_context(hooked(module, after, _output_hook(reduction, sink)))
            case "probs":
                seen = Attention(reduction, sink)
                before, hook = module.register_forward_pre_hook, _enter_hook(seen)
                stack.enter_context(hooked(module, before, hook, with_kwargs=True))
                stack.enter_context(hooked(module, after, seen.leave, always_call=True))
            case "tokens":
                part = PromptPart()
                seen = Attention(part, lambda heads: sink(reduction(heads.mean(1))))
                before = module.register_forward_pre_hook
                stack.enter_context(hooked(module, before, part.enter, with_kwargs=True))
                stack.enter_context(hooked(module, before, _enter_hook(seen), with_kwargs=True))
                stack.enter_context(hooked(module, after, seen.leave, always_call=True))
            case _:
                make = _input_hook if reading == "input" else _delta_hook
                hook = make(reduction, sink)
                stack.enter_context(hooked(module, after, hook, with_kwargs=True))
        yield


def _enter_hook(seen: Attention) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = pick_input(args, kwargs)
        seen.enter(module, None if given is None else len(given))

    return hook


def _output_hook(reduction: Reduction, sink: Sink) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensor = (
            output if isinstance(output, torch.Tensor) else pick_output(module, args, {}, output)
        )
        if tensor is not None:
            sink(reduction(tensor.detach()))

    return hook


def _input_hook(reduction: Reduction, sink: Sink) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = pick_input(args, kwargs)
        if tensor is not None:
            sink(reduction(tensor.detach()))

    return hook


def _delta_hook(reduction: Reduction, sink: Sink) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        after, before = pick_output(module, args, kwargs, output), pick_input(args, kwargs)
        if after is None or before is None or after.shape != before.shape:
            shapes = [None if t is None else tuple(t.shape) for t in (before, after)]
            raise ValueError(
                f"{type(module).__name__} has no residual delta: input {shapes[0]}, output "
                f"{shapes[1]}; "
                "read its output instead"
            )
        sink(reduction((after - before).detach()))

    return hook
