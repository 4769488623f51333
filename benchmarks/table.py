"""What every benchmark shares: arms timed side by side, peak memory, the machine in words, and the
table it writes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
Row = Mapping[str, Any]


class Ratio(NamedTuple):
    """Median of paired ratios, and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}–{self.high:.3f})"


def side_by_side(
    arms: Mapping[str, Callable[[], Any]], repeats: int, wait: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """Seconds of every arm, (repeats,), after one call each to warm up. One call of each arm a
    round, each round from another arm on, so that what slows the machine for a while slows all
    arms."""
    for arm in arms.values():
        arm()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    names = list(arms)
    for r in range(repeats):
        at = r % len(names)
        for name in names[at:] + names[:at]:
            gc.collect()
            wait()
            start = time.perf_counter()
            arms[name]()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(found) for name, found in seconds.items()}


def ratio(seconds: np.ndarray, reference: np.ndarray) -> Ratio:
    """Of times measured in the same rounds."""
    low, median, high = np.quantile(seconds / reference, [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))


def peak_above(action: Callable[[], Any]) -> int:
    """Bytes of memory that ``action`` needs above what is held before it: of the GPU if one is
    used, else of the process, by the kernel's high-water mark, which is reset first (Linux)."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - before
    if (
        platform.system() != "Linux"
    ):  # no way to reset the mark: what a later arm needs less of is not seen
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        action()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmHWM")
    action()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])


def size_on_disk(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def machine(device: str = "cpu") -> str:
    """The machine in a line: processor, cores, threads, versions."""
    import torch

    chip = torch.cuda.get_device_name() if device == "cuda" else _processor()
    names = ("torch", "diffusers", "zarr", "nnsight")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{chip}, {os.cpu_count()} cores of which {usable} usable, {torch.get_num_threads()} "
        "thread(s); "
        f"{platform.system()}, Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def mib(count: float) -> str:
    return f"{count / 2**20:.1f}"


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a table; columns in the order in which they first occur, a dash where a row has
    none.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "–")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The parser that every benchmark starts from."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that all of it runs: not written"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS,
        help="folder of the tables (default benchmarks/results)",
    )
    return parser


def publish(
    args: argparse.Namespace,
    name: str,
    title: str,
    tables: Mapping[str, Sequence[Row]],
    bound: str,
    device: str = "cpu",
    lead: str = "What bounds it now",
) -> None:
    """Print the tables of a benchmark, and write them to ``<out>/<name>.md`` unless ``--quick``; of
    a GPU, to ``<name>-cuda.md``.

    ``tables``: caption → rows; ``bound``: what bounds the numbers now, or what ``lead`` says it is.
    """
    body = "\n\n".join(f"{caption}\n\n{markdown(rows)}" for caption, rows in tables.items())
    if device != "cpu":
        name, title = f"{name}-{device}", f"{title}, on a GPU"
    text = f"## {title}\n\nMachine: {machine(device)}.\n\n{body}\n\n{lead}: {bound}\n"
    print(text, flush=True)
    if args.quick and args.out == RESULTS:
        return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{name}.md").write_text(text)
    said = {
        caption: [{k: str(v) for k, v in row.items()} for row in rows]
        for caption, rows in tables.items()
    }
    (args.out / f"{name}.json").write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n")
