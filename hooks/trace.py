"""Tracing: every x̂₀, and what else is asked for, of a pipeline on prompts × seeds."""

from __future__ import annotations

import itertools
import logging
import operator
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from xhat.hooks.batches import Batch, Sampler, check_arguments, per_prompt
from xhat.hooks.describe import describe, describe_call, jsonable, versions
from xhat.hooks.edits.edit import Edit
from xhat.hooks.edits.patch import Patch, places
from xhat.hooks.model import with_defaults
from xhat.hooks.noise import levels as noise
from xhat.hooks.points.names import denoisers_of
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.select import Selection, select
from xhat.hooks.points.table import bytes_text
from xhat.hooks.points.taps import quiet
from xhat.hooks.protocols import Pipeline
from xhat.hooks.record.encode import encoded_once
from xhat.hooks.record.record import warn_unfired
from xhat.hooks.record.recorder import Recorder
from xhat.hooks.store.locks import held, located, locked
from xhat.hooks.store.memory import Memory
from xhat.hooks.store.schema import Schema, schema_of
from xhat.hooks.store.store import Store
from xhat.hooks.store.tiles import Tile, Tiling, share
from xhat.hooks.store.writer import Writer
from xhat.hooks.tracer import Hooks, Tracer, attributes

LOG = logging.getLogger(__name__)

__all__ = ["Tracer", "trace"]

MOST_SEEDS = 10**6  # a trace of more is a mistake
LIBRARIES = ("torch", "diffusers", "transformers", "xhat")  # whose versions make pictures differ


def trace(
    pipe: Pipeline,
    prompts: str | Sequence[str],
    *,
    seeds: Iterable[int],
    hooks: Hooks = (),
    store: str | os.PathLike[str] | None = None,
    batch_size: int = 8,
    edits: Iterable[Edit] = (),
    progress: bool = True,
    repair: bool = False,
    **call_kwargs: Any,
) -> xr.DataTree:
    """Sample every prompt under every seed and keep x̂₀ of every step, with the readings that
    ``hooks`` name.

    Parameters
    ----------
    pipe
        A diffusers pipeline, a hybrid included.
    prompts
        One prompt, or several.
    seeds
        Whole numbers. Seed s starts a generator of its own for each sample, the same for every
        prompt.
    hooks
        {name, glob or path, with ``@input``, ``@delta``, ``@probs`` (attention) or ``@tokens``
        (attention from the picture to the prompt's tokens) for other readings: reduction
        or its text}, or names alone for ``mean``.
    store
        Folder or URL of a Zarr store; a run that was stopped goes on there at the same call. None:
        the trace is in memory.
    batch_size
        Samples in one call of the pipeline.
    edits
        Interventions (:mod:`xhat.hooks.edits.edit`); a value of another trace goes to the sample of
        the same prompt and seed.
    progress
        Whether a bar is shown and, before it, what a store will take of disk and memory.
    repair
        Whether what is damaged of a finished store is made again.
    **call_kwargs
        Arguments of the pipeline's call. Number of steps and guidance left out are the checkpoint's
        own (:func:`xhat.defaults`), else the pipeline's.

    Returns
    -------
    DataTree
        Root: ``pred_x0``, ``latents`` (x_t, in the scheduler's own space), ``model_output`` (after
        guidance) and ``noise`` (what a stochastic step added, where there is any), dims (prompt,
        seed, step, channel, y, x); ``final`` latents; ``images``, uint8. ``/activations/<name>``:
        variable ``value`` of each reading, with ``branch`` ("uncond", "cond") where guidance is on.
        Coordinates along ``step``: timestep, sigma = √(1−ᾱ)/√ᾱ, alpha_bar, call (which evaluation
        at that timestep), segment where several models share the run, space where latents change
        theirs on the way (else it is an attribute).

    Raises
    ------
    ValueError
        For names, seeds, arguments, schedulers and stores that do not fit, before anything is
        written; as ``StoreInUse`` where another run is writing into the store.
    """
    run = _prepare(pipe, prompts, seeds, hooks, tuple(edits), batch_size, call_kwargs)
    with ExitStack() as stack:
        sink: Store | Memory
        if store is None:
            if repair:
                raise ValueError("repair=True mends a store: pass store=…")
            if run.world > 1:
                raise ValueError("several processes need a store to write to: pass store=…")
            sink = Memory(Tiling.of(len(run.prompts), len(run.seeds), batch_size))
        else:
            if repair and run.world > 1:
                raise ValueError("a store is repaired by one process: run it without a launcher")
            path, tiling = located(store), Tiling.of(len(run.prompts), len(run.seeds), batch_size)
            renew = stack.enter_context(locked(path, run.rank))
            sink = Store(path, tiling, run.rank, renew)
        if sink.resume(run.config, repair) and "unidentified" in run.config:
            raise ValueError(
                f"{store} holds a trace, and whether it is of this very run cannot be told: "
                f"{'; '.join(run.config['unidentified'])}. Give another store"
            )
        if progress and store is not None and sink.missing():
            LOG.info(announcement(run, sink.tiling))
        _fill(run, sink, progress)
        if run.rank == 0:
            _wait_for_others(sink, run.world)
            _check_complete(sink)
            sink.finish()
        return sink.tree()


@dataclass(frozen=True)
class Run:
    """What is to be traced, checked. ``config`` is what makes two runs the same."""

    pipe: Any
    prompts: list[str]
    seeds: list[int]
    selections: tuple[Selection, ...]
    hooks: Hooks
    edits: tuple[Edit, ...]
    arguments: dict[str, Any]
    config: dict[str, Any]
    rank: int
    world: int


def _prepare(
    pipe: Any,
    prompts: Any,
    seeds: Any,
    hooks: Any,
    edits: tuple[Edit, ...],
    batch_size: int,
    call: dict[str, Any],
) -> Run:
    prompts, seeds = _prompts(prompts), _seeds(seeds)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected a whole number above 0")
    denoisers = denoisers_of(pipe)
    noise.kind(pipe.scheduler)
    selections = select(denoisers, hooks)
    places(denoisers, edits)
    check_arguments(pipe, call)
    _check_numbers(call)
    arguments = _with_defaults(pipe, call)
    per_prompt(pipe, arguments, Tile(range(1), range(1)), len(prompts))
    described, unknown = describe_call(arguments)
    config = describe(pipe)
    unknown += config.pop("unidentified", [])
    config |= {
        "prompts": prompts,
        "seeds": seeds,
        "hooks": {s.name: str(s.reduction) for s in selections},
        "call": described,
        "libraries": {name: versions()[name] for name in LIBRARIES},
    }
    if edits:
        config["edits"] = [jsonable(edit.describe()) for edit in edits]
    if unknown:
        config["unidentified"] = unknown
    return Run(pipe, prompts, seeds, selections, hooks, edits, arguments, config, *share())


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _check_numbers(call: Mapping[str, Any]) -> None:
    """Raises ValueError for a number of steps below 1, or a guidance that is no number."""
    steps = call.get("num_inference_steps")
    if steps is not None and (isinstance(steps, bool) or not hasattr(steps, "__index__")):
        raise ValueError(f"num_inference_steps={steps!r}: expected a whole number above 0")
    if steps is not None and operator.index(steps) < 1:
        raise ValueError(f"num_inference_steps={steps!r}: expected a whole number above 0")
    for name, value in call.items():
        if isinstance(value, float | np.floating) and not np.isfinite(value):
            raise ValueError(f"{name}={value}: expected a finite number")


def _prompts(prompts: str | Sequence[str]) -> list[str]:
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    if not listed or not all(isinstance(p, str) for p in listed):
        raise ValueError(f"prompts={_brief(prompts)}: expected a text, or a list of one or more")
    if ended := [p for p in listed if p.endswith("\0")]:
        raise ValueError(f"{ended[0]!r} ends in a NUL character, which coordinates do not keep")
    if repeated := [p for p, count in Counter(listed).items() if count > 1]:
        raise ValueError(
            f"prompts that repeat: {repeated[:3]}. Each is sampled under every seed once"
        )
    return listed


def _seeds(seeds: Iterable[int]) -> list[int]:
    expected = f"expected 1 to {MOST_SEEDS} whole numbers from 0 to 2⁶³−1, for example range(16)"
    try:
        if isinstance(seeds, str | bytes):
            raise TypeError
        listed = [operator.index(s) for s in itertools.islice(seeds, MOST_SEEDS + 1)]
    except TypeError:
        raise ValueError(f"seeds={_brief(seeds)}: {expected}") from None
    if not 1 <= len(listed) <= MOST_SEEDS or min(listed) < 0 or max(listed) >= 2**63:
        raise ValueError(f"seeds={_brief(seeds)}: {expected}")
    if repeated := [s for s, count in Counter(listed).items() if count > 1]:
        raise ValueError(
            f"seeds that repeat: {repeated[:5]}. Their samples would be the same picture twice"
        )
    return listed


def _with_defaults(pipe: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments: what is given, what belongs to the checkpoint, and pictures as
    arrays.
    """
    output = "latent" if given.get("output_type") == "latent" else "np"
    return with_defaults(pipe, given) | {"output_type": output}


def announcement(run: Run, tiling: Tiling) -> str:
    """What the run will take: samples, steps, room on disk, memory. Found by rehearsing it without
    arithmetic.
    """
    samples = tiling.prompts * tiling.seeds
    text = f"tracing {tiling.prompts} prompts × {tiling.seeds} seeds"
    try:
        seen = rehearse(
            run.pipe,
            [s.point for s in run.selections],
            prompt=run.prompts[0],
            **_single(run),
        )
    except Exception as error:  # an estimate is worth no failure: the run will say
        return f"{text}; size unknown before the first batch ({type(error).__name__})"
    each, batch = seen.bytes_of(run.selections), tiling.height * tiling.width
    return (
        f"{text} × {seen.steps} steps, {len(run.selections)} readings: up to "
        f"{bytes_text(each * samples)} on disk before compression, and "
        f"{bytes_text(3 * each * batch)} of memory for batches of {batch}"
    )


def _single(run: Run) -> dict[str, Any]:
    """Arguments for the first prompt alone."""
    call, _ = per_prompt(run.pipe, run.arguments, Tile(range(1), range(1)), len(run.prompts))
    return call | {"output_type": "latent"}


def _fill(run: Run, sink: Store | Memory, progress: bool) -> None:
    """Sample this process's share of what is missing."""
    missing = set(sink.missing())
    todo = [
        index
        for k, index in enumerate(sink.tiling)
        if index in missing and k % run.world == run.rank
    ]
    if not todo:
        return
    coords = {"prompt": np.array(run.prompts), "seed": np.array(run.seeds, dtype=np.int64)}
    schema: Schema | None = None
    try:
        with ExitStack() as stack:  # edits first, so that what they make is what is recorded
            patch = stack.enter_context(Patch(run.pipe, run.edits)) if run.edits else None
            recorder = stack.enter_context(Recorder(run.pipe, run.hooks, _size(run.arguments)))
            stack.enter_context(quiet(run.pipe))
            stack.enter_context(encoded_once(run.pipe))
            out = stack.enter_context(Writer(sink.write))
            sampler = Sampler(run.pipe, recorder, run.prompts, run.seeds, run.arguments, patch)
            for index in tqdm(todo, desc="trace", unit="batch") if progress else todo:
                batch = sampler(sink.tiling[index])
                schema = _schema(run, recorder.selections, batch, schema)
                sink.begin(schema, coords)
                out.put(index, sink.tiling[index], batch.arrays)
    except BaseException:
        sink.abandon()
        raise


def _schema(
    run: Run, selections: Sequence[Selection], batch: Batch, before: Schema | None
) -> Schema:
    """The schema of a batch, which every other batch must have too."""
    root = attributes(run.config, batch.notes) if before is None else before.attrs[""]
    schema = schema_of(batch.arrays, batch.branches, selections, batch.schedule, root)
    if before is None:
        warn_unfired(batch.unfired)
        return schema
    there, here = (s.coords[""]["timestep"][1] for s in (before, schema))
    if before.variables != schema.variables or not np.array_equal(there, here):
        raise ValueError(
            f"a batch differs from the first in shape or schedule ({len(there)} steps, then "
            f"{len(here)}): every prompt of a trace runs through the same steps"
        )
    return before


def _size(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = arguments.get("height"), arguments.get("width")
    return (height, width) if height and width else None


def _check_complete(sink: Store | Memory) -> None:
    """Raises ValueError where another process of the run ended before its share was done."""
    if isinstance(sink, Store) and (left := len(sink.missing())):
        raise ValueError(
            f"{sink.path} is not finished: {left} batches of other processes are missing, and none "
            "of them is running. The same call goes on where it stopped"
        )


def _wait_for_others(sink: Store | Memory, world: int, patience: float = 60.0) -> None:
    """Until every tile is complete, or no other process of this run has been alive for a while."""
    last_seen = time.monotonic()
    while world > 1 and isinstance(sink, Store) and sink.missing():
        if any(held(sink.path, r) for r in range(1, world)):
            last_seen = time.monotonic()
        if time.monotonic() - last_seen > patience:
            return
        time.sleep(0.2)
