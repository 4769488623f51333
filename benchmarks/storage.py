"""How a trace is best put on disk: ratio and speed of codecs, and of shards, for what a trace
holds.

    python benchmarks/storage.py
    python benchmarks/storage.py --quick

The data are real: x̂₀, an activation and Grams of the embedded base, in half precision and as they
are. Speeds are of uncompressed bytes, with the file system's cache warm; those of one step read a
single step of every sample."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from table import arguments, publish, size_on_disk
from zarr.codecs import BloscCodec, ZstdCodec

import xhat
from xhat.hooks.store.layout import compressors

CODECS: dict[str, Any] = {
    "none": lambda size: None,
    "zstd 3": lambda size: ZstdCodec(level=3),
    "lz4, shuffled": lambda size: BloscCodec(
        cname="lz4", clevel=5, shuffle="shuffle", typesize=size
    ),
    "zstd 1, shuffled": lambda size: BloscCodec(
        cname="zstd", clevel=1, shuffle="shuffle", typesize=size
    ),
    "zstd 3, shuffled": lambda size: BloscCodec(
        cname="zstd", clevel=3, shuffle="shuffle", typesize=size
    ),
    "zstd 3, bits shuffled": lambda size: BloscCodec(
        cname="zstd", clevel=3, shuffle="bitshuffle", typesize=size
    ),
    "zstd 7, shuffled": lambda size: BloscCodec(
        cname="zstd", clevel=7, shuffle="shuffle", typesize=size
    ),
}


def data(seeds: int, steps: int) -> dict[str, np.ndarray]:
    """(samples, step, …) arrays, by name."""
    pipe = xhat.load_pair("demo").base
    found = xhat.trace(
        pipe,
        "a planet",
        seeds=range(seeds),
        hooks={"up.1": "full", "h": "gram"},
        batch_size=16,
        num_inference_steps=steps,
        progress=False,
    )
    x0, up = found["pred_x0"].values[0], found["activations/up.1/value"].values[0]
    gram = found["activations/h/value"].values[:, 1]
    images = found["images"].values[0][:, None]
    half = {
        name: x.astype(np.float16)
        for name, x in (("x̂₀", x0), ("activation up.1", up), ("Gram of h", _unit(gram)))
    }
    whole = {"x̂₀": x0, "activation up.1": up, "Gram of h": gram, "images": images}
    return {
        f"{n}, {x.dtype}": np.ascontiguousarray(x) for x_s in (half, whole) for n, x in x_s.items()
    }


def _unit(gram: np.ndarray) -> np.ndarray:
    """Grams outgrow half precision: scaled to a largest entry of 1."""
    return gram / np.abs(gram).max()


def measured(
    x: np.ndarray, codec: Any, chunks: tuple[int, ...], shards: Any, folder: Path, repeats: int
) -> dict[str, str]:
    path, best = folder / "a.zarr", {"write": np.inf, "read": np.inf, "read one step": np.inf}
    for _ in range(repeats):
        shutil.rmtree(path, ignore_errors=True)
        array = zarr.create_array(
            path,
            shape=x.shape,
            dtype=x.dtype,
            chunks=chunks,
            shards=shards,
            compressors=codec,
            fill_value=0,
        )

        def write(array: Any = array) -> None:
            array[:] = x

        def read(array: Any = array) -> None:
            if not np.array_equal(array[:], x, equal_nan=True):
                raise SystemExit("what was read is not what was written")

        best["write"] = min(best["write"], seconds(write))
        read()
        best["read"] = min(best["read"], seconds(lambda a=array: a[:]))
        best["read one step"] = min(best["read one step"], seconds(lambda a=array: a[:, 0]))
    speeds = {k: f"{x.nbytes / v / 2**20:.0f}" for k, v in best.items() if k != "read one step"}
    return {
        "ratio": f"{x.nbytes / size_on_disk(path):.3f}",
        "write, MiB/s": speeds["write"],
        "read, MiB/s": speeds["read"],
        "read one step, ms": f"{1e3 * best['read one step']:.1f}",
    }


def seconds(action: Any) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def written_with(name: str, x: np.ndarray) -> Any:
    """What compresses such data in a trace; None where nothing does."""
    kept = "pred_x0" if name.startswith("x̂₀") else "images" if "images" in name else "activations/"
    return next(iter(compressors(kept, x.dtype)[:-1]), None)


def codecs(arrays: dict[str, np.ndarray], folder: Path, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for name, x in arrays.items():
        chosen = written_with(name, x)
        for label, codec in CODECS.items():
            made = codec(x.dtype.itemsize)
            marked = f"**{label}**" if made == chosen else label
            rows.append(
                {"data": name, "codec": marked} | measured(x, made, x.shape, None, folder, repeats)
            )
    return rows


def shards(arrays: dict[str, np.ndarray], folder: Path, repeats: int) -> list[dict[str, Any]]:
    """One chunk a tile, chunks a step in a shard a tile, and chunks a step in files of their
    own.
    """
    rows = []
    for name, x in arrays.items():
        a_step = (x.shape[0], 1, *x.shape[2:])
        ways = {
            "a chunk a tile": (x.shape, None),
            "a shard of steps a tile": (a_step, x.shape),
            "a file a step": (a_step, None),
        }
        for label, (chunks, shard) in ways.items():
            found = measured(x, written_with(name, x), chunks, shard, folder, repeats)
            files = 1 if "tile" in label else x.shape[1]
            rows.append(
                {"data": name, "layout": label, "files": files, "MiB": f"{x.nbytes / 2**20:.1f}"}
                | found
            )
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args: argparse.Namespace = parser.parse_args()
    if args.quick:
        args.seeds, args.steps, args.repeats = 4, 2, 1
    arrays = data(args.seeds, args.steps)
    stacked = {n: x for n, x in arrays.items() if x.ndim > 3 and x.shape[1] > 1}
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            "Codecs, with the one that traces are written with in bold": codecs(
                arrays, Path(folder), args.repeats
            ),
            "Chunks and shards": shards(stacked, Path(folder), args.repeats),
        }
    bound = (
        "entropy: the low bits of activations are noise, which no codec shrinks; what helps is "
        "half precision "
        "(`dtype=float16`), reductions, and Grams. Speeds are those of one core."
    )
    publish(args, "storage", "Storage", tables, bound)


if __name__ == "__main__":
    main()
