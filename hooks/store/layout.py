"""How a trace lies in its store: arrays, chunks, compression, coordinates; and whether there is
room for it.
"""

from __future__ import annotations

import errno
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from xhat.hooks.points.table import bytes_text
from xhat.hooks.store.checksums import TILES
from xhat.hooks.store.locks import is_remote
from xhat.hooks.store.schema import ACTIVATIONS, SAMPLES, SCRATCH, Schema, Variable
from xhat.hooks.store.tiles import Tiling

SPLIT = 1 << 20  # bytes of a tile of one array, above which its steps can be read apart


def check_room(path: str, schema: Schema, tiling: Tiling) -> None:
    """Raises OSError where the run cannot fit, even if half of it is compressed away; warns where
    it may not.
    """
    if is_remote(path):
        return
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, schema.nbytes * tiling.prompts * tiling.seeds
    text = (
        f"the trace needs up to {bytes_text(needed)}, and {bytes_text(free)} are free at {folder}"
    )
    if needed > 2 * free:
        raise OSError(
            errno.ENOSPC,
            f"no room: {text}. Keep fewer points, reduce them more, or use another disk",
        )
    if needed > free:
        warnings.warn(f"{text}; it fits only as far as it compresses", stacklevel=2)


def inner_chunks(variable: Variable, tiling: Tiling) -> int:
    """How many chunks a tile of a variable is divided into, one a step; 0 where it is not."""
    large = variable.nbytes * tiling.height * tiling.width > SPLIT
    return variable.shape[variable.dims.index("step")] if large and "step" in variable.dims else 0


def empty_store(
    attrs: Mapping[str, Any], schema: Schema, samples: Mapping[str, np.ndarray], tiling: Tiling
) -> dict[str, Any]:
    """The files of a trace without any tile, key → bytes as Zarr holds them: metadata and
    coordinates.
    """
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3, attributes=dict(attrs))
    for name, variable in schema.variables.items():
        _create(group, name, variable, tiling)
    _write_coords(group, schema, samples)
    count = sum(1 + inner_chunks(v, tiling) for v in schema.variables.values())
    group.create_array(
        TILES,
        shape=(*tiling.shape, count),
        chunks=(1, 1, count),
        dtype="uint32",
        compressors=Crc32cCodec(),
        dimension_names=("prompt_tile", "seed_tile", "piece"),
        fill_value=0,
    )
    return files


def _create(group: zarr.Group, name: str, variable: Variable, tiling: Tiling) -> None:
    tile = (tiling.height, tiling.width, *variable.shape)
    shape = (tiling.prompts, tiling.seeds, *variable.shape)
    apart = inner_chunks(variable, tiling) > 0
    chunks = (
        tuple(
            1 if d == "step" else n for d, n in zip((*SAMPLES, *variable.dims), tile, strict=True)
        )
        if apart
        else tile
    )
    group.create_array(
        name,
        shape=shape,
        dtype=variable.dtype,
        chunks=chunks,
        shards=tile if apart else None,
        dimension_names=(*SAMPLES, *variable.dims),
        fill_value=np.nan if variable.dtype.kind == "f" else 0,
        compressors=compressors(name, variable.dtype),
        config={"write_empty_chunks": True},  # one that is not there is one that was lost
    )


def compressors(path: str, dtype: np.dtype) -> tuple[BloscCodec | Crc32cCodec, ...]:
    """What the chunks of a variable go through; the checksum last.

    x̂₀, latents and pictures: zstd on sorted bytes (pictures: sorted bits), which saves a fifth to
    two fifths at some hundred MB/s; higher levels gain 2 % more at a third of the speed.
    Activations are noise in their low bits: zstd saves a tenth of them and takes five times as long
    as their writing, so they lie as they are. So do texts."""
    if path.split("/")[0] in (ACTIVATIONS, SCRATCH) or dtype.kind == "O":
        return (Crc32cCodec(),)
    shuffle = "bitshuffle" if dtype.itemsize == 1 else "shuffle"
    blosc = BloscCodec(cname="zstd", clevel=3, shuffle=shuffle, typesize=dtype.itemsize)  # type: ignore[arg-type]
    return blosc, Crc32cCodec()


def _write_coords(group: zarr.Group, schema: Schema, samples: Mapping[str, np.ndarray]) -> None:
    for where, attrs in schema.attrs.items():
        if where:
            group.require_group(where).update_attributes(
                dict(attrs)
            )  # at once: attrs.update writes a file a key
    coords = dict(schema.coords)
    coords[""] = dict(coords[""]) | {name: (name, values) for name, values in samples.items()}
    for where, names in coords.items():
        for name, (dim, values) in names.items():
            _coordinate(group, f"{where}/{name}".lstrip("/"), dim, values)


def _coordinate(group: zarr.Group, path: str, dim: str, values: np.ndarray) -> None:
    text = values.dtype.kind in "UO"
    array = group.create_array(
        path,
        shape=values.shape,
        dtype="str" if text else values.dtype,
        dimension_names=(dim,),
        compressors=(ZstdCodec(level=0), Crc32cCodec()),
        config={"write_empty_chunks": True},
    )
    array[:] = values.astype(object) if text else values
