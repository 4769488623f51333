"""Peak memory of a trace against its number of seeds: flat, or it fails.

    python benchmarks/memory.py            # 64 to 4,096 seeds
    python benchmarks/memory.py --quick

Each size runs a few times, each in a process of its own, whose high-water mark is read at its end:
the allocator gives a run now and then a hundred megabytes more than another, so medians are
compared. x̂₀ and reduced readings go to a store; exit status 1 where a size needs over a tenth more
than the smallest. Gram matrices are left out: they hold n² numbers whatever is done."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from table import arguments, mib, publish, size_on_disk

ALLOWED = 1.10


def child(seeds: int, batch: int) -> None:
    """One run; its peak memory, seconds and bytes as JSON."""
    from pathlib import Path

    import torch

    import xhat

    torch.set_num_threads(1)
    pipe = xhat.load_pair("demo").student
    hooks = {"h": "mean", "up.*": "project(64)", "down.*": "pool(2)"}
    with tempfile.TemporaryDirectory() as folder:
        store, start = Path(folder, "trace.zarr"), time.perf_counter()
        xhat.trace(
            pipe,
            "a planet",
            seeds=range(seeds),
            hooks=hooks,
            store=store,
            batch_size=batch,
            num_inference_steps=1,
            progress=False,
        )
        seconds, size = time.perf_counter() - start, size_on_disk(store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    print(json.dumps({"peak": peak, "seconds": seconds, "bytes": size}))


def measured(seeds: int, batch: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(seeds), "--batch", str(batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 256, 1024, 4096], help="numbers of seeds"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size (default 3)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.batch)
        return 0
    if args.quick:
        args.sizes, args.batch, args.repeats = [8, 32], 4, 1
    runs = {n: [measured(n, args.batch) for _ in range(args.repeats)] for n in args.sizes}
    found = {
        n: {key: float(np.median([run[key] for run in of])) for key in of[0]}
        for n, of in runs.items()
    }
    first = found[args.sizes[0]]["peak"]
    rows: list[dict[str, Any]] = [
        {
            "seeds": n,
            "peak memory, MiB": mib(x["peak"]),
            "least and most": " to ".join(
                mib(pick(run["peak"] for run in runs[n])) for pick in (min, max)
            ),
            "ratio to the smallest run": f"{x['peak'] / first:.3f}",
            "written, MiB": mib(x["bytes"]),
            "seconds": f"{x['seconds']:.1f}",
        }
        for n, x in found.items()
    ]
    bound = (
        "the batch, the queue of one batch before the disk, and what Python and torch hold "
        "before anything is run."
    )
    publish(
        args,
        "memory",
        "Memory",
        {f"batches of {args.batch}, medians of {args.repeats} runs": rows},
        bound,
    )
    worst = max(x["peak"] for x in found.values()) / first
    if worst > ALLOWED:
        print(
            f"peak memory is not flat: {worst:.3f} times that of the smallest run, {ALLOWED} "
            "allowed"
        )
    return int(worst > ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
