"""Results that are made once: a netCDF file each, under a key of everything that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.hooks.describe import checksum, versions


def kept(folder: Path | None, name: str, key: Mapping[str, Any], make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """What ``make()`` gives, from ``FOLDER/NAME-<hash of key and versions>.nc`` where that is there already.

    Written whole or not at all, so a run that was killed makes again only what it was at. Without a folder, it is made.
    """
    if folder is None:
        return make()
    path = folder / f"{name}-{checksum({'key': key, 'versions': versions()})[:16]}.nc"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        make().to_netcdf(partial, engine="h5netcdf")
        partial.replace(path)
    with xr.open_dataset(path, engine="h5netcdf") as data:
        return data.load()
