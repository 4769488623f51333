"""Files written whole or not at all: texts, and datasets as netCDF that come back exactly.

netCDF has no booleans, mappings, empty lists or lists of one among attributes; such attributes are
written as JSON, and an attribute ``xhat_json`` names them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.hooks.describe import jsonable

JSON_NAMES = "xhat_json"


class DamagedFile(ValueError):
    """A file that cannot be what was written: truncated, altered, or of another kind."""


class ForeignFolder(ValueError):
    """A place for results that is not free: a file, or a folder with results of another
    experiment, or of none.
    """


def check_folder(folder: Path) -> None:
    """Raises :class:`ForeignFolder` where no folder can be, for a file is there or above it."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ForeignFolder(f"{place} is a file: give a folder for the results")


def check_file(path: Path) -> None:
    """Raises :class:`ForeignFolder` where no file can be written."""
    check_folder(path.parent)
    if path.is_dir():
        raise ForeignFolder(f"{path} is a folder: give the name of a file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` that takes its place at the end of the block, and not before.

    Where the block fails, the new file is removed and the old one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_dataset(data: xr.Dataset, path: Path) -> str:
    """Write ``path`` (netCDF 4, numbers compressed), whole or not at all.

    Returns
    -------
    str
        sha256 of the file, for :func:`read_dataset`.
    """
    packed = {
        name: {"compression": "gzip", "shuffle": True}
        for name, variable in data.data_vars.items()
        if variable.dtype.kind in "fiu"
    }
    with replacing(path) as partial:
        _with_attrs(data, _encoded).to_netcdf(partial, engine="h5netcdf", encoding=packed)
        return file_digest(partial)


def read_dataset(path: Path, digest: str | None = None) -> xr.Dataset:
    """The dataset in ``path``, in memory.

    Parameters
    ----------
    digest
        What the file's sha256 begins with, where that is known.

    Raises
    ------
    DamagedFile
        Where the content is not that of ``digest``, and where the file cannot be read.
    """
    if digest is not None and not file_digest(path).startswith(digest):
        raise DamagedFile(f"{path} is damaged: its content is not what was written")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            return _with_attrs(data.load(), _decoded)
    except FileNotFoundError:
        raise
    except Exception as error:  # h5py and xarray raise many kinds for bytes that make no sense
        raise DamagedFile(f"{path} cannot be read as netCDF: {error}") from error


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def plain(data: xr.Dataset) -> xr.Dataset:
    """The same with attributes in JSON's own types, as they will be when read back."""
    return _with_attrs(data, lambda attrs: {str(k): jsonable(v) for k, v in attrs.items()})


def _with_attrs(
    data: xr.Dataset, change: Callable[[Mapping[Hashable, Any]], dict[str, Any]]
) -> xr.Dataset:
    changed = data.copy()
    changed.attrs = change(data.attrs)
    for name, variable in changed.variables.items():
        variable.attrs = change(data.variables[name].attrs)
    return changed


def _encoded(attrs: Mapping[Hashable, Any]) -> dict[str, Any]:
    values = {str(k): jsonable(v) for k, v in attrs.items()}
    as_json = [name for name, value in values.items() if not _has_netcdf(value)]
    encoded = {
        name: json.dumps(values[name]) if name in as_json else values[name] for name in values
    }
    return encoded | ({JSON_NAMES: json.dumps(as_json)} if as_json else {})


def _has_netcdf(value: Any) -> bool:
    """Whether netCDF gives a value back as it was: a number or a text."""
    if isinstance(value, str):
        return value != "" and "\0" not in value
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _decoded(attrs: Mapping[Hashable, Any]) -> dict[str, Any]:
    values = {str(k): v.item() if isinstance(v, np.generic) else v for k, v in attrs.items()}
    for name in json.loads(values.pop(JSON_NAMES, "[]")):
        values[name] = json.loads(values[name])
    return values
