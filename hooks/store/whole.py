"""A trace that is in memory, written at once."""

from __future__ import annotations

import os

import xarray as xr
import zarr

from xhat.hooks.store import files
from xhat.hooks.store.checksums import SEAL, Checked, Checksums
from xhat.hooks.store.failures import readable_failures
from xhat.hooks.store.layout import compressors
from xhat.hooks.store.locks import located, locked
from xhat.hooks.store.root import FORMAT, root_attributes


def save_trace(trace: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a trace that is in memory, for :func:`xhat.open_trace`.

    Parameters
    ----------
    trace
        Of :func:`xhat.trace`, or of :func:`xhat.concat`.
    path
        Folder or URL.

    Raises
    ------
    ValueError
        Where there is something already; as ``StoreInUse`` where another run is writing.
    """
    path = located(path)
    with locked(path), readable_failures(path):
        if root_attributes(path) is not None:
            raise ValueError(f"{path} holds a trace already: give another store, or remove it")
        store = Checked(files.store_at(path), Checksums(path))
        whole = trace.map_over_datasets(_texts_as_objects)
        whole.attrs |= {"xhat_format": FORMAT, "finished": True}
        try:
            encoding = {
                node.path: _encoding(node.to_dataset(inherit=False), node.path)
                for node in whole.subtree
            }
            whole.to_zarr(store, mode="w-", consolidated=False, zarr_format=3, encoding=encoding)
            group = zarr.open_group(store, mode="r+", zarr_format=3)
            group.update_attributes({SEAL: store.sums.seal(dict(group.attrs))})
        except BaseException:
            files.remove_files(path, store, store.made)
            raise


def _encoding(dataset: xr.Dataset, path: str) -> dict[str, dict[str, object]]:
    return {
        str(name): {"compressors": compressors(f"{path}/{name}".lstrip("/"), v.dtype)}
        for name, v in dataset.variables.items()
    }


def _texts_as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """Zarr v3 has a specification for texts of any length, and none for numpy's of fixed length."""
    texts = {k: c for k, c in dataset.coords.items() if c.dtype.kind == "U"}
    return dataset.assign_coords({k: (c.dims, c.values.astype(object)) for k, c in texts.items()})
