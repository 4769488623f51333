"""Traces read from their stores: lazily, and nothing that is not what was written."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store

from xhat.hooks.store import files
from xhat.hooks.store.checksums import SEAL, TILES, Checked, Checksums
from xhat.hooks.store.failures import REPAIR, damage_named
from xhat.hooks.store.locks import located
from xhat.hooks.store.root import BOOKKEEPING, root_attributes
from xhat.hooks.store.schema import ACTIVATIONS, SCRATCH


def open_trace(path: str | os.PathLike[str], *, chunks: Any = "tiles") -> xr.DataTree:
    """The trace in a store, read lazily, as Dask arrays of the chunks that it was written in.

    A run that is not finished opens too, with NaN (and black images) where samples are missing, and
    a warning that says how many.

    Parameters
    ----------
    path
        Folder or URL of a store that ``xhat.trace`` or a ``Tracer`` made.
    chunks
        ``"tiles"``, Dask's own chunk sizes, or None for arrays that are read whole when they are
        touched.

    Raises
    ------
    ValueError
        Where there is no trace, or one of another format.
    DamagedTrace
        A ValueError, where a file is missing, or is not what was written. Metadata, coordinates and
        the presence of every file are checked here, the content of each chunk when it is read.
    """
    path = located(path)
    attrs = root_attributes(path)
    if attrs is None:
        raise ValueError(f"no trace at {path}: expected a store made by xhat.trace(…, store=…)")
    if SEAL not in attrs:
        raise ValueError(f"{path} was being made when its run was stopped: trace again")
    checked = checked_store(path, files.store_at(path, read_only=True), attrs)
    done = checked.sums.complete
    if checked.sums.tiling is not None and not done.all():
        warnings.warn(
            f"{path} is not finished: {int((~done).sum())} of {done.size} batches are missing "
            "(NaN, black in images). The call that made it goes on where it stopped",
            stacklevel=2,
        )
    with damage_named(path):
        tree = xr.open_datatree(
            checked,  # type: ignore[arg-type]
            engine="zarr",
            consolidated=False,
            zarr_format=3,
            chunks={} if chunks == "tiles" else chunks,
        )
        return _tidy(tree, list(json.loads(str(attrs.get("config", "{}"))).get("hooks", {})))


def checked_store(path: str, store: Store, attrs: dict[str, Any]) -> Checked:
    """The store with its checksums. Raises DamagedTrace where metadata, a coordinate or a tile's
    file is not there, or not what was written.
    """
    sums = Checksums.read(path, attrs)
    checked = Checked(store, sums)
    for key in sums.sealed:
        files.read(checked, key)
    if sums.tiling is not None:
        with damage_named(f"{path}/{TILES}", REPAIR):
            sums.tiles = tiles_of(checked)[:]
        if attrs.get("finished") and not sums.complete.all():
            i, j = np.argwhere(~sums.complete)[0]
            raise sums.damage(f"{TILES}/c/{i}/{j}/0", "is missing")
        for name, (i, j) in absent(sums, files.keys(store)):
            raise sums.damage(f"{name}/c/{i}/{j}", "is missing")
    return checked


def tiles_of(store: Store) -> Any:
    """The array of tiles' checksums."""
    return zarr.open_group(store, mode="r" if store.read_only else "r+", zarr_format=3)[TILES]


def absent(sums: Checksums, keys: Iterable[str]) -> list[tuple[str, tuple[int, int]]]:
    """(variable, tile) of the chunks of complete tiles that are not among ``keys``."""
    there = {place for key in keys if (place := sums.place(key)) is not None}
    # once a tile has no pieces of a variable, it is not expected: Gram matrices were made of it
    expected = [
        (name, (int(i), int(j)))
        for name in sums.inner
        for i, j in np.argwhere(sums.complete)
        if not (name.startswith(f"{SCRATCH}/") and sums.grams)
    ]
    return [place for place in expected if place not in there]


def _tidy(tree: xr.DataTree, names: list[str]) -> xr.DataTree:
    """The tree as it would be in memory: without the store's own bookkeeping, texts as numpy's,
    points in order.
    """
    groups = {"/": tree.to_dataset(inherit=False)}
    activations = tree.children.get(ACTIVATIONS)
    points = dict(activations.children) if activations is not None else {}
    for name in sorted(points, key=lambda n: (names.index(n) if n in names else len(names), n)):
        groups[f"/{ACTIVATIONS}/{name}"] = points[name].to_dataset(inherit=False)
    for group, dataset in groups.items():
        texts = {k: c for k, c in dataset.coords.items() if c.dtype.kind not in "biufc"}
        dataset = dataset.assign_coords(
            {k: (c.dims, np.array([str(x) for x in c.values])) for k, c in texts.items()}
        )
        dataset.attrs = {k: v for k, v in dataset.attrs.items() if k not in BOOKKEEPING}
        groups[group] = dataset
    return xr.DataTree.from_dict(groups)
