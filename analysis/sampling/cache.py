"""Results that are made once: a netCDF file each, under a key of everything that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.hooks.describe import checksum, versions


def kept_path(folder: Path, name: str, key: Mapping[str, Any]) -> Path:
    """``FOLDER/NAME-<hash of the key and of the versions of the libraries below>.nc``."""
    return folder / f"{name}-{checksum({'key': key, 'versions': versions()})[:16]}.nc"


def read_or_make(
    folder: Path, name: str, key: Mapping[str, Any], make: Callable[[], xr.Dataset]
) -> xr.Dataset:
    """What ``make()`` gives, read from its file where that is there, else made and written, whole
    or not at all.
    """
    path = kept_path(folder, name, key)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        make().to_netcdf(partial, engine="h5netcdf")
        partial.replace(path)
    with xr.open_dataset(path, engine="h5netcdf") as data:
        return data.load()
