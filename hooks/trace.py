"""Tracing: every x̂₀, and what else is asked for, of a pipeline on prompts × seeds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import xarray as xr
from tqdm.auto import tqdm

from xhat.hooks.cluster import Share, check_alone, fill
from xhat.hooks.doubts import warn_of_doubts
from xhat.hooks.edits.edit import Edit
from xhat.hooks.protocols import Pipeline
from xhat.hooks.run import TraceRun, announcement, batch_schema, prepare, sampling
from xhat.hooks.store.locks import located, locked
from xhat.hooks.store.memory import Memory
from xhat.hooks.store.schema import Schema
from xhat.hooks.store.store import Store
from xhat.hooks.store.tiles import Tiling
from xhat.hooks.store.writer import Writer
from xhat.hooks.tracer import Hooks, Tracer

if TYPE_CHECKING:
    from distributed import Client

LOG = logging.getLogger(__name__)

__all__ = ["Tracer", "trace"]


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
    client: Client | None = None,
    load: Callable[[], Pipeline] | None = None,
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
    client
        Of a cluster of ``dask.distributed``: its workers sample the batches, and write them to the
        store themselves.
    load
        Gives a worker the same pipeline, once a run; without it ``pipe`` is sent to the workers.
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
    check_alone()
    run = prepare(pipe, prompts, seeds, hooks, tuple(edits), batch_size, call_kwargs)
    warn_of_doubts(pipe, run.prompts, run.arguments)
    tiling = Tiling.of(len(run.prompts), len(run.seeds), batch_size)
    if store is None and (repair or client is not None):
        asked = "repair=True mends" if repair else "the workers of client= write to"
        raise ValueError(f"{asked} a store: pass store=…")
    with ExitStack() as stack:
        sink: Store | Memory
        if store is None:
            sink = Memory(tiling)
        else:
            path = located(store)
            sink = Store(path, tiling, stack.enter_context(locked(path)))
        if sink.resume(run.config, repair) and "unidentified" in run.config:
            raise ValueError(
                f"{store} holds a trace, and whether it is of this very run cannot be told: "
                f"{'; '.join(run.config['unidentified'])}. Give another store"
            )
        if progress and store is not None and sink.missing():
            LOG.info(announcement(run, sink.tiling))
        if client is None:
            _fill(run, sink, progress)
        else:
            assert isinstance(sink, Store)
            fill(client, Share.of(run, sink, load), run, sink, progress)
        sink.finish()
        return sink.tree()


def _fill(run: TraceRun, sink: Store | Memory, progress: bool) -> None:
    """Sample what is missing."""
    todo = list(sink.missing())
    if not todo:
        return
    schema: Schema | None = None
    try:
        with sampling(run) as sampler, Writer(sink.write) as out:
            for index in tqdm(todo, desc="trace", unit="batch") if progress else todo:
                batch = sampler(sink.tiling[index])
                schema = batch_schema(run, sampler.recorder.selections, batch, schema)
                sink.begin(schema, run.coords)
                out.put(index, sink.tiling[index], batch.arrays)
    except BaseException:
        sink.abandon()
        raise
