"""What the machinery of a hybrid costs: ``python benchmarks/hybrid.py [--quick] [--pair demo/dmd]``.

The time of the hybrid's denoising over the sum of its models' own forward passes on the very same inputs. In every
repeat the hybrid is called once, and its networks are called alone, once for each of its steps, half of the time before
and half of the time after; repeats alternate, so that a machine that grows slower meets both alike. Also the plain
student, called as it is, at the same number of evaluations. Decoding is left out (``output_type="latent"``). The goal
is a ratio of at most 1.03.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xhat
from xhat.hooks.taps import quiet

GOAL = 1.03


def forwards(pipe: Any, call: Callable[[], Any]) -> list[Callable[[], Any]]:
    """A function for each forward pass of ``call()``: the same network on the same arguments, and nothing else."""
    found: list[Callable[[], Any]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(lambda: module(*args, **kwargs))

    handles = [network.register_forward_pre_hook(note, with_kwargs=True) for network in pipe.unet.networks()]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return found


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@torch.no_grad()
def measure(pair: Any, batch: int, repeats: int) -> dict[str, np.ndarray]:
    """(repeats,) seconds of the hybrid, of its forward passes alone, of text encoding, and of the plain student."""
    hybrid = xhat.hybrid(pair.base, pair.student)
    shared = {"num_images_per_prompt": batch, "output_type": "latent"}

    def call(pipe: Any) -> Callable[[], Any]:
        own = dict(pipe.xhat_defaults)
        return lambda: pipe("a planet", generator=torch.Generator().manual_seed(0), **shared, **own)

    def encode() -> Any:
        return pair.base.encode_prompt("a planet", "cpu", batch, False)

    with quiet(hybrid), quiet(pair.student):
        passes = forwards(hybrid, call(hybrid))

        def alone() -> None:
            for one in passes:
                one()

        ways = {"hybrid": call(hybrid), "forwards": alone, "encoding": encode, "student": call(pair.student)}
        for way in ways.values():
            way()  # the first call of each sets things up
        rows = []
        for i in range(repeats):
            order = list(ways) if i % 2 == 0 else list(ways)[::-1]
            times = {name: seconds(ways[name]) for name in order}
            rows.append([times[name] for name in ways])
    return dict(zip(ways, np.array(rows).T, strict=True))


def summary(times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Ratios of each repeat: their median and quartiles."""
    ratios = {
        "hybrid / forward passes": (times["hybrid"] - times["encoding"]) / times["forwards"],
        "hybrid / forward passes, text encoding included": times["hybrid"] / times["forwards"],
        "hybrid / student": times["hybrid"] / times["student"],
    }
    found = {name: dict(zip(("low", "median", "high"), np.quantile(r, [0.25, 0.5, 0.75]).tolist(), strict=True))
             for name, r in ratios.items()}  # fmt: skip
    return {"ratios": found, "median_seconds": {name: float(np.median(t)) for name, t in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="demo", help="embedded pair (default demo)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 24], help="pictures a call (default 1 8 24)")
    parser.add_argument("--repeats", type=int, default=30, help="calls of each (default 30)")
    parser.add_argument("--quick", action="store_true", help="one batch of 4, five repeats")
    parser.add_argument("--out", type=Path, help="JSON of all numbers")
    args = parser.parse_args()
    batches, repeats = ([4], 5) if args.quick else (args.batch, args.repeats)
    pair, results = xhat.load_pair(args.pair), {}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{args.pair}, {repeats} interleaved repeats, {machine}; median [quartiles]")
    for batch in batches:
        results[batch] = summary(measure(pair, batch, repeats))
        for name, r in results[batch]["ratios"].items():
            print(f"batch {batch:3}  {name:50} {r['median']:.3f} [{r['low']:.3f}, {r['high']:.3f}]", flush=True)
    worst = max(r["ratios"]["hybrid / forward passes"]["median"] for r in results.values())
    print(f"largest median {worst:.3f}: the goal of {GOAL:g} is {'met' if worst <= GOAL else 'missed'}")
    if args.out:
        args.out.write_text(json.dumps({"machine": machine, "repeats": repeats, "batches": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
