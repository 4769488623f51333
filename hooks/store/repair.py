"""What of a store is damaged, so that the run that made it can make it again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xhat.hooks.store import files
from xhat.hooks.store.checksums import TILES, Checked, Checksums, Index
from xhat.hooks.store.failures import DamagedTrace
from xhat.hooks.store.reading import absent, tiles_of
from xhat.hooks.store.schema import ACTIVATIONS, SCRATCH


def damaged(store: Checked) -> tuple[list[str], list[Index]]:
    """Files beside the tiles, and tiles, that are missing or not what was written.

    Reads every file of the store, and fills in the checksums of its tiles."""
    sums = store.sums
    lost = [key for key in sums.sealed if _is_lost(store, key)]
    assert sums.tiling is not None
    sums.tiles = np.zeros((*sums.tiling.shape, sums.count), np.uint32)
    if f"{TILES}/{files.METADATA}" in lost:
        return lost, list(sums.tiling)
    rows = tiles_of(store)
    bad = {index for index in sums.tiling if not _row_read(rows, index, sums)}
    keys = files.keys(store)
    bad |= {index for _, index in absent(sums, keys)}
    for key in keys:
        place = sums.place(key)
        if place is not None and sums.complete[place[1]] and _is_lost(store, key):
            bad.add(place[1])
    return lost, sorted(bad)


def lost_grams(sums: Checksums, lost: list[str]) -> Iterator[str]:
    """Points whose Gram matrices are among the lost files: they are made of every tile."""
    for variable in sums.inner:
        _, _, name = variable.removesuffix("/value").partition(f"{SCRATCH}/")
        if name and any(key.startswith(f"{ACTIVATIONS}/{name}/value/") for key in lost):
            yield name


def _is_lost(store: Checked, key: str) -> bool:
    try:
        files.read(store, key)
    except DamagedTrace:
        return True
    return False


def _row_read(rows: Any, index: Index, sums: Checksums) -> bool:
    """Whether the checksums of a tile could be read."""
    try:
        sums.tiles[index] = rows[index]
    except ValueError:
        return False
    return True
