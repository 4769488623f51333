"""All pairs of layers × steps by debiased linear CKA: this package beside its peers, in one run on
one machine.

    python benchmarks/similarity.py                      # 40 layers × 20 steps, n = 256, p = 1280
    python benchmarks/similarity.py --device cuda
    python benchmarks/similarity.py --growth             # time and memory against n, layers and
    steps
    python benchmarks/similarity.py --quick              # small sizes of both, to see that all of
    it runs

Numbers are compared before times are. Peers that are not installed are reported as missing:
pytorch-cka, torch_cka and rsatoolbox, whose linear CKA is the biased one and is checked against
that. What goes one cell at a time is timed on some cells and scaled to all, and said so. Every line
is printed as JSON as it comes, and the table is written at the end."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from table import Row, arguments, publish, ratio, side_by_side

from xhat.analysis.measures.similarity import cka, cka_matrix

Cells = Callable[[torch.Tensor], np.ndarray]


BOUND = {
    "cpu": "one symmetric product a representation for its Gram, and one over all of them: the "
    "arithmetic itself. What float64, the default, costs over float32 is twice the time.",
    "cuda": "each representation is prepared by itself, some 0.4 ms of launches, where pytorch-cka "
    "stacks them; that is not the arithmetic, since float64 takes as long as float32.",
}


def representations(count: int, n: int, p: int, device: str, offset: float = 0.0) -> torch.Tensor:
    """(count, n, p) float32 that drift from one another, so that similarities spread between 0 and
    1.
    """
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
    """One cell as torch_cka's own HSIC makes it, Grams included as they are in its loop over pairs
    of layers.
    """
    import torch_cka

    k, l = ((a @ a.T).fill_diagonal_(0) for a in (x, y))
    here = SimpleNamespace(device=x.device)
    kl, kk, ll = (torch_cka.CKA._HSIC(here, a, b) for a, b in ((k, l), (k, k), (l, l)))
    return kl / (kk * ll) ** 0.5


def rsatoolbox_cell(x: torch.Tensor, y: torch.Tensor) -> float:
    """One cell of rsatoolbox: biased linear CKA as the whitened cosine of squared Euclidean
    distances.
    """
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm
    from rsatoolbox.rdm import compare as compare_rdms

    a, b = (
        calc_rdm(Dataset(z.cpu().numpy().astype(np.float64)), method="euclidean") for z in (x, y)
    )
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
    found: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], float], bool]] = {
        "xhat.cka in a loop": (cka, True)
    }
    for name, cell, debiased in (
        ("torch_cka", torch_cka_cell, True),
        ("rsatoolbox", rsatoolbox_cell, False),
    ):
        try:
            import_module(name)
        except ImportError as error:
            say(missing=name, reason=str(error))
        else:
            found[name] = cell, debiased
    return found


def compare(
    layers: int, steps: int, n: int, p: int, device: str, repeats: int, sample: int
) -> list[Row]:
    """Agreement, then times, of everything that is installed: whole maps in turns, then cells on
    some of them.
    """
    count = layers * steps
    xs = representations(count, n, p, device)
    exact, worst = cka_matrix(list(xs[:20].double())), {}
    for name, call in all_pairs().items():
        worst[name] = agreed(name, error(name, call(xs[:20]), exact))
    maps = {name: lambda call=call: call(xs) for name, call in all_pairs().items()}  # type: ignore[misc]
    seconds = side_by_side(maps, repeats, lambda: _wait(device))
    ours, times = seconds["xhat float64"], "times xhat's default (quartiles)"
    rows = [
        say(what=name, cells=count**2, seconds=float(np.median(found)), largest_error=worst[name])
        | {times: str(ratio(found, ours))}
        for name, found in seconds.items()
    ]
    subset = np.random.default_rng(0).integers(0, count, size=(sample, 2))
    for name, (cell, debiased) in one_by_one().items():
        exact = cka_matrix(list(xs[:6].double()), debiased=debiased)
        off = agreed(
            name, max(abs(cell(xs[i], xs[j]) - exact[i, j]) for i in range(3) for j in range(3, 6))
        )
        _, each = timed(lambda cell=cell: [cell(xs[i], xs[j]) for i, j in subset], 1, device)  # type: ignore[misc]
        line: dict[str, Any] = {
            "what": name,
            "cells": count**2,
            "seconds": each / sample * count**2,
        }
        line |= {"largest_error": float(off), "scaled_from_cells": sample}
        rows.append(say(**line) | {times: f"{line['seconds'] / float(np.median(ours)):.3g}"})
    return rows


def agreed(name: str, off: float) -> float:
    if off > 1e-3:
        raise SystemExit(f"{name} gives other numbers, off by {off}: times are not compared")
    return off


def error(name: str, cells: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference; pytorch-cka clamps its cells to [0, 1], so ours are clamped before it is
    held to them.
    """
    return float(np.abs(cells - (exact.clip(0, 1) if name == "pytorch-cka" else exact)).max())


def offset(n: int, p: int, device: str) -> list[Row]:
    """Error of everything that makes float32 maps where all features share an offset of 100."""
    xs = representations(4, n, p, device, offset=100.0)
    exact = cka_matrix(list(xs.double()))
    return [
        say(what=name, common_offset=100, largest_error=error(name, call(xs), exact))
        for name, call in all_pairs().items()
    ]


def growth(p: int, repeats: int, first: tuple[int, int, int] = (10, 10, 64)) -> list[Row]:
    """Time and peak memory of the whole map, one size doubled at a time."""
    (l, s, k), rows = first, []
    for layers, steps, n in [first, (2 * l, s, k), (l, 2 * s, k), (l, s, 2 * k), (l, s, 4 * k)]:
        xs = representations(layers * steps, n, p, "cpu").numpy()
        _, seconds = timed(lambda xs=xs: cka_matrix(list(xs), dtype="float32"), repeats, "cpu")  # type: ignore[misc]
        tracemalloc.start()
        cka_matrix(list(xs), dtype="float32")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows.append(
            say(
                what="xhat float32",
                layers=layers,
                steps=steps,
                n=n,
                p=p,
                seconds=seconds,
                peak_bytes=peak,
            )
        )
    return rows


def say(**line: Any) -> dict[str, Any]:
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in line.items()}
    print(json.dumps(rounded), flush=True)
    return rounded


def main() -> None:
    parser = arguments(__doc__)
    for name, value in [
        ("layers", 40),
        ("steps", 20),
        ("n", 256),
        ("p", 1280),
        ("repeats", 3),
        ("sample", 200),
    ]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--growth", action="store_true", help="only how time and memory grow, on the CPU"
    )
    args = parser.parse_args()
    if args.quick:
        args.layers, args.steps, args.n, args.p, args.repeats, args.sample = 5, 4, 64, 128, 1, 10
    tables: dict[str, list[Row]] = {}
    if not args.growth:
        sizes = f"{args.layers} layers × {args.steps} steps, n = {args.n}, p = {args.p}"
        found = compare(
            args.layers, args.steps, args.n, args.p, args.device, args.repeats, args.sample
        )
        tables[f"Every cell of {sizes}, float32 inputs"] = found
        tables["Where all features share an offset"] = offset(args.n, args.p, args.device)
    if args.device == "cpu":
        first = (3, 2, 32) if args.quick else (10, 10, 64)
        tables["How it grows"] = growth(args.p, args.repeats, first)
    title = "Similarity of all layers at all steps"
    publish(args, "similarity", title, tables, BOUND[args.device], args.device)


if __name__ == "__main__":
    main()
