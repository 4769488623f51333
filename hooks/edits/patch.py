"""Interventions: a pipeline runs as always, but for edits to readings of its denoiser.

Two engines make the same edits: hooks of torch (``native``), and nnsight, as a check on them and
for what is written in its terms."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from einops import rearrange
from torch import nn

from xhat.hooks.edits.edit import Edit, Source
from xhat.hooks.families import branch_count, branch_names, calls_apart
from xhat.hooks.noise import levels as noise
from xhat.hooks.points.names import Denoisers, denoisers_of, modules_at
from xhat.hooks.points.readings import pick_input, pick_output
from xhat.hooks.points.select import Selection, select
from xhat.hooks.points.taps import Listener, Weakly, hooked, listening, listening_to_scheduler

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
        self._close: Any = lambda: None
        self._begin()

    def __enter__(self) -> Patch:
        denoisers = denoisers_of(self.pipe)
        noise.kind(self.pipe.scheduler)
        me = weakref.ref(self)
        with ExitStack() as stack:
            for denoiser in denoisers:
                before = denoiser.register_forward_pre_hook
                start = hooked(denoiser, before, _starting(me), with_kwargs=True, prepend=True)
                stack.enter_context(start)
            for edit, selection in places(denoisers, self.edits):
                for module in modules_at(denoisers, selection.point.path):
                    stack.enter_context(_editing(module, selection.reading, me, edit))
            for denoiser in denoisers:
                if hasattr(denoiser, "cache_context"):
                    stack.enter_context(listening(denoiser, "cache_context", _Branches(me)))
            listeners: dict[str, Listener] = {"set_timesteps": _Begins(me), "step": Weakly(self)}
            stack.enter_context(listening_to_scheduler(self.pipe, listeners))
            self._close = weakref.finalize(self, stack.pop_all().close)
            self._close.atexit = False
        return self

    def __exit__(self, *exception: Any) -> None:
        self._close()
        never = [e.point for i, e in enumerate(self.edits) if i not in self.made]
        if never and exception[0] is None:
            warnings.warn(
                f"never edited: {', '.join(never)}. No step of the call was meant", stacklevel=2
            )

    def _begin(self) -> None:
        self.step, self._first, self._calls = 0, 0, 0
        self.branch: str | None = None  # of a pipeline that calls its denoiser once a branch
        self._levels: noise.NoiseLevels | None = None

    def denoises(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The denoiser is about to be evaluated."""
        if self._levels is None:
            self.start(args[1] if len(args) > 1 else kwargs.get("timestep"))
        apart = calls_apart(self.pipe)
        if apart is not None:
            self.branch = apart[min(self._calls, len(apart) - 1)]
        self._calls += 1
        x = pick_input(args, kwargs)
        rows = 0 if x is None else len(x)
        self.rows = rows if self.branch else rows_of(self.pipe, rows, self.samples)

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
        self.branch = None

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
                    f"{type(self.pipe).__name__} does not say whether it is guided: pass samples=, "
                    "the number of "
                    "samples in a call"
                )
            return edit.change(x, level, None, self.labels)
        branches = list(rearrange(x, "(branch sample) ... -> branch sample ...", sample=self.rows))
        names = (self.branch,) if self.branch else branch_names(self.pipe, len(branches))
        if names is None:
            raise ValueError(
                f"{edit.point!r} has {len(x)} rows for {self.rows} samples: its branches cannot be "
                "told apart. Edit a point that every sample has once a branch"
            )
        done = [
            edit.change(part, level, name, self.labels) if edit.branch in (None, name) else part
            for part, name in zip(branches, names, strict=True)
        ]
        return torch.cat(done) if len(done) > 1 else done[0]


Me = weakref.ref[Patch]


def places(denoiser: Denoisers, edits: Iterable[Edit]) -> list[Place]:
    """Each edit with each reading that its name means, in the order of the edits."""
    return [(edit, selection) for edit in edits for selection in select(denoiser, [edit.point])]


def rows_of(pipe: Any, batch: int, samples: int | None) -> int | None:
    """Samples in a call of the denoiser with ``batch`` rows, of all branches together; None if the
    pipeline does not say how many branches it runs."""
    if samples is not None:
        return samples
    branches = branch_count(pipe)
    return None if branches is None else batch // branches


def _starting(patch: Me) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        me = patch()
        if me is not None:
            me.denoises(args, kwargs)

    return hook


def _editing(
    module: nn.Module, reading: str, patch: Me, edit: Edit
) -> AbstractContextManager[None]:
    """Hooks that edit a module's reading, for as long as the block runs."""

    def change(x: torch.Tensor) -> torch.Tensor:
        me = patch()
        return x if me is None else me.change(edit, x, me.step)

    if reading == "input":
        before = module.register_forward_pre_hook
        return hooked(module, before, lambda m, a, k: with_input(a, k, change), with_kwargs=True)

    def hook(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before = pick_input(args, kwargs) if reading == "delta" else None

        def new(x: torch.Tensor) -> torch.Tensor:
            return change(x) if before is None else _with_delta(m, before, x, change)

        return with_output(m, output, new)

    return hooked(module, module.register_forward_hook, hook, with_kwargs=True)


def _with_delta(
    module: nn.Module, before: torch.Tensor, after: torch.Tensor, change: Any
) -> torch.Tensor:
    if before.shape != after.shape:
        raise ValueError(f"{type(module).__name__} has no residual delta: edit its output instead")
    delta = after - before
    changed = change(delta)  # the sum of a difference is not the same bits
    return after if changed is delta else before + changed


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
    """A new schedule begins a new call."""

    def __init__(self, patch: Me) -> None:
        self.patch = patch

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        patch = self.patch()
        if patch is not None:
            patch._begin()

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass


class _Branches:
    """A pipeline that calls its denoiser once a branch says which: ``cache_context("cond")``."""

    def __init__(self, patch: Me) -> None:
        self.patch = patch

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        patch = self.patch()
        if patch is not None:
            patch.branch = args[0] if args else kwargs.get("name")

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass
