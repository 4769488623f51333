"""Traces in memory: the same interface as a store's, for a run that keeps its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xhat.hooks.record.record import Array
from xhat.hooks.store.grams import streamed_gram
from xhat.hooks.store.schema import ACTIVATIONS, SAMPLES, SCRATCH, Schema
from xhat.hooks.store.tiles import Tile, Tiling


class Memory:
    """A trace being made in memory."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        self.schema: Schema | None = None
        self.arrays: dict[str, np.ndarray] = {}
        self.samples: dict[str, np.ndarray] = {}

    def resume(self, config: Mapping[str, Any], mend: bool = False) -> bool:
        return False

    def missing(self) -> list[tuple[int, int]]:
        return list(self.tiling)

    def begin(self, schema: Schema, coords: Mapping[str, np.ndarray]) -> None:
        if self.schema is None:
            self.schema, self.samples = schema, dict(coords)
            for name, variable in schema.variables.items():
                shape = (self.tiling.prompts, self.tiling.seeds, *variable.shape)
                self.arrays[name] = np.empty(shape, variable.dtype)

    def write(self, index: tuple[int, int], tile: Tile, arrays: Mapping[str, Array]) -> None:
        rows = slice(tile.prompts.start, tile.prompts.stop)
        columns = slice(tile.seeds.start, tile.seeds.stop)
        for name, array in arrays.items():
            shape = (len(tile.prompts), len(tile.seeds), *array.data.shape[1:])
            self.arrays[name][rows, columns] = array.data.reshape(shape)

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        self.arrays.clear()

    def tree(self) -> xr.DataTree:
        assert self.schema is not None
        named = {
            name: (array, (*SAMPLES, *self.schema.variables[name].dims))
            for name, array in self.arrays.items()
        }
        return tree_of(self.schema, named, self.samples)


def tree_of(
    schema: Schema,
    arrays: Mapping[str, tuple[np.ndarray, tuple[str, ...]]],
    samples: Mapping[str, np.ndarray],
) -> xr.DataTree:
    """The trace of arrays with their dimensions, by path. Those that wait for it become Gram
    matrices.
    """
    count = int(np.prod([len(v) for v in samples.values()]))
    variables: dict[str, dict[str, Any]] = {group: {} for group in schema.attrs}
    for path, (array, dims) in arrays.items():
        group, _, name = path.rpartition("/")
        if group.startswith(f"{SCRATCH}/"):
            group, (array, dims) = group.replace(SCRATCH, ACTIVATIONS, 1), _gram(array, dims, count)
        variables[group][name] = (dims, array)
    groups: dict[str, xr.Dataset] = {}
    for group, attrs in schema.attrs.items():
        coords: dict[str, Any] = {
            k: (dim, values) for k, (dim, values) in schema.coords.get(group, {}).items()
        }
        if group == "":
            coords |= {name: (name, values) for name, values in samples.items()}
        groups[f"/{group}"] = xr.Dataset(variables[group], coords=coords, attrs=dict(attrs))
    return xr.DataTree.from_dict(groups)


def _gram(
    array: np.ndarray, dims: tuple[str, ...], samples: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    middle = tuple(d for d in dims if d in ("step", "branch"))
    sizes = array.shape[dims.index("step") : -1]
    flat = array.reshape(samples, *sizes, array.shape[-1])
    found = np.empty((*sizes, samples, samples))
    for at in np.ndindex(*sizes):
        found[at] = streamed_gram(
            lambda c, at=at: flat[(slice(None), *at, c)],  # type: ignore[misc]
            flat.shape[-1],
            samples,
        )
    return found, (*middle, "sample", "sample_other")
