"""Traces on disk: Zarr v3, written a tile of samples at a time.

Every stored array has one chunk (or shard) a tile, so a tile is written without reading, by any
process, and a kill at any moment leaves whole tiles alone. ``run/checksums`` says which tiles are
complete, and what their files are: it is set after a tile's data are on disk. A tile that is not
complete is sampled again, to the same bits, when the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from xhat.hooks.describe import checksum
from xhat.hooks.record.record import Array
from xhat.hooks.store import files, repair
from xhat.hooks.store.checksums import ROOT, SEAL, TILES, Checked, Checksums, Index
from xhat.hooks.store.failures import REPAIR, damage_named, readable_failures
from xhat.hooks.store.grams import write_gram
from xhat.hooks.store.layout import check_room, empty_store, inner_chunks
from xhat.hooks.store.locks import SignOfLife, is_remote
from xhat.hooks.store.reading import checked_store, open_trace
from xhat.hooks.store.root import FORMAT, root_attributes
from xhat.hooks.store.schema import ACTIVATIONS, SCRATCH, Schema
from xhat.hooks.store.tiles import Tile, Tiling


class Store:
    """A trace being written to ``path``. Made or continued by :meth:`begin`; other processes may
    :meth:`resume` and :meth:`write` beside it, each a tile of its own. ``renew`` is called after
    each tile, to say that this process is alive.
    """

    def __init__(self, path: str, tiling: Tiling, renew: SignOfLife = lambda: None) -> None:
        self.path, self.tiling, self.renew = path, tiling, renew
        self.config: Mapping[str, Any] = {}
        self.files: Checked | None = None
        self._group: zarr.Group | None = None
        self._arrays: dict[str, Any] = {}  # opening one costs as much as writing a chunk of it
        self._lost: list[str] = []  # files beside the tiles that are to be made again
        self._made = False

    def resume(self, config: Mapping[str, Any], mend: bool = False) -> bool:
        """Open what is there. Returns whether there was something.

        With ``mend``, all of it is read, and what is damaged is forgotten, to be made again.
        Raises ValueError if it is not of the run that ``config`` describes, DamagedTrace if
        something is damaged."""
        self.config = config
        attrs = root_attributes(self.path)
        if attrs is None:
            return False
        if SEAL not in attrs:  # killed while it was being made, or being made by another process
            _check_same(self.path, attrs, config)
            return False
        sums = Checksums.read(self.path, attrs)
        _check_same(self.path, attrs, config)
        self.tiling, store = sums.tiling or self.tiling, files.store_at(self.path)
        self.files = Checked(store, sums) if mend else checked_store(self.path, store, attrs)
        with damage_named(self.path, REPAIR):
            self._group = zarr.open_group(self.files, mode="r+", zarr_format=3)
        if mend:
            self._mend(*repair.damaged(self.files))
        return True

    def missing(self) -> list[Index]:
        """Tiles that are not complete, in order."""
        if self.files is None:
            return list(self.tiling)
        sums = self.files.sums
        if f"{TILES}/{ROOT}" not in self._lost:
            sums.tiles = self._array(TILES)[:]
        return [(int(i), int(j)) for i, j in np.argwhere(~sums.complete)]

    def begin(self, schema: Schema, coords: Mapping[str, np.ndarray]) -> None:
        """Make the store, or make again what was lost of it."""
        if self.files is not None and not self._lost:
            return
        if self.files is None:
            check_room(self.path, schema, self.tiling)
        with readable_failures(self.path):
            if self.files is None:
                self._make(schema, coords)
            else:
                self._restore(schema, coords)

    def _make(self, schema: Schema, coords: Mapping[str, np.ndarray]) -> None:
        chunks = {name: inner_chunks(v, self.tiling) for name, v in schema.variables.items()}
        tiling = self.tiling
        attrs = dict(schema.attrs[""]) | {
            "xhat_format": FORMAT,
            "coordinates": " ".join(schema.coords[""]),
            "config": json.dumps(self.config, ensure_ascii=False),
            "tiling": [tiling.prompts, tiling.seeds, tiling.height, tiling.width],
            "chunks": chunks,
        }
        sums = Checksums(self.path, {}, chunks, tiling)
        sums.tiles = np.zeros((*tiling.shape, sums.count), np.uint32)
        store = self.files = Checked(files.store_at(self.path), sums)
        template = empty_store(attrs, schema, coords, tiling)
        self._made = True
        self._claim(template.pop(ROOT))
        for key, value in template.items():
            files.put(store, key, value)
        self._group = zarr.open_group(store, mode="r+", zarr_format=3)
        self._seal()

    def _claim(self, root: Any) -> None:
        """Put the root's metadata there, unless something else has appeared meanwhile."""
        store = self.files
        assert store is not None
        attrs = root_attributes(self.path)
        if attrs is None:
            files.put_new(store, ROOT, root)
        elif SEAL not in attrs:  # of this run, which was killed while it made its store
            files.put(store, ROOT, root)
        if files.read(store, ROOT) != root.to_bytes():
            raise ValueError(f"another trace appeared at {self.path}: give this one another store")

    def _restore(self, schema: Schema, coords: Mapping[str, np.ndarray]) -> None:
        """Write again what is lost of metadata and coordinates."""
        assert self.files is not None
        assert self._group is not None
        template = empty_store(dict(self._group.attrs), schema, coords, self.tiling)
        for key in template:
            if key != ROOT and (key in self._lost or key not in self.files.sums.sealed):
                files.put(self.files, key, template[key])
        if f"{TILES}/{ROOT}" in self._lost:
            self._forget(list(self.tiling))
        self._lost = []
        self._seal()

    def _mend(self, lost: list[str], bad: list[Index]) -> None:
        """Have what is damaged made again: files beside the tiles by :meth:`begin`, with the first
        tile that is sampled; tiles by being missing.
        """
        assert self.files is not None
        if not lost and not bad:
            return
        sums, self._lost = self.files.sums, lost
        for name in repair.lost_grams(sums, lost):  # each was made of every tile
            bad, sums.grams = list(self.tiling), False
            gram = f"{ACTIVATIONS}/{name}/value/"
            sums.sealed = {k: v for k, v in sums.sealed.items() if not k.startswith(gram)}
        if f"{TILES}/{ROOT}" not in lost:
            self._forget(bad or [next(iter(self.tiling))])
        self._seal(finished=False, grams=sums.grams)

    def _forget(self, tiles: list[Index]) -> None:
        assert self.files is not None
        for index in tiles:
            self._array(TILES)[index] = 0
            self.files.sums.tiles[index] = 0

    def _seal(self, **flags: Any) -> None:
        assert self.files is not None
        assert self._group is not None
        attrs = dict(self._group.attrs) | flags
        self._group.update_attributes(flags | {SEAL: self.files.sums.seal(attrs)})

    def write(self, index: Index, tile: Tile, arrays: Mapping[str, Array]) -> None:
        """Put a tile's arrays (dims sample, …) on disk, and then say that it is complete."""
        assert self.files is not None
        sums, pieces = self.files.sums, {}
        rows, columns = tile.prompts, tile.seeds
        place = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        with readable_failures(self.path):
            for name, array in arrays.items():
                if sums.grams and name.startswith(f"{SCRATCH}/"):
                    continue  # a tile is made again, and the Gram matrices are not
                target = self._array(name)
                shape = (len(rows), len(columns), *array.data.shape[1:])
                target[place] = array.data.reshape(shape)
                key = f"{name}/{_chunk_key(target, index)}"
                pieces[name] = sums.written.pop(key)
                self._flush(key)
            self._array(TILES)[index] = row = sums.row(pieces)
            sums.tiles[index] = row
        self.renew()

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            assert self._group is not None
            self._arrays[name] = self._group[name]
        return self._arrays[name]

    def _flush(self, key: str) -> None:
        """Have the chunk on the disk itself, not in a cache that a power cut would empty."""
        if not is_remote(self.path):
            with Path(self.path, key).open("rb") as file:
                os.fsync(file.fileno())

    def finish(self) -> None:
        """Once every tile is complete: make the Gram matrices, and drop what they were made of."""
        if self.missing():
            return
        assert self.files is not None
        assert self._group is not None
        if self._group.attrs.get("finished"):
            return
        sums = self.files.sums
        with readable_failures(self.path):
            if not sums.grams:
                for name in sums.inner:
                    if name.startswith(f"{SCRATCH}/"):
                        write_gram(self._group, name.split("/")[1])
                sums.forget_scratch()
                self._seal(grams=True)
            files.sweep_partial(self.path)
            scratch = files.keys(self.files, f"{SCRATCH}/")
            ours = [k for k in scratch if sums.place(k) or k.endswith(f"/{ROOT}")]
            files.remove_files(self.path, self.files, ours)
            files.remove_empty_folders(self.path, SCRATCH)  # of a run killed while it removed them
            self._seal(finished=True)

    def tree(self) -> xr.DataTree:
        return open_trace(self.path)

    def abandon(self) -> None:
        """Leave nothing behind that was made here, of a store that never got a whole tile. What
        others put there stays.
        """
        if self._made and self.files and not self.files.sums.complete.any():
            files.remove_files(self.path, self.files, self.files.made)


def _chunk_key(array: zarr.Array[Any], index: Index) -> str:
    return array.metadata.encode_chunk_key((*index, *(0,) * (array.ndim - 2)))


def _check_same(path: str, attrs: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    if attrs.get("checksum") != checksum(config):
        there = difference(json.loads(str(attrs.get("config", "{}"))), config)
        raise ValueError(
            f"{path} belongs to another run ({there}): give another store, or remove this one"
        )


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Of two runs' settings, up to four that are not the same."""
    there, here = _flat(there), _flat(here)
    names = [k for k in sorted({*there, *here}) if there.get(k) != here.get(k)]
    return "; ".join(
        f"{k}: {_short(there.get(k))} there, {_short(here.get(k))} here" for k in names[:4]
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings within settings by their own names: ``call.guidance_scale``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = value if isinstance(value, Mapping) else {}
        flat |= {f"{key}.{k}": v for k, v in inner.items()} if inner else {key: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
