"""Traces on disk: Zarr v3, written a tile of samples at a time, and read as an ``xarray.DataTree``.

Every stored array has one chunk (or shard) a tile, so a tile is written without reading, by any
process, and a kill at any moment leaves whole tiles alone. ``run/complete`` says which tiles are:
it is set after a tile's data are on disk. A tile that is not complete is sampled again, to the same
bits, when the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from xhat.hooks.describe import checksum
from xhat.hooks.record.record import Array
from xhat.hooks.store.failures import damage_named, readable_failures
from xhat.hooks.store.grams import centred_gram
from xhat.hooks.store.layout import check_room, create, write_coords
from xhat.hooks.store.locks import is_remote, located, sign_of_life
from xhat.hooks.store.schema import ACTIVATIONS, SCRATCH, Schema
from xhat.hooks.store.tiles import Tile, Tiling

FORMAT = 1
COMPLETE = "run/complete"
BOOKKEEPING = ("config", "tiling", "ready", "grams", "finished", "xhat_format")


class Store:
    """A trace being written to ``path`` by one of several processes. Made or continued by
    :meth:`begin`.
    """

    def __init__(self, path: str, tiling: Tiling, rank: int = 0) -> None:
        self.path, self.tiling, self.rank = path, tiling, rank
        self.config: Mapping[str, Any] = {}
        self.group: zarr.Group | None = None
        self._arrays: dict[
            str, zarr.Array
        ] = {}  # opening one costs as much as writing a chunk of it
        self._made = False

    def resume(self, config: Mapping[str, Any]) -> bool:
        """Open what is there. Returns whether there was something. Raises ValueError if it is not
        of the run that ``config`` describes."""
        with damage_named(self.path):
            return self._resume(config)

    def _resume(self, config: Mapping[str, Any]) -> bool:
        self.config = config
        group = _open(self.path)
        if group is None:
            return False
        attrs: dict[str, Any] = dict(group.attrs)
        _check_format(self.path, attrs)
        if attrs["checksum"] != checksum(config):
            raise ValueError(_difference(self.path, json.loads(attrs["config"]), config))
        if not attrs.get("ready"):  # killed while it was being made: there is nothing in it
            if self.rank == 0:
                remove(self.path)
            return False
        self.tiling = Tiling(*attrs["tiling"])
        self.group = group
        return True

    def missing(self) -> list[tuple[int, int]]:
        """Tiles that are not complete, in order."""
        if self.group is None:
            return list(self.tiling)
        done = _node(self.group, COMPLETE)[:]
        return [(int(i), int(j)) for i, j in np.argwhere(done == 0)]

    def begin(self, schema: Schema, coords: Mapping[str, np.ndarray]) -> None:
        """Make the store, or wait for the process that does."""
        if self.group is not None:
            return
        if self.rank != 0:
            while not self.resume(self.config):
                time.sleep(0.05)
            return
        check_room(self.path, schema, self.tiling)
        attrs = dict(schema.attrs[""]) | {
            "xhat_format": FORMAT,
            "coordinates": " ".join(schema.coords[""]),
            "config": json.dumps(self.config, ensure_ascii=False),
            "tiling": [
                self.tiling.prompts,
                self.tiling.seeds,
                self.tiling.height,
                self.tiling.width,
            ],
        }
        self._made = True
        with readable_failures(self.path):
            group = zarr.create_group(self.path, zarr_format=3, attributes=attrs, overwrite=False)
            for name, variable in schema.variables.items():
                create(group, name, variable, self.tiling)
            write_coords(group, schema, coords)
            names = ("prompt_tile", "seed_tile")
            group.create_array(
                COMPLETE,
                shape=self.tiling.shape,
                chunks=(1, 1),
                dtype="uint8",
                dimension_names=names,
            )
            group.attrs["ready"] = True
        self.group = group

    def write(self, index: tuple[int, int], tile: Tile, arrays: Mapping[str, Array]) -> None:
        """Put a tile's arrays (dims sample, …) on disk, and then say that it is complete."""
        assert self.group is not None
        place = (
            slice(tile.prompts.start, tile.prompts.stop),
            slice(tile.seeds.start, tile.seeds.stop),
        )
        with readable_failures(self.path):
            for name, array in arrays.items():
                target = self._array(name)
                target[place] = array.data.reshape(
                    len(tile.prompts), len(tile.seeds), *array.data.shape[1:]
                )
                self._flush(target, index)
            self._array(COMPLETE)[index] = 1
        sign_of_life(self.path, self.rank)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            assert self.group is not None
            self._arrays[name] = _node(self.group, name)
        return self._arrays[name]

    def _flush(self, array: zarr.Array, index: tuple[int, int]) -> None:
        """Have the chunk on the disk itself, not in a cache that a power cut would empty."""
        if is_remote(self.path):
            return
        key = array.metadata.encode_chunk_key((*index, *(0,) * (array.ndim - 2)))
        path = Path(self.path, array.path, key)
        if path.exists():  # a chunk of nothing but the fill value has no file
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def finish(self) -> None:
        """Once every tile is complete: make the Gram matrices, and drop what they were made of."""
        assert self.group is not None
        if self.group.attrs.get("finished") or self.missing():
            return
        with readable_failures(self.path):
            if not self.group.attrs.get("grams"):
                for name in (
                    list(_node(self.group, SCRATCH).group_keys()) if SCRATCH in self.group else ()
                ):
                    _finish_gram(self.group, name)
                self.group.attrs["grams"] = True
            remove(f"{self.path.rstrip('/')}/{SCRATCH}")
            if not is_remote(self.path):
                for left in Path(self.path).rglob("*.partial"):  # of writes that were killed
                    left.unlink(missing_ok=True)
            self.group.attrs["finished"] = True

    def tree(self) -> xr.DataTree:
        return open_trace(self.path)

    def abandon(self) -> None:
        """Leave nothing behind of a store that was made here and never got a whole tile."""
        if self._made and (self.group is None or len(self.missing()) == len(list(self.tiling))):
            remove(self.path)


def open_trace(path: str | os.PathLike[str], *, chunks: Any = None) -> xr.DataTree:
    """The trace in a store, read lazily. ``chunks={}`` gives Dask arrays, for what does not fit in
    memory.

    A run that is not finished opens too, with NaN where samples are missing, and a warning that
    says how many. Raises ValueError where there is no trace, one of another format, or one whose
    files are damaged."""
    path = located(path)
    with damage_named(path):
        return _opened(path, chunks)


def _opened(path: str, chunks: Any) -> xr.DataTree:
    group = _open(path, mode="r")
    if group is None:
        raise ValueError(f"no trace at {path}: expected a store made by xhat.trace(…, store=…)")
    _check_format(path, dict(group.attrs))
    done = _node(group, COMPLETE)[:] if COMPLETE in group else np.ones((1, 1))
    if (done == 0).any():
        warnings.warn(
            f"{path} is not finished: {int((done == 0).sum())} of {done.size} batches are missing (NaN). "
            "The call that made it goes on where it stopped",
            stacklevel=3,
        )
    tree = xr.open_datatree(path, engine="zarr", consolidated=False, chunks=chunks)  # type: ignore[arg-type]
    return _tidy(tree, list(json.loads(str(group.attrs.get("config", "{}"))).get("hooks", {})))


def _tidy(tree: xr.DataTree, names: list[str]) -> xr.DataTree:
    """The tree as it would be in memory: without the store's own bookkeeping, texts as numpy's,
    points in order.
    """
    groups = {"/": tree.to_dataset(inherit=False)}
    activations = tree.children.get(ACTIVATIONS)
    found = dict(activations.children) if activations is not None else {}
    for name in sorted(found, key=lambda n: (names.index(n) if n in names else len(names), n)):
        groups[f"/{ACTIVATIONS}/{name}"] = found[name].to_dataset(inherit=False)
    for group, dataset in groups.items():
        texts = {k: c for k, c in dataset.coords.items() if c.dtype.kind not in "biufc"}
        dataset = dataset.assign_coords(
            {k: (c.dims, np.array([str(x) for x in c.values])) for k, c in texts.items()}
        )
        dataset.attrs = {k: v for k, v in dataset.attrs.items() if k not in BOOKKEEPING}
        groups[group] = dataset
    return xr.DataTree.from_dict(groups)


def write_tree(path: str, tree: xr.DataTree) -> None:
    """Write a trace that is in memory. Raises ValueError where there is something already."""
    if _open(path) is not None:
        raise ValueError(f"{path} holds a trace already: give another store, or remove it")
    whole = tree.map_over_datasets(_texts_as_objects)
    whole.attrs |= {"xhat_format": FORMAT, "ready": True, "finished": True}
    with readable_failures(path):
        whole.to_zarr(path, mode="w-", consolidated=False, zarr_format=3)


def _texts_as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """Zarr v3 has a specification for texts of any length, and none for numpy's of fixed length."""
    texts = {k: c for k, c in dataset.coords.items() if c.dtype.kind == "U"}
    return dataset.assign_coords({k: (c.dims, c.values.astype(object)) for k, c in texts.items()})


def remove(path: str) -> None:
    """Delete a store."""
    if is_remote(path):
        import fsspec

        fs, root = fsspec.core.url_to_fs(path)
        if fs.exists(root):
            fs.rm(root, recursive=True)
    else:
        local = Path(path)
        for _ in range(
            50
        ):  # after a failure, zarr's other threads may still be putting files there
            shutil.rmtree(local, ignore_errors=True)
            if not local.exists():
                return
            time.sleep(0.02)


def _open(path: str, mode: Any = "r+") -> zarr.Group | None:
    """The group at ``path``, None where there is nothing. Raises ValueError for what is no
    trace.
    """
    local = Path(path)
    try:
        group = zarr.open_group(path, mode=mode)
    except FileNotFoundError:
        if is_remote(path) or not _holds_something(local):
            return None
        if (local / "zarr.json").exists():  # another process made it just now
            return _open(path, mode)
        raise ValueError(f"{path} is there already and is no trace: give another store") from None
    if "xhat_format" not in group.attrs:
        raise ValueError(f"{path} is a Zarr store, but not a trace of xhat: give another store")
    return group


def _holds_something(path: Path) -> bool:
    """Whether there is more than what zarr leaves of a file that it was about to make when it was
    killed.
    """
    return path.is_file() or (
        path.is_dir() and any(not p.name.endswith(".partial") for p in path.iterdir())
    )


def _check_format(path: str, attrs: Mapping[str, Any]) -> None:
    found = attrs["xhat_format"]
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        way_out = (
            "upgrade xhat to read it"
            if newer
            else "read it with the xhat that wrote it, or trace again"
        )
        raise ValueError(
            f"{path} has trace format {found!r}, this xhat writes and reads {FORMAT}: {way_out}"
        )


def _difference(path: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = [k for k in sorted({*there, *here}) if there.get(k) != here.get(k)]
    shown = "; ".join(
        f"{k}: {_short(there.get(k))} there, {_short(here.get(k))} here" for k in names[:4]
    )
    return f"{path} belongs to another run ({shown}): give another store, or remove this one"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _finish_gram(group: zarr.Group, name: str) -> None:
    raw = _node(group, f"{SCRATCH}/{name}/value")
    samples, features, middle = raw.shape[0] * raw.shape[1], raw.shape[-1], raw.shape[2:-1]
    names = raw.metadata.dimension_names  # type: ignore[union-attr]
    target = group.create_array(
        f"{ACTIVATIONS}/{name}/value",
        shape=(*middle, samples, samples),
        chunks=(*(1,) * len(middle), samples, samples),
        dtype="float64",
        fill_value=np.nan,
        dimension_names=(*names[2:-1], "sample", "sample_other"),
        overwrite=True,
    )
    for at in np.ndindex(*middle):

        def read(columns: slice, at: tuple[int, ...] = at) -> np.ndarray:
            return np.asarray(raw[(slice(None), slice(None), *at, columns)]).reshape(samples, -1)

        target[at] = centred_gram(read, features, samples)


def _node(group: zarr.Group, path: str) -> Any:
    return group[path]
