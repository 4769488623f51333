"""A pipeline call without its arithmetic: how many steps, which shapes, how many bytes.

The pipeline runs as always, prompt included, but its denoiser sees tensors without data (torch's
fake tensors) and answers zeros. Nothing of it stays: neither hooks, nor the scheduler's state, nor
a draw from a random generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._pytree import tree_leaves, tree_map

from xhat.hooks.points.names import Point, denoisers_of, modules_at, parts_of
from xhat.hooks.points.readings import pick_output
from xhat.hooks.points.select import Selection
from xhat.hooks.points.taps import hooked, listening, quiet

Shape = tuple[tuple[int, ...], torch.dtype]


@dataclass
class Rehearsal:
    """``outputs``: path of a point → (shape, dtype) of its first output, rows of the batch
    included; ``fired``: how often each was called; ``latents``: (shape, dtype) of x_t; ``steps``:
    calls of ``scheduler.step``."""

    outputs: dict[str, Shape] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)
    latents: Shape | None = None
    steps: int = 0

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[2] if len(args) > 2 else kwargs["sample"]
        self.latents = self.latents or (tuple(sample.shape), sample.dtype)
        self.steps += 1

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass

    def bytes_of(self, selections: Sequence[Selection]) -> int:
        """Bytes that a trace of one sample holds: root variables in float32, and each selected
        reading as reduced.
        """
        if self.latents is None:
            return 0
        shape, _ = self.latents
        root = 4 * torch.Size(shape).numel() // shape[0] * (3 * self.steps + 1)
        return root + sum(self._reduced(s) * self.fired[s.point.path] for s in selections)

    def _reduced(self, selection: Selection) -> int:
        """Bytes of one firing of a reading. Attention probabilities are not seen here: their size
        is that of a mean.
        """
        if selection.point.path not in self.outputs or self.latents is None:
            return 0
        shape, dtype = self.outputs[selection.point.path]
        # of the meta device and not fake: a reduction keeps what it made, and real tensors would be
        # given it
        kept = selection.reduction(torch.empty(shape, dtype=dtype, device="meta"))
        return kept.numel() * kept.element_size() // self.latents[0][0]


def rehearse(pipe: Any, points: Sequence[Point], **call_kwargs: Any) -> Rehearsal:
    """Run ``pipe(**call_kwargs)`` on one prompt without data, and note what happened at
    ``points``.
    """
    denoisers = denoisers_of(pipe)
    seen = Rehearsal()
    arguments = {"prompt": "a", "output_type": "latent"} | {
        k: v for k, v in call_kwargs.items() if not k.startswith("callback")
    }  # callbacks are for the run itself
    arguments["generator"] = torch.Generator().manual_seed(0)
    with torch.no_grad(), quiet(pipe), _state_restored(pipe.scheduler), ExitStack() as stack:
        for point in points:
            for module in modules_at(denoisers, point.path):
                note = _note(seen, point.path)
                stack.enter_context(hooked(module, module.register_forward_hook, note))
        for network in parts_of(denoisers):
            stack.enter_context(_without_data(network, seen))
        stack.enter_context(listening(pipe.scheduler, "step", seen))
        pipe(**arguments)
    return seen


def _note(seen: Rehearsal, path: str) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensor = pick_output(module, args, {}, output)
        if tensor is not None:
            seen.outputs.setdefault(path, (tuple(tensor.shape), tensor.dtype))
            seen.fired[path] += 1

    return hook


@contextmanager
def _state_restored(scheduler: Any) -> Iterator[None]:
    before = dict(vars(scheduler))
    try:
        yield
    finally:
        vars(scheduler).clear()
        vars(scheduler).update(before)


@contextmanager
def _without_data(network: nn.Module, seen: Rehearsal) -> Iterator[None]:
    """The network runs on fake tensors and answers zeros of the right shape: once for each shape of
    its input, and from memory after that."""
    forward, on_instance = network.forward, "forward" in vars(network)
    known: dict[Any, tuple[Any, Counter[str]]] = {}

    def fake(*args: Any, **kwargs: Any) -> Any:
        key = tuple(_form(x) for x in tree_leaves((args, kwargs)))
        if key not in known:
            before = Counter(seen.fired)
            known[key] = _without_arithmetic(forward, args, kwargs), seen.fired - before
        else:
            seen.fired.update(known[key][1])
        return tree_map(_zeros, known[key][0])

    network.forward = fake
    try:
        yield
    finally:
        if on_instance:
            network.forward = forward
        else:
            del network.forward


def _without_arithmetic(forward: Any, args: Any, kwargs: Any) -> Any:
    """What ``forward`` gives on tensors without data; on those with it, where shapes depend on what
    is in them.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            inputs = tree_map(
                lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x, (args, kwargs)
            )
            return forward(*inputs[0], **inputs[1])
    except (DataDependentOutputException, DynamicOutputShapeException):
        return forward(*args, **kwargs)


def _form(x: Any) -> Any:
    return (tuple(x.shape), x.dtype) if isinstance(x, torch.Tensor) else repr(x)


def _zeros(x: Any) -> Any:
    return (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) if isinstance(x, torch.Tensor) else x
    )
