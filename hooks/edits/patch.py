"""Interventions: a pipeline runs as always, but for edits to readings of its denoiser.

Two engines make the same edits: hooks of torch (``native``), and nnsight, as a check on them and
for what is written in its terms."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from xhat.hooks.edits.edit import Edit, Source
from xhat.hooks.noise import levels as noise
from xhat.hooks.points.names import denoiser_of, modules_at
from xhat.hooks.points.select import Selection, select
from xhat.hooks.points.taps import listening, pick_input, pick_output

Place = tuple[Edit, Selection]


class Patch:
    """Within its block, every call of the pipeline runs with ``edits``; what is edited first is
    read by later ones, and by a trace of the same call.

    ``samples``: how many there are in a call (without guidance's halves), for pipelines that do not
    say whether they are guided. Raises ValueError on entry for names that match nothing and a
    compiled denoiser; in a call, for values that do not fit; warns at the end of edits that were
    never made."""

    def __init__(self, pipe: Any, edits: Iterable[Edit], samples: int | None = None) -> None:
        self.pipe, self.edits, self.samples = pipe, tuple(edits), samples
        self.labels: Sequence[tuple[str, int]] | None = None
        self.made: set[int] = set()
        self._stack = ExitStack()
        self._begin()

    def __enter__(self) -> Patch:
        denoiser = denoiser_of(self.pipe)
        noise.kind(self.pipe.scheduler)
        with ExitStack() as stack:
            handle = denoiser.register_forward_pre_hook(
                self._denoises, with_kwargs=True, prepend=True
            )
            stack.callback(handle.remove)
            for edit, selection in places(denoiser, self.edits):
                for module in modules_at(denoiser, selection.point.path):
                    stack.callback(_hook(module, selection.reading, self, edit).remove)
            stack.enter_context(listening(self.pipe.scheduler, "set_timesteps", _Begins(self)))
            stack.enter_context(listening(self.pipe.scheduler, "step", self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()
        never = [e.point for i, e in enumerate(self.edits) if i not in self.made]
        if never and exception[0] is None:
            warnings.warn(
                f"never edited: {', '.join(never)}. No step of the call was meant", stacklevel=2
            )

    def _begin(self) -> None:
        self.step, self._first = 0, 0
        self._levels: noise.NoiseLevels | None = None

    def _denoises(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._levels is None:
            self.start(args[1] if len(args) > 1 else kwargs.get("timestep"))
        x = pick_input(args, kwargs)
        self.rows = rows_of(self.pipe, 0 if x is None else len(x), self.samples)

    def start(self, timestep: Any = None) -> None:
        """The schedule is set and the first evaluation is about to be made, at ``timestep``."""
        scheduler = self.pipe.scheduler
        self._levels = noise.noise_levels(scheduler)
        t = None if timestep is None else float(torch.as_tensor(timestep).reshape(-1)[0])
        begin = getattr(scheduler, "begin_index", None)
        found = None if t is None else noise.step_index(scheduler, t)
        self._first = begin if begin is not None else found or 0

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pass

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self.step += 1

    def change(self, edit: Edit, x: torch.Tensor, step: int) -> torch.Tensor:
        """The reading ``x`` (all rows of the batch) after ``edit`` at a step, itself where the edit
        is not meant.
        """
        assert self._levels is not None
        level = self._levels[min(self._first + step, len(self._levels) - 1)]
        if not edit.applies(step, level):
            return x
        self.made.add(next(i for i, e in enumerate(self.edits) if e is edit))
        if self.rows is None:
            if edit.branch is not None or isinstance(edit.value, Source):
                raise ValueError(
                    f"{type(self.pipe).__name__} does not say whether it is guided: pass samples=, the number of "
                    "samples in a call"
                )
            return edit.change(x, level, None, self.labels)
        branches = x.unflatten(0, (-1, self.rows)).unbind(0)
        names = ("uncond", "cond") if len(branches) == 2 else ("cond",) * len(branches)
        done = [
            edit.change(part, level, name, self.labels) if edit.branch in (None, name) else part
            for part, name in zip(branches, names, strict=True)
        ]
        return torch.cat(done) if len(done) > 1 else done[0]


def patched(
    pipe: Any,
    edits: Iterable[Edit],
    *,
    backend: str = "native",
    samples: int | None = None,
    **call: Any,
) -> Any:
    """What ``pipe(**call)`` returns when it runs with ``edits``.

    ``backend``: ``"native"``, or ``"nnsight"`` (edits of outputs alone, and pipelines of one
    network). Raises ValueError as :class:`Patch` does."""
    if backend == "nnsight":
        from xhat.hooks.edits.nnsight_engine import run

        return run(pipe, tuple(edits), samples, call)
    if backend != "native":
        raise ValueError(f"backend={backend!r}: expected 'native' or 'nnsight'")
    with Patch(pipe, edits, samples):
        return pipe(**call)


def places(denoiser: nn.Module, edits: Iterable[Edit]) -> list[Place]:
    """Each edit with each reading that its name means, in the order of the edits."""
    return [(edit, selection) for edit in edits for selection in select(denoiser, [edit.point])]


def rows_of(pipe: Any, batch: int, samples: int | None) -> int | None:
    """Samples in a call of the denoiser with ``batch`` rows: half of them under guidance; None if
    the pipeline does not say."""
    if samples is not None:
        return samples
    guided = getattr(pipe, "do_classifier_free_guidance", None)
    return None if guided is None else batch // (2 if guided else 1)


def _hook(module: nn.Module, reading: str, patch: Patch, edit: Edit) -> Any:
    if reading == "input":
        return module.register_forward_pre_hook(
            lambda m, args, kwargs: with_input(
                args, kwargs, lambda x: patch.change(edit, x, patch.step)
            ),
            with_kwargs=True,
        )

    def hook(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before = pick_input(args, kwargs) if reading == "delta" else None

        def new(x: torch.Tensor) -> torch.Tensor:
            if before is None:
                return patch.change(edit, x, patch.step)
            if before.shape != x.shape:
                raise ValueError(
                    f"{type(m).__name__} has no residual delta: edit its output instead"
                )
            delta = x - before
            changed = patch.change(edit, delta, patch.step)
            return (
                x if changed is delta else before + changed
            )  # the sum of a difference is not the same bits

        return with_output(m, output, new)

    return module.register_forward_hook(hook, with_kwargs=True)


def with_output(module: nn.Module, output: Any, new: Any) -> Any:
    """A module's output with the image stream replaced by ``new`` of it, all else as it was."""
    x = pick_output(module, (), {}, output)
    if x is None:
        raise ValueError(f"{type(module).__name__} gives no tensor that could be edited")
    y = new(x)
    if isinstance(output, torch.Tensor):
        return y
    if hasattr(output, "sample"):
        return type(output)(**{**output, "sample": y})
    return type(output)(y if part is x else part for part in output)


def with_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], new: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A module's arguments with the image stream replaced by ``new`` of it."""
    x = pick_input(args, kwargs)
    if x is None:
        return args, kwargs
    y = new(x)
    return tuple(y if a is x else a for a in args), {
        k: y if v is x else v for k, v in kwargs.items()
    }


class _Begins:
    def __init__(self, patch: Patch) -> None:
        self.patch = patch

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.patch._begin()

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass
