"""All pairs of layers × steps by debiased linear CKA: this package beside its peers, in one run on one machine.

    python benchmarks/similarity.py                      # 40 layers × 20 steps, n = 256, p = 1280
    python benchmarks/similarity.py --device cuda
    python benchmarks/similarity.py --growth             # time and memory against n, layers and steps
    python benchmarks/similarity.py --quick              # small sizes of both, to see that all of it runs

Numbers are compared before times are. Peers that are not installed are reported as missing: pytorch-cka, torch_cka
and rsatoolbox, whose linear CKA is the biased one and is checked against that. What goes one cell at a time
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
from importlib import import_module
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


def rsatoolbox_cell(x: torch.Tensor, y: torch.Tensor) -> float:
    """One cell of rsatoolbox: biased linear CKA as the whitened cosine of squared Euclidean distances."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm
    from rsatoolbox.rdm import compare as compare_rdms

    a, b = (calc_rdm(Dataset(z.cpu().numpy().astype(np.float64)), method="euclidean") for z in (x, y))
    return float(compare_rdms(a, b, method="cosine_cov")[0, 0])  # type: ignore[arg-type]


def all_pairs() -> dict[str, Cells]:
    """What makes every cell at once, by name."""
    found: dict[str, Cells] = {
        "xhat float32": lambda x: cka_matrix(list(x), dtype="float32", memory=2**33),
        "xhat float64": lambda x: cka_matrix(list(x), memory=2**33),
    }
    try:
        from cka import cka_from_features
    except ImportError as error:
        say(missing="pytorch-cka", reason=str(error))
        return found
    return found | {"pytorch-cka": lambda x: cka_from_features(x, x).cpu().numpy()}


def one_by_one() -> dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], float], bool]]:
    """What makes a cell at a time, by name, and whether it is debiased."""
    found: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], float], bool]] = {"xhat.cka in a loop": (cka, True)}
    for name, cell, debiased in (("torch_cka", torch_cka_cell, True), ("rsatoolbox", rsatoolbox_cell, False)):
        try:
            import_module(name)
        except ImportError as error:
            say(missing=name, reason=str(error))
        else:
            found[name] = cell, debiased
    return found


def compare(layers: int, steps: int, n: int, p: int, device: str, repeats: int, sample: int) -> None:
    """Agreement, then times, of everything that is installed."""
    count = layers * steps
    xs = representations(count, n, p, device)
    subset = np.random.default_rng(0).integers(0, count, size=(sample, 2))
    exact = cka_matrix(list(xs[:20].double()))
    say(
        machine=platform.machine(),
        processor=_processor(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    for name, call in all_pairs().items():
        worst = error(name, call(xs[:20]), exact)
        if worst > 1e-3:
            raise SystemExit(f"{name} gives other numbers, off by {worst}: times are not compared")
        _, seconds = timed(lambda call=call: call(xs), repeats, device)  # type: ignore[misc]
        say(what=name, cells=count**2, seconds=seconds, largest_error=worst)
    for name, (cell, debiased) in one_by_one().items():
        exact = cka_matrix(list(xs[:6].double()), debiased=debiased)
        worst = max(abs(cell(xs[i], xs[j]) - exact[i, j]) for i in range(3) for j in range(3, 6))
        if worst > 1e-3:
            raise SystemExit(f"{name} gives other numbers, off by {worst}: times are not compared")
        _, seconds = timed(lambda cell=cell: [cell(xs[i], xs[j]) for i, j in subset], 1, device)  # type: ignore[misc]
        scaled = seconds / sample * count**2
        say(what=name, cells=count**2, seconds=scaled, scaled_from_cells=sample, largest_error=float(worst))


def error(name: str, cells: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference; pytorch-cka clamps its cells to [0, 1], so ours are clamped before it is held to them."""
    return float(np.abs(cells - (exact.clip(0, 1) if name == "pytorch-cka" else exact)).max())


def offset(n: int, p: int, device: str) -> None:
    """Error of everything that makes float32 maps where all features share an offset of 100."""
    xs = representations(4, n, p, device, offset=100.0)
    exact = cka_matrix(list(xs.double()))
    for name, call in all_pairs().items():
        say(what=name, common_offset=100, largest_error=error(name, call(xs), exact))


def growth(p: int, repeats: int, first: tuple[int, int, int] = (10, 10, 64)) -> None:
    """Time and peak memory of the whole map, one size doubled at a time."""
    l, s, k = first
    for layers, steps, n in [first, (2 * l, s, k), (l, 2 * s, k), (l, s, 2 * k), (l, s, 4 * k)]:
        xs = representations(layers * steps, n, p, "cpu").numpy()
        _, seconds = timed(lambda xs=xs: cka_matrix(list(xs), dtype="float32"), repeats, "cpu")  # type: ignore[misc]
        tracemalloc.start()
        cka_matrix(list(xs), dtype="float32")
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
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it runs")
    args = parser.parse_args()
    if args.quick:
        compare(5, 4, 64, 128, args.device, 1, 10)
        offset(64, 128, args.device)
        growth(128, 1, (3, 2, 32))
    elif args.growth:
        growth(args.p, args.repeats)
    else:
        compare(args.layers, args.steps, args.n, args.p, args.device, args.repeats, args.sample)
        offset(args.n, args.p, args.device)


if __name__ == "__main__":
    main()
