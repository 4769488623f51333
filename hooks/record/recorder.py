"""Listens to a pipeline and makes a :class:`~xhat.hooks.record.record.Record` of every call."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from xhat.hooks.families import (
    branch_count,
    branch_names,
    calls_apart,
    family_of,
    refuse_mean_velocity,
)
from xhat.hooks.noise import draws
from xhat.hooks.noise import levels as noise
from xhat.hooks.noise.x0 import without_variance, x0_at, x0_of_tokens
from xhat.hooks.points.attention import Sink
from xhat.hooks.points.names import denoisers_of, modules_at
from xhat.hooks.points.readings import attached
from xhat.hooks.points.select import Selection, select
from xhat.hooks.points.taps import Listener, Weakly, clean_copies, listening, listening_to_scheduler
from xhat.hooks.record.final import DecodedLatents
from xhat.hooks.record.packing import unpacked
from xhat.hooks.record.record import Firing, Record, Step


class Recorder:
    """Within its block, every call of the pipeline is recorded; ``take`` gives the records so far.

    Names are resolved on entry, so that adapters loaded before are seen. A recorder that is dropped
    inside its block takes its taps with it. Raises ValueError for a scheduler whose noise levels
    are not known, a name that matches nothing, hooks on what is compiled, and for two threads that
    call the pipeline at once."""

    def __init__(
        self,
        pipe: Any,
        hooks: Mapping[str, Any] | Iterable[str] = (),
        size: tuple[int, int] | None = None,
    ) -> None:
        self.pipe, self.hooks, self.size = pipe, hooks, size
        self.selections: tuple[Selection, ...] = ()
        self._records: list[Record] = []
        self.scheduler_copies = 0
        self._close: Any = lambda: None
        self._mixed = False
        self._fresh()

    def __enter__(self) -> Recorder:
        self._denoisers = denoisers_of(self.pipe)
        noise.kind(self.pipe.scheduler)
        noise.prediction(self.pipe.scheduler)
        for denoiser in self._denoisers:
            refuse_mean_velocity(denoiser)
        self.selections = select(self._denoisers, self.hooks)
        me = weakref.ref(self)  # what is put on the pipeline does not keep the recorder alive
        with ExitStack() as stack:
            for i, s in enumerate(self.selections):
                for module in modules_at(self._denoisers, s.point.path):
                    stack.enter_context(attached(module, s.reading, s.reduction, _sink(me, i)))
            listeners: dict[str, Listener] = {"set_timesteps": _Starts(me), "step": Weakly(self)}
            stack.enter_context(listening_to_scheduler(self.pipe, listeners))
            stack.enter_context(clean_copies(self.pipe.scheduler, _count(me)))
            if hasattr(getattr(self.pipe, "vae", None), "decode"):
                stack.enter_context(
                    listening(self.pipe.vae, "decode", DecodedLatents(_decoded(me)))
                )
            for denoiser in self._denoisers:
                if hasattr(denoiser, "cache_context"):
                    stack.enter_context(listening(denoiser, "cache_context", _Branches(me)))
            self._close = weakref.finalize(self, stack.pop_all().close)
            self._close.atexit = False
        return self

    def __exit__(self, *exception: Any) -> None:
        self._close()
        self._end()

    def take(self) -> list[Record]:
        """The calls recorded since the last ``take``, the one now under way included."""
        if self._mixed:
            raise ValueError(_TWO_THREADS)
        self._end()
        records, self._records = self._records, []
        return records

    def silence(self) -> str:
        """Why there is no record, in words."""
        text = f"{type(self.pipe).__name__} made no step of its scheduler inside the block"
        if self.scheduler_copies:
            text += (
                f"; it copied its scheduler {self.scheduler_copies} times, and the steps of a copy "
                "are not heard"
            )
        return text

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
        elif self._thread != threading.get_ident():
            self._mixed = True
            raise ValueError(_TWO_THREADS)
        self._step = None if self._levels is None else self._first + len(self._record.steps)
        if self._levels is not None and self._step is not None and self._step < len(self._levels):
            level = self._levels[self._step]
        else:
            level = noise.noise_level(scheduler, timestep)
        if hasattr(scheduler, "latents_of"):  # a plan may start from other noise than it was given
            x_t = scheduler.latents_of(x_t)
        of_tokens = kwargs.get("per_token_timesteps")
        if of_tokens is None:
            x0 = x0_at(scheduler, output, level, x_t, self._step)
        else:
            x0 = x0_of_tokens(scheduler, output, of_tokens, x_t)
        tensors = (self._copies(unpacked(self.pipe, x, self.size)) for x in (x_t, output, x0))
        space = noise.space(noise.in_charge(scheduler, self._step)[0])
        self._record.steps.append(
            Step(level, space, self._segment(scheduler), self._pending, *tensors)
        )
        self._pending, self._branch = {}, None
        self._generators = draws.generators_of(kwargs.get("generator"), x_t.device)
        self._states = draws.generator_states(self._generators)

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
        self._thread = threading.get_ident()
        if self.selections and denoisers_of(self.pipe) != self._denoisers:
            warnings.warn(
                f"{type(self.pipe).__name__} was given another denoiser inside the block, whose "
                "readings are not heard. Open a new block after the exchange",
                stacklevel=4,
            )
        self._record.stacked = {n: branch_names(self.pipe, n) for n in range(1, 5)}
        if branch_count(self.pipe) == 2:
            self._record.apart = calls_apart(self.pipe)
        self._record.latent_dims = family_of(self.pipe).latent_dims
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


_TWO_THREADS = (
    "two threads call one pipeline at once: their steps cannot be told apart, and the scheduler's "
    "own state is shared between them. Give each thread a pipeline of its own"
)
Me = weakref.ref[Recorder]


def _sink(recorder: Me, i: int) -> Sink:
    def sink(value: torch.Tensor) -> None:
        me = recorder()
        if me is not None:
            me._fire(i, value)

    return sink


def _decoded(recorder: Me) -> Sink:
    def keep(value: torch.Tensor) -> None:
        me = recorder()
        if me is not None:
            me._record.decoded.append(value)

    return keep


def _count(recorder: Me) -> Callable[[dict[str, Any]], None]:
    def count(state: dict[str, Any]) -> None:
        me = recorder()
        if me is not None:
            me.scheduler_copies += 1

    return count


class _Starts:
    """A new schedule is the beginning of a new call."""

    def __init__(self, recorder: Me) -> None:
        self.recorder = recorder

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder = self.recorder()
        if recorder is not None:
            recorder._end()

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass


class _Branches:
    """Pipelines that call the denoiser once a branch say which before they do:
    ``cache_context("cond")``.
    """

    def __init__(self, recorder: Me) -> None:
        self.recorder = recorder

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder = self.recorder()
        if recorder is not None:
            recorder._branch = args[0] if args else kwargs.get("name")

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


def _arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """(model_output, timestep, sample) of a call of ``scheduler.step``."""
    named = dict(zip(("model_output", "timestep", "sample"), args, strict=False)) | kwargs
    output, timestep, x_t = (named[k] for k in ("model_output", "timestep", "sample"))
    return without_variance(output, x_t), timestep, x_t
