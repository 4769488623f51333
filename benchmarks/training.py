"""How students' diversity fell while they were trained: ``python benchmarks/training.py [RUN …]``.

Gathers the notes that training leaves (``training.json``), of the shipped students and of further
run folders, into the data of the figure ``training``; the base's own values are measured here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
import xarray as xr

from xhat.figures.kit.data import SHIPPED, save_data
from xhat.zoo.family.progress import progress
from xhat.zoo.family.teacher import Teacher, load_teacher
from xhat.zoo.load.embedded import CONTROLS, embedded
from xhat.zoo.pairs import BASE_DEFAULTS

MEASURES = ("obedience", "entropy", "vendi_q2")


def training_data(notes: dict[str, Path], base: dict[str, float]) -> xr.Dataset:
    """(run, row): the figures of every check, ``step`` included; NaN after a run's last.

    ``notes``: run → ``training.json``. A run's ``method`` is its name up to the first ``-``.
    """
    tables = {n: pd.DataFrame(json.loads(p.read_text())["progress"]) for n, p in notes.items()}
    runs = {
        name: table[["step", *MEASURES]].astype(float).rename_axis("row").to_xarray()
        for name, table in tables.items()
    }
    data = xr.concat(runs.values(), xr.DataArray(list(runs), dims="run", name="run"), join="outer")
    methods = [name.partition("-")[0] for name in runs]
    attrs = {f"base_{name}": base[name] for name in MEASURES}
    return data.assign(method=("run", methods)).assign_attrs(attrs)


def of_base(teacher: Teacher) -> dict[str, float]:
    """Figures of the base at its own steps and guidance, on the prompts and seeds of the checks."""
    steps, guidance = BASE_DEFAULTS["num_inference_steps"], BASE_DEFAULTS["guidance_scale"]
    grid = list(range(999, -1, -1000 // steps))

    def sampled(cond: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        x_t = eps[0]
        for at, below in zip(grid, (*grid[1:], -1), strict=True):
            t, to = (torch.full((len(cond),), v) for v in (at, below))
            x_t = teacher.ddim(x_t, teacher.guided(x_t, t, cond, guidance), t, to)
        return x_t

    return progress(teacher, sampled, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="further run folders, such as runs/zoo/x"
    )
    args = parser.parse_args()
    shipped = {name: folder for name, folder in embedded().items() if name not in CONTROLS}
    folders = {**shipped, **{run.name: run for run in args.runs}}
    notes = {n: f / "training.json" for n, f in folders.items() if n != "base"}
    data = training_data(notes, of_base(load_teacher()))
    save_data(data, SHIPPED.parent, "training")
    print(data.to_dataframe().dropna().to_string())


if __name__ == "__main__":
    main()
