"""Tracing on a cluster of ``dask.distributed``: a batch is a task, and its worker writes its
chunks.

A worker that dies has its batches done by others. The process that asked holds the store's lock,
makes the store from the first batch, and finishes it.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from xhat.hooks.describe import checksum
from xhat.hooks.edits.edit import Edit
from xhat.hooks.protocols import Pipeline
from xhat.hooks.record.record import Array
from xhat.hooks.run import TraceRun, batch_schema, prepare, sampling
from xhat.hooks.store.checksums import Index
from xhat.hooks.store.schema import Schema
from xhat.hooks.store.store import Store, difference
from xhat.hooks.store.tiles import Tiling
from xhat.hooks.tracer import Hooks

if TYPE_CHECKING:
    from distributed import Client, Future

THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS"
RETRIES = 2
"""Times a batch is tried again where the disk or the network failed on a worker."""


@dataclass(frozen=True)
class Share:
    """What a worker is told of a run. ``schema`` is there once the store is."""

    name: str
    path: str
    tiling: Tiling
    prompts: list[str]
    seeds: list[int]
    hooks: Hooks
    edits: tuple[Edit, ...]
    arguments: Mapping[str, Any]
    config: Mapping[str, Any]
    load: Callable[[], Pipeline] | None
    schema: Schema | None = None

    @classmethod
    def of(cls, run: TraceRun, sink: Store, load: Callable[[], Pipeline] | None) -> Share:
        """Of a run into a store. Raises ValueError where workers could not see the store."""
        if sink.path.startswith("memory://"):
            raise ValueError(f"{sink.path} is in this process's memory: workers cannot write there")
        asked = run.prompts, run.seeds, run.hooks, run.edits, run.arguments, run.config
        return cls(uuid.uuid4().hex, sink.path, sink.tiling, *asked, load)


def check_alone() -> None:
    """Refuse to be one of several processes of a launcher: each would trace everything."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise ValueError(
            f"WORLD_SIZE={world}: this is one of several processes of a launcher. Start one, with "
            "`xhat trace … --workers N` or `--scheduler ADDRESS` (client= in Python)"
        )


def fill(client: Client, share: Share, run: TraceRun, sink: Store, progress: bool) -> None:
    """Have the workers sample what is missing. Raises RuntimeError that names the batches which
    failed, once all others are done.
    """
    todo = list(sink.missing())
    if not todo:
        return
    pipe = None if share.load else client.submit(_itself, run.pipe, pure=False)
    futures: dict[Future[Any], Index] = {}
    with tqdm(total=len(todo), desc="trace", unit="batch", disable=not progress) as bar:
        try:
            first = todo.pop(0)
            made: Any = client.submit(sample, share, pipe, first, pure=False).result()
            schema, arrays = made
            sink.begin(schema, run.coords)
            sink.write(first, sink.tiling[first], arrays)
            bar.update()
            share = replace(share, schema=schema)
            futures = {
                client.submit(sample, share, pipe, index, pure=False, retries=RETRIES): index
                for index in todo
            }
            failed = _failures(futures, sink, bar)
        except BaseException:
            client.cancel(list(futures))
            sink.abandon()
            raise
    if failed:
        raise RuntimeError(_report(failed, sink))


def _failures(
    futures: Mapping[Future[Any], Index], sink: Store, bar: tqdm[Any]
) -> dict[Index, BaseException]:
    """What was raised, by batch."""
    from distributed import as_completed

    failed: dict[Index, BaseException] = {}
    for future in as_completed(futures):
        if future.status == "finished":
            sink.renew()
            bar.update()
        else:
            failed[futures[future]] = future.exception() or RuntimeError(future.status)
    return failed


def _report(failed: Mapping[Index, BaseException], sink: Store) -> str:
    index, error = next(iter(failed.items()))
    tile = sink.tiling[index]
    prompts, seeds = (f"{r.start} to {r.stop - 1}" for r in (tile.prompts, tile.seeds))
    return (
        f"{len(failed)} batches failed, the others are in {sink.path}. The first: prompts "
        f"{prompts} × seeds {seeds} (by position): {type(error).__name__}: {error}. The same call "
        "goes on with what is missing"
    )


@contextmanager
def local(workers: int) -> Iterator[Client]:
    """A cluster of so many processes of this machine, each with its share of the cores."""
    from distributed import Client, LocalCluster

    threads = str(max(1, (os.cpu_count() or 1) // workers))
    limits = {name: os.environ.get(name, threads) for name in THREADS}
    asked: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0", "env": limits}
    with LocalCluster(n_workers=workers, **asked) as cluster, Client(cluster) as client:
        yield client


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of the scheduler at an address, or of the one that wrote a scheduler file. Raises
    ValueError where none answers.
    """
    from distributed import Client

    if "://" not in scheduler and not Path(scheduler).exists():
        raise ValueError(
            f"--scheduler {scheduler}: no such file; expected an address such as tcp://host:8786, "
            "or the file that `dask scheduler --scheduler-file FILE` writes"
        )
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    try:
        client = Client(**where)
    except OSError as error:
        raise ValueError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        yield client


# ---- on a worker -------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()  # a pipeline is not shared by threads
_prepared: dict[str, TraceRun] = {}


def sample(
    share: Share, pipe: Pipeline | None, index: Index
) -> tuple[Schema, Mapping[str, Array]] | None:
    """Sample one batch and write it to the store; the first, for which there is no store, is given
    back.
    """
    with _one_at_a_time:
        run, tile = _run_of(share, pipe), share.tiling[index]
        with sampling(run) as sampler:
            batch = sampler(tile)
            schema = batch_schema(run, sampler.recorder.selections, batch, share.schema)
        if share.schema is None:
            return schema, batch.arrays
        store = Store(share.path, share.tiling)
        store.resume(share.config)
        store.write(index, tile, batch.arrays)
        return None


def _run_of(share: Share, pipe: Pipeline | None) -> TraceRun:
    """The run as this worker prepares it, once. Raises ValueError where it would be another."""
    if share.name not in _prepared:
        pipe = share.load() if share.load else pipe
        size = share.tiling.height * share.tiling.width
        asked: tuple[Sequence[str], Sequence[int]] = share.prompts, share.seeds
        run = prepare(pipe, *asked, share.hooks, share.edits, size, share.arguments)
        if checksum(run.config) != checksum(share.config):
            raise ValueError(
                "a worker's pipeline is not the one that is traced "
                f"({difference(share.config, run.config)}): load= must give the same one"
            )
        _prepared.clear()
        _prepared[share.name] = run
    return _prepared[share.name]


def _itself(pipe: Pipeline) -> Pipeline:
    return pipe


def number_of_worker() -> int:
    """Which worker of its cluster this process is, counted from 0; 0 outside of clusters."""
    from distributed import get_worker

    try:
        name = get_worker().name
    except ValueError:
        return 0
    return name if isinstance(name, int) else 0
