"""Listens to a pipeline and makes a :class:`~xhat.hooks.record.record.Record` of every call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from xhat.hooks.noise import draws
from xhat.hooks.noise import levels as noise
from xhat.hooks.points.names import denoiser_of, modules_at
from xhat.hooks.points.select import Selection, select
from xhat.hooks.points.taps import attach, listening
from xhat.hooks.record.final import Decoded
from xhat.hooks.record.record import Firing, Record, Step

_COND_FIRST = {"ZImageTransformer2DModel"}  # whose pipeline stacks (conditional, unconditional)


class Recorder:
    """Within its block, every call of the pipeline is recorded; ``take`` gives the records so far.

    Names are resolved on entry, so that adapters loaded before are seen. Raises ValueError for a
    scheduler whose noise levels are not known, a name that matches nothing, and hooks on a compiled
    denoiser."""

    def __init__(
        self,
        pipe: Any,
        hooks: Mapping[str, Any] | Iterable[str] = (),
        size: tuple[int, int] | None = None,
    ) -> None:
        self.pipe, self.hooks, self.size = pipe, hooks, size
        self.selections: tuple[Selection, ...] = ()
        self._records: list[Record] = []
        self._stack = ExitStack()
        self._fresh()

    def __enter__(self) -> Recorder:
        denoiser, scheduler = denoiser_of(self.pipe), self.pipe.scheduler
        noise.kind(scheduler)
        noise.prediction(scheduler)
        self.selections = select(denoiser, self.hooks)
        with ExitStack() as stack:
            for i, selection in enumerate(self.selections):
                for module in modules_at(denoiser, selection.point.path):
                    self._listen_at(stack, module, i, selection)
            stack.enter_context(listening(scheduler, "set_timesteps", _Starts(self)))
            stack.enter_context(listening(scheduler, "step", self))
            if hasattr(getattr(self.pipe, "vae", None), "decode"):
                decoded = Decoded(lambda: self._record)
                stack.enter_context(listening(self.pipe.vae, "decode", decoded))
            if hasattr(denoiser, "cache_context"):
                stack.enter_context(listening(denoiser, "cache_context", _Branches(self)))
            self._stack = stack.pop_all()
        return self

    def _listen_at(self, stack: ExitStack, module: nn.Module, i: int, s: Selection) -> None:
        for handle in attach(module, s.reading, s.reduction, lambda value: self._fire(i, value)):
            stack.callback(handle.remove)

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()
        self._end()

    def take(self) -> list[Record]:
        """The calls recorded since the last ``take``, the one now under way included."""
        self._end()
        records, self._records = self._records, []
        return records

    def _fresh(self) -> None:
        self._record = Record()
        self._pending: dict[int, list[Firing]] = {}
        self._branch: str | None = None
        self._last: torch.Tensor | None = None
        self._changes: list[torch.Tensor] = []  # whether latents are not those of the step before
        self._copies = Copies()
        self._levels: noise.NoiseLevels | None = None
        self._first = 0
        self._step: int | None = None
        self._states: list[torch.Tensor] = []

    def _end(self) -> None:
        record = self._record
        if record.steps:
            if self._last is not None:
                record.final = self._copies(unpacked(self.pipe, self._last, self.size))
            record.changed = any(bool(change) for change in self._changes)
            self._copies.wait()
            self._records.append(record)
        self._fresh()

    def _fire(self, i: int, value: torch.Tensor) -> None:
        fired = self._pending.setdefault(i, [])
        place = None if fired else self._place(i, value)
        fired.append(Firing(self._copies(value, place), self._branch))

    def _place(self, i: int, value: torch.Tensor) -> torch.Tensor | None:
        """Where a point's first reading of a step goes: side by side with those of the other steps,
        so that nothing is copied twice. None where the schedule is longer than it said, or the
        shape is another."""
        step, shelves = len(self._record.steps), self._record.shelves
        if step == 0 and i not in shelves:
            count = len(getattr(self.pipe.scheduler, "timesteps", ()))
            shelves[i] = self._copies.room((count, *value.shape), value)
        shelf = shelves.get(i, None)
        return (
            shelf[step]
            if shelf is not None and step < len(shelf) and shelf.shape[1:] == value.shape
            else None
        )

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        output, timestep, x_t = _arguments(args, kwargs)
        if self._last is not None and self._last.shape == x_t.shape:
            self._changes.append((self._last != x_t).any())
        scheduler = self.pipe.scheduler
        if not self._record.steps:
            self._begin(scheduler, timestep)
        self._step = None if self._levels is None else self._first + len(self._record.steps)
        if self._levels is not None and self._step is not None and self._step < len(self._levels):
            level = self._levels[self._step]
        else:
            level = noise.noise_level(scheduler, timestep)
        x0 = noise.x0_at(scheduler, output, level, x_t, self._step)
        kept = (self._copies(unpacked(self.pipe, x, self.size)) for x in (x_t, output, x0))
        space = noise.space(noise.in_charge(scheduler, self._step)[0])
        self._record.steps.append(
            Step(level, space, self._segment(scheduler), self._pending, *kept)
        )
        self._pending, self._branch = {}, None
        self._generators = draws.generators_of(kwargs.get("generator"), x_t.device)
        self._states = draws.states(self._generators)

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        x_next = result[0] if isinstance(result, tuple) else result.prev_sample
        self._last = x_next
        if draws.unchanged(self._states, self._generators):
            return
        self._record.random = True
        output = _arguments(args, kwargs)[0]
        drawn = draws.replay(
            self._generators,
            self._states,
            output,
            noise.in_charge(self.pipe.scheduler, self._step)[0],
        )
        if drawn is None:
            self._record.lost = True
        else:
            self._record.steps[-1].noise = self._copies(unpacked(self.pipe, drawn, self.size))

    def _begin(self, scheduler: Any, timestep: Any) -> None:
        self._record.cond_first = type(denoiser_of(self.pipe)).__name__ in _COND_FIRST
        first = noise.step_index(scheduler, timestep)
        self._levels = None if first is None else noise.noise_levels(scheduler)
        self._first = first or 0

    def _segment(self, scheduler: Any) -> str | None:
        names = getattr(scheduler, "segment_of_step", None)
        return (
            names[self._step]
            if names and self._step is not None and self._step < len(names)
            else None
        )


class _Starts:
    """A new schedule is the beginning of a new call."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.recorder._end()

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass


class _Branches:
    """Pipelines that call the denoiser once a branch say which before they do:
    ``cache_context("cond")``.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.recorder._branch = args[0] if args else kwargs.get("name")

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass


class Copies:
    """Tensors on their way to the host. From a GPU they travel on a stream of their own, beside the
    next step.

    What travels is a snapshot made on the device, in the order of its work: the network may change
    the tensor in place before the copy has left. Host memory is pinned, or the copy would not be
    asynchronous, and is read after :meth:`wait`."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}

    def room(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """Host memory of that shape, to copy into."""
        return torch.empty(shape, dtype=like.dtype, pin_memory=like.device.type == "cuda")

    def __call__(self, x: torch.Tensor, host: torch.Tensor | None = None) -> torch.Tensor:
        x = x.detach()
        host = self.room(tuple(x.shape), x) if host is None else host
        if x.device.type != "cuda":
            return host.copy_(x)
        x = x.clone()
        if x.device not in self._streams:
            self._streams[x.device] = torch.cuda.Stream(x.device)
        stream = self._streams[x.device]
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            host.copy_(x, non_blocking=True)
        x.record_stream(stream)  # its memory is not given to another tensor before it was copied
        return host

    def wait(self) -> None:
        for stream in self._streams.values():
            stream.synchronize()


def unpacked(pipe: Any, x: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """Latents that a pipeline keeps as a row of 2 × 2 patches, as a map again; other latents as
    they are.

    ``size`` is that of the picture in pixels; without it, a square one is meant where the number of
    patches allows."""
    unpack = getattr(pipe, "_unpack_latents", None)
    if x.ndim != 3 or unpack is None:
        return x
    if size is None:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            return x
        size = (2 * side * pipe.vae_scale_factor,) * 2
    try:
        x = unpack(x, *size, pipe.vae_scale_factor)
    except TypeError:  # video pipelines ask for frames too
        return x
    return x.squeeze(2) if x.ndim == 5 and x.shape[2] == 1 else x


def _arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """(model_output, timestep, sample) of a call of ``scheduler.step``."""
    named = dict(zip(("model_output", "timestep", "sample"), args, strict=False)) | kwargs
    return named["model_output"], named["timestep"], named["sample"]
