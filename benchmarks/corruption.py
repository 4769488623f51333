"""Corrupted stores and caches: what is named, what is harmless, what is read as other data.

python benchmarks/corruption.py           # 500 corruptions, a few minutes
python benchmarks/corruption.py --quick   # one of each kind

The kinds of damage are those of tests/hooks/store/test_damage.py, each with its own dice.
"""

from __future__ import annotations

import importlib.util
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import xarray as xr
from table import arguments, publish

from xhat.analysis.sampling.cache import Cache, RemadeWarning

TESTS = Path(__file__).parents[1] / "tests"
OUTCOMES = {"named": "named", "same": "harmless: equal data", "silent": "silent"}
IN_STORE, IN_CACHE = 30, 20  # of each kind
KEY = {"of": "the table of corruptions"}


def tests_module(path: str) -> Any:
    """A module of the tests, by its path there."""
    file = TESTS / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_stores(times: int, folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, outcome) of every corruption of a store."""
    damage = tests_module("hooks/store/test_damage.py")
    damage.layout.SPLIT = 5_000  # so that each step of a large reading lies in a part of its own
    whole = damage.trace(tests_module("models.py").sd(), folder / "whole.zarr").load()
    for how, kind in damage.KINDS:
        for seed in range(times):
            store = damage.corrupted((folder / "whole.zarr", whole), folder, how, kind, seed)
            yield f"{how.__name__}: {kind} of a store", damage.outcome(store, whole)


def in_caches(times: int, folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, outcome) of every corruption of cached measurements, as experiments keep them."""
    for how in (flip, truncate, empty, exchange):
        for seed in range(times):
            there = folder / f"{how.__name__}{seed}"
            cache, made = Cache(there), {f"arm{i}": measured(seed + i) for i in range(2)}
            for name, data in made.items():
                cache.write(name, KEY, data)
            how(random.Random(f"{how.__name__} {seed}"), sorted(there.glob("*.nc")))
            yield f"{how.__name__}: a cached measurement", read_again(there, made)


def measured(seed: int) -> xr.Dataset:
    values = np.random.default_rng(seed).normal(size=(8, 16))
    return xr.Dataset({"vendi_q2": (("prompt", "seed"), values)}, attrs={"seed": seed})


def read_again(folder: Path, made: dict[str, xr.Dataset]) -> str:
    """``named``: damage is told, with the file's name, and what is given is made again."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = {n: Cache(folder).get(n, KEY, lambda n=n: made[n]) for n in made}
    if not all(got[name].identical(made[name]) for name in made):
        return "silent"
    named = [w for w in told if w.category is RemadeWarning and str(folder) in str(w.message)]
    return "named" if named else "same"


def flip(dice: random.Random, files: list[Path]) -> None:
    path = dice.choice(files)
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(data))


def truncate(dice: random.Random, files: list[Path]) -> None:
    path = dice.choice(files)
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))])


def empty(dice: random.Random, files: list[Path]) -> None:
    dice.choice(files).write_bytes(b"")


def exchange(dice: random.Random, files: list[Path]) -> None:
    one, other = (path.read_bytes() for path in files)
    files[0].write_bytes(other)
    files[1].write_bytes(one)


def counted(
    make: Callable[[int, Path], Iterator[tuple[str, str]]], times: int
) -> dict[str, Counter[str]]:
    """Outcomes by kind of corruption."""
    outcomes: dict[str, Counter[str]] = {}
    with TemporaryDirectory() as folder:
        for kind, outcome in make(times, Path(folder)):
            outcomes.setdefault(kind, Counter())[outcome] += 1
    return outcomes


def main() -> int:
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    times = (1, 1) if args.quick else (IN_STORE, IN_CACHE)
    outcomes = counted(in_stores, times[0]) | counted(in_caches, times[1])
    every: Counter[str] = sum(outcomes.values(), Counter())
    rows = [
        {"what was done": kind, "times": count.total()}
        | {text: count[name] for name, text in OUTCOMES.items()}
        for kind, count in [*outcomes.items(), ("all", every)]
    ]
    caption = "A small trace with chunks in shards, and files of measurements; each damaged once"
    bound = (
        "nothing was read as other data"
        if not every["silent"]
        else f"{every['silent']} of {every.total()} were read as other data"
    )
    bits = "what is harmless is metadata that says nothing of the trace"
    publish(args, "corruption", "Corruption", {caption: rows}, f"{bound}; {bits}.")
    return int(every["silent"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
