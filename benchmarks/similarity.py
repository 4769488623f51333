"""All pairs of layers × steps by debiased linear CKA: this package beside its peers, in one run on one machine.

    python benchmarks/similarity.py                      # 40 layers × 20 steps, n = 256, p = 1280
    python benchmarks/similarity.py --device cuda
    python benchmarks/similarity.py --growth             # time and memory against n, layers and steps

Numbers are compared before times are. Peers that are not installed are left out. What goes one cell at a time
is timed on some cells and scaled to all, and said so. Every line is printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from xhat.analysis.similarity import cka, cka_matrix

Cells = Callable[[torch.Tensor], np.ndarray]


def representations(count: int, n: int, p: int, device: str, offset: float = 0.0) -> torch.Tensor:
    """(count, n, p) float32 that drift from one another, so that similarities spread between 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, p, generator=generator)
    out = torch.empty(count, n, p)
    for m in range(count):
        x = 0.9 * x + 0.44 * torch.randn(n, p, generator=generator)
        out[m] = x + offset
    return out.to(device)


def timed(call: Callable[[], Any], repeats: int, device: str) -> tuple[Any, float]:
    """Result, and the best of ``repeats`` wall times in seconds after one call to warm up."""
    result, best = call(), float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        result = call()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return result, best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def torch_cka_cell(x: torch.Tensor, y: torch.Tensor) -> float:
    """One cell as torch_cka's own HSIC makes it, Grams included as they are in its loop over pairs of layers."""
    import torch_cka

    k, l = ((a @ a.T).fill_diagonal_(0) for a in (x, y))
    here = SimpleNamespace(device=x.device)
    kl, kk, ll = (torch_cka.CKA._HSIC(here, a, b) for a, b in ((k, l), (k, k), (l, l)))
    return kl / (kk * ll) ** 0.5


def all_pairs() -> dict[str, Cells]:
    """What makes every cell at once, by name."""
    found: dict[str, Cells] = {
        "xhat float32": lambda x: cka_matrix(x, dtype="float32", memory=2**33),
        "xhat float64": lambda x: cka_matrix(x, memory=2**33),
    }
    try:
        from cka import cka_from_features
    except ImportError:
        return found
    return found | {"pytorch-cka": lambda x: cka_from_features(x, x).cpu().numpy()}


def one_by_one() -> dict[str, Callable[[torch.Tensor, torch.Tensor], float]]:
    """What makes a cell at a time, by name."""
    found: dict[str, Callable[[torch.Tensor, torch.Tensor], float]] = {"xhat.cka in a loop": cka}
    try:
        import torch_cka  # noqa: F401
    except ImportError:
        return found
    return found | {"torch_cka": torch_cka_cell}


def compare(layers: int, steps: int, n: int, p: int, device: str, repeats: int, sample: int) -> None:
    """Agreement, then times, of everything that is installed."""
    count = layers * steps
    xs = representations(count, n, p, device)
    subset = np.random.default_rng(0).integers(0, count, size=(sample, 2))
    exact = cka_matrix(xs[:20].double())
    say(
        machine=platform.machine(),
        processor=_processor(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    for name, call in all_pairs().items():
        worst = float(np.abs(call(xs[:20]) - exact).max())
        if worst > 1e-3:
            raise SystemExit(f"{name} gives other numbers, off by {worst}: times are not compared")
        _, seconds = timed(lambda call=call: call(xs), repeats, device)  # type: ignore[misc]
        say(what=name, cells=count**2, seconds=seconds, largest_error=worst)
    for name, cell in one_by_one().items():
        worst = max(abs(cell(xs[i], xs[j]) - exact[i, j]) for i in range(3) for j in range(3, 6))
        if worst > 1e-3:
            raise SystemExit(f"{name} gives other numbers, off by {worst}: times are not compared")
        _, seconds = timed(lambda cell=cell: [cell(xs[i], xs[j]) for i, j in subset], 1, device)  # type: ignore[misc]
        scaled = seconds / sample * count**2
        say(what=name, cells=count**2, seconds=scaled, scaled_from_cells=sample, largest_error=float(worst))


def growth(p: int, repeats: int) -> None:
    """Time and peak memory of the whole map, one size doubled at a time."""
    for layers, steps, n in [(10, 10, 64), (20, 10, 64), (10, 20, 64), (10, 10, 128), (10, 10, 256)]:
        xs = representations(layers * steps, n, p, "cpu").numpy()
        _, seconds = timed(lambda xs=xs: cka_matrix(xs, dtype="float32"), repeats, "cpu")  # type: ignore[misc]
        tracemalloc.start()
        cka_matrix(xs, dtype="float32")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        say(what="xhat float32", layers=layers, steps=steps, n=n, p=p, seconds=seconds, peak_bytes=peak)


def say(**line: Any) -> None:
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in line.items()}), flush=True)


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or 'CPU'}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in [("layers", 40), ("steps", 20), ("n", 256), ("p", 1280), ("repeats", 3), ("sample", 200)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--growth", action="store_true", help="only how time and memory grow, on the CPU")
    args = parser.parse_args()
    if args.growth:
        growth(args.p, args.repeats)
    else:
        compare(args.layers, args.steps, args.n, args.p, args.device, args.repeats, args.sample)


if __name__ == "__main__":
    main()
