"""Measurements that are made once: a netCDF file each, under a key of everything it depends on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

from xhat.analysis.files import DamagedFile, read_dataset, write_dataset
from xhat.hooks.describe import checksum, versions

DIGITS = 24  # hexadecimal, of a checksum in a file name: 96 bits


class RemadeWarning(UserWarning):
    """A cached file was damaged, and what it held is made again."""


@dataclass(frozen=True)
class Cache:
    """Measurements by name and key, in a folder, or in memory where there is none.

    A file is ``FOLDER/<name>-<key>-<content>.nc``: the key is a checksum of all that the
    measurement depends on and of the versions of the libraries below, so that what was measured
    otherwise is never read; the content is a checksum of the file, so that a damaged one is seen,
    named in a warning, and made again. Files are written whole or not at all, and a run that was
    stopped goes on with those that are there. A name may hold folders: ``"student/samples"``.
    """

    folder: Path | None = None
    _memory: dict[str, xr.Dataset] = field(default_factory=dict, repr=False, compare=False)

    def get(self, name: str, key: Mapping[str, Any], make: Callable[[], xr.Dataset]) -> xr.Dataset:
        """What was kept under ``name`` and ``key``, or what ``make()`` gives, which is kept."""
        there = self.read(name, key)
        if there is not None:
            return there
        made = make()
        self.write(name, key, made)
        return made

    def holds(self, name: str, key: Mapping[str, Any]) -> bool:
        """Whether there is something under ``name`` and ``key``; it may turn out to be damaged."""
        if self.folder is None:
            return _stem(name, key) in self._memory
        return bool(self._paths(name, key))

    def read(self, name: str, key: Mapping[str, Any]) -> xr.Dataset | None:
        """What was kept, None where nothing was or where its file is damaged, which is warned of.

        Warns
        -----
        RemadeWarning
            Names the damaged file, which is removed.
        """
        if self.folder is None:
            return self._memory.get(_stem(name, key))
        for path in self._paths(name, key):
            try:
                return read_dataset(path, path.stem.rpartition("-")[2])
            except DamagedFile as error:
                warnings.warn(f"{error}; it is made again", RemadeWarning, stacklevel=2)
                path.unlink(missing_ok=True)
        return None

    def write(self, name: str, key: Mapping[str, Any], data: xr.Dataset) -> None:
        """Keep ``data`` under ``name`` and ``key``."""
        stem = _stem(name, key)
        if self.folder is None:
            self._memory[stem] = data
            return
        path = self.folder / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".") as room:
            digest = write_dataset(data, Path(room) / "data.nc")
            (Path(room) / "data.nc").replace(path.with_name(f"{path.name}-{digest[:DIGITS]}.nc"))

    def _paths(self, name: str, key: Mapping[str, Any]) -> list[Path]:
        assert self.folder is not None
        stem = self.folder / _stem(name, key)
        return sorted(stem.parent.glob(f"{escape(stem.name)}-*.nc"))


def _stem(name: str, key: Mapping[str, Any]) -> str:
    return f"{name}-{checksum({'key': key, 'versions': versions()})[:DIGITS]}"
