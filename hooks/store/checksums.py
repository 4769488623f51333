"""Checksums of every file of a store, bound to its place.

The codecs of each chunk end in Zarr's crc32c, so that any reader notices a chunk that was cut or
changed. That does not tell a chunk that is gone from one that was never written, nor a chunk from
its neighbour's. Therefore a store also keeps a CRC-32 of the key and bytes of every file: of
metadata and coordinates in the attributes of its root, of a tile's chunks in ``run/checksums``."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from zarr.abc.store import RangeByteRequest, Store
from zarr.storage import WrapperStore

from xhat.hooks.describe import canonical
from xhat.hooks.store.failures import COPY, REPAIR, DamagedTrace
from xhat.hooks.store.schema import SCRATCH
from xhat.hooks.store.tiles import Tiling

ROOT, TILES = "zarr.json", "run/checksums"
SEAL = "seal"

Index = tuple[int, int]


def checksum_of(key: str, data: bytes) -> int:
    """CRC-32 of a key and of what lies there."""
    return zlib.crc32(data, zlib.crc32(key.encode()))


def pieces_of(key: str, data: bytes, inner: int) -> list[int]:
    """Checksums of what can be read apart: of a chunk; or of a shard's index, and of each of its
    ``inner`` chunks with the place where it begins.

    An index is (offset, length) of each chunk in 64 bits, and its own crc32c."""
    if not inner:
        return [checksum_of(key, data)]
    index = data[-_index_bytes(inner) :]
    places = np.frombuffer(index[:-4], "<u8").reshape(-1, 2).tolist()
    parts = [checksum_of(f"{key}@{o}", data[o : o + n]) for o, n in places]
    return [checksum_of(f"{key}@", index), *parts]


def _index_bytes(inner: int) -> int:
    return 16 * inner + 4


@dataclass
class Checksums:
    """What the files of a store at ``path`` must be.

    ``sealed``: key → checksum, of all that is neither the root's metadata nor a tile's chunk.
    ``inner``: variable → chunks in each of its shards, 0 where it has none. ``tiles``: (tile row,
    tile column, piece), uint32, the pieces in the order of ``inner``; zeros where a tile is not
    complete. ``grams``: whether Gram matrices are made, so that nothing in scratch is expected any
    more. ``written``: what was put by this process and is not yet in ``tiles``."""

    path: str
    sealed: dict[str, int] = field(default_factory=dict)
    inner: Mapping[str, int] = field(default_factory=dict)
    tiling: Tiling | None = None
    tiles: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint32))
    grams: bool = False
    written: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = np.cumsum([1 + n for n in self.inner.values()], dtype=int).tolist()
        starts = [0, *ends][: len(ends)]
        self._places = {
            name: slice(a, b) for name, a, b in zip(self.inner, starts, ends, strict=True)
        }

    @property
    def count(self) -> int:
        """How many pieces a tile has."""
        return sum(1 + n for n in self.inner.values())

    @property
    def complete(self) -> np.ndarray:
        """Which tiles are, (row, column)."""
        return np.asarray(self.tiles.any(axis=-1))

    def row(self, sums: Mapping[str, list[int]]) -> np.ndarray:
        """A tile's row: pieces by variable in their places, zeros for variables without any."""
        row = np.zeros(self.count, np.uint32)
        for name, values in sums.items():
            row[self._places[name]] = values
        return row

    def place(self, key: str) -> tuple[str, Index] | None:
        """(variable, tile) of a chunk's key; None for what belongs to no tile."""
        name, _, rest = key.rpartition("/c/")
        if name not in self.inner:
            return None
        digits = rest.split("/")
        if len(digits) < 2 or not all(d.isdigit() for d in digits):
            return None
        return name, (int(digits[0]), int(digits[1]))

    def note(self, key: str, data: bytes) -> None:
        """Remember what is being written."""
        place = self.place(key)
        if place is not None:
            self.written[key] = pieces_of(key, data, self.inner[place[0]])
        elif key != ROOT and not key.startswith(f"{TILES}/c/"):
            self.sealed[key] = checksum_of(key, data)

    def is_blank(self, key: str) -> bool:
        """Whether a chunk belongs to a tile that is not complete: what is there is of no run."""
        place = self.place(key)
        return place is not None and not self.complete[place[1]]

    def check(self, key: str, data: bytes | None, byte_range: Any = None) -> None:
        """Raises DamagedTrace where ``data`` is not what was written there (None: nothing is)."""
        place = self.place(key)
        if key not in self.sealed and place is None:
            return
        if data is None:
            raise self.damage(key, "is missing")
        if not self._matches(key, data, place, byte_range):
            raise self.damage(key, "is not what was written")

    def _matches(
        self, key: str, data: bytes, place: tuple[str, Index] | None, byte_range: Any
    ) -> bool:
        if place is None:
            return checksum_of(key, data) == self.sealed[key]
        name, index = place
        expected = self.tiles[index][self._places[name]].tolist()
        if isinstance(byte_range, RangeByteRequest):
            return checksum_of(f"{key}@{byte_range.start}", data) in expected[1:]
        if byte_range is not None:  # the index at a shard's end
            return checksum_of(f"{key}@", data) == expected[0]
        inner = self.inner[name]
        if inner and checksum_of(f"{key}@", data[-_index_bytes(inner) :]) != expected[0]:
            return False
        return pieces_of(key, data, inner) == expected

    def damage(self, key: str, what: str) -> DamagedTrace:
        place, where = self.place(key), ""
        if place is not None and self.tiling is not None:
            tile = self.tiling[place[1]]
            where = f" (prompts {_span(tile.prompts)}, seeds {_span(tile.seeds)} by position)"
        way_out = COPY if self.tiling is None else REPAIR
        return DamagedTrace(f"{self.path} is damaged: {key} {what}{where}. {way_out}")

    def seal(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """What the root's attributes say of themselves and of the files beside the tiles."""
        return {"files": dict(sorted(self.sealed.items())), "attributes": _attributes(attrs)}

    @classmethod
    def read(cls, path: str, attrs: Mapping[str, Any]) -> Checksums:
        """From the root's attributes. Raises DamagedTrace where those are not what was written."""
        seal = attrs[SEAL]
        if not isinstance(seal, Mapping) or seal.get("attributes") != _attributes(attrs):
            raise DamagedTrace(f"{path} is damaged: {ROOT} is not what was written. {COPY}")
        tiling = Tiling.read(path, attrs["tiling"]) if "tiling" in attrs else None
        sums = cls(path, dict(seal["files"]), dict(attrs.get("chunks", {})), tiling)
        sums.grams = bool(attrs.get("grams"))
        return sums

    def forget_scratch(self) -> None:
        """Once Gram matrices are made, what they were made of is not expected any more."""
        self.grams = True
        self.sealed = {k: v for k, v in self.sealed.items() if not k.startswith(f"{SCRATCH}/")}


def _attributes(attrs: Mapping[str, Any]) -> int:
    return zlib.crc32(canonical({k: v for k, v in attrs.items() if k != SEAL}).encode())


def _span(positions: range) -> str:
    return str(positions[0]) if len(positions) == 1 else f"{positions[0]}–{positions[-1]}"


class Checked(WrapperStore[Store]):
    """A Zarr store that gives what was written there, or raises DamagedTrace; chunks of tiles that
    are not complete are not there. It remembers the keys that it made."""

    def __init__(self, store: Store, sums: Checksums, made: set[str] | None = None) -> None:
        super().__init__(store)
        self.sums = sums
        self.made: set[str] = set() if made is None else made

    def _with_store(self, store: Store) -> Checked:
        return Checked(store, self.sums, self.made)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if self.sums.is_blank(key):
            return None
        value = await self._store.get(key, prototype, byte_range)
        self.sums.check(key, None if value is None else value.to_bytes(), byte_range)
        return value

    async def get_partial_values(
        self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]
    ) -> list[Any]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, Any, Any]]
    ) -> AsyncGenerator[tuple[str, Any], None]:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    async def set(self, key: str, value: Any) -> None:
        self.sums.note(key, value.to_bytes())
        if not await self._store.exists(key):
            self.made.add(key)
        await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        if not await self._store.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        self.sums.sealed.pop(key, None)
        await self._store.delete(key)
