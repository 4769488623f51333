"""Tracing any ordinary call of a pipeline, and the attributes that every trace has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xhat.hooks.batches import flat_if_gram, notes_of
from xhat.hooks.describe import canonical, checksum, describe, versions
from xhat.hooks.noise.x0 import clipping
from xhat.hooks.points.select import Selection
from xhat.hooks.protocols import Pipeline
from xhat.hooks.record.final import check_final
from xhat.hooks.record.record import Array, Record, warn_unfired
from xhat.hooks.record.recorder import Recorder
from xhat.hooks.store.memory import tree_of
from xhat.hooks.store.schema import path_of, schema_of
from xhat.hooks.store.whole import save_trace

Hooks = Mapping[str, Any] | Iterable[str]


class Tracer:
    """Traces any ordinary call of the pipeline made inside its block, which returns what it always
    does. ``.trace`` has dims (sample, step, …).

    Several calls of the same schedule follow each other along ``sample``.

    Parameters
    ----------
    pipe
        A diffusers pipeline.
    hooks
        As in :func:`xhat.trace`.
    store
        Folder or URL to write the trace to at the end of the block.
    """

    def __init__(
        self, pipe: Pipeline, hooks: Hooks = (), store: str | os.PathLike[str] | None = None
    ) -> None:
        self.pipe, self.store = pipe, store
        self._recorder = Recorder(pipe, hooks)
        self._records: list[Record] = []
        self._config: dict[str, Any] = {}

    def __enter__(self) -> Tracer:
        self._config = describe(self.pipe)  # before our own hooks are among those of the modules
        self._recorder.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._recorder.__exit__(*exception)
        if exception[0] is not None:
            return
        self._take()
        if not self._records:
            warnings.warn(f"nothing was traced: {self._recorder.silence()}", stacklevel=2)
            return
        warn_unfired(self._records[-1].unfired(self._recorder.selections))
        if self.store is not None:
            save_trace(self.trace, self.store)

    def _take(self) -> None:
        records = self._recorder.take()
        for record in records:
            check_final(record, getattr(self.pipe, "vae", None), returned=None, callback=False)
        self._records += records

    @property
    def trace(self) -> xr.DataTree:
        """The trace of the calls that are finished. Raises ValueError if there are none, or of
        several schedules.
        """
        self._take()
        if not self._records:
            raise ValueError("nothing was traced yet: call the pipeline inside the block")
        return _tree_of_records(self._records, self._recorder.selections, self._config)


def _tree_of_records(
    records: list[Record], selections: Sequence[Selection], config: Mapping[str, Any]
) -> xr.DataTree:
    batches = [_arrays(r, selections) for r in records]
    first, branches = batches[0]
    for (arrays, _), record in zip(batches, records, strict=True):
        shapes = [{k: a.data.shape[1:] for k, a in x.items()} for x in (first, arrays)]
        if shapes[0] != shapes[1] or not np.array_equal(
            record.schedule["timestep"], records[0].schedule["timestep"]
        ):
            raise ValueError("the calls differ in schedule or shape: use a Tracer for each")
    schema = schema_of(
        first, branches, selections, records[0].schedule, attributes(config, notes_of(records[0]))
    )
    joined = {
        k: (_joined([arrays[k].data for arrays, _ in batches]), a.dims) for k, a in first.items()
    }
    count = sum(r.rows for r in records)
    return tree_of(schema, joined, {"sample": np.arange(count)})


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _arrays(
    record: Record, selections: Sequence[Selection]
) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
    readings = record.readings(selections)
    named = {
        path_of(s): flat_if_gram(s, readings[s.name].array)
        for s in selections
        if s.name in readings
    }
    return record.root() | named, {name: r.branches for name, r in readings.items()}


def attributes(config: Mapping[str, Any], notes: Mapping[str, str]) -> dict[str, Any]:
    """Attributes of a trace: texts as they are, everything else as JSON."""
    found = {
        k: v if isinstance(v, str) else canonical(v)
        for k, v in config.items()
        if k not in ("prompts", "seeds")
    }
    found["pred_x0"] = clipping(config.get("scheduler_config", {}))
    return found | dict(notes) | {"versions": canonical(versions()), "checksum": checksum(config)}
