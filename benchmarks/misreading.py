"""Attribute entropy read by a judge that errs at known rates: with the correction for its
confusion, intervals hold the truth; without it they do not.

    python benchmarks/misreading.py            # two minutes
    python benchmarks/misreading.py --quick

Planets are rendered, so that what they show is known, and read by the embedded judge; a share of
its readings is then replaced by another value. Sets of one attribute are drawn whose shares are
known: each has a value that most of its pictures show. The confusion is measured on other pictures
by the same noisy judge. Ships the data of the figure ``misreading``."""

from __future__ import annotations

import random

import numpy as np
import xarray as xr
from table import Row, arguments, publish

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.intervals import BOUNDS
from xhat.analysis.measures.by_seed import entropy_by_seed
from xhat.analysis.measures.misreading import confusion_matrix, corrected_entropy_by_seed
from xhat.figures.kit.data import SHIPPED, save_data
from xhat.zoo.family.attributes import ATTRIBUTES, sample_scene
from xhat.zoo.family.judge import load_judge
from xhat.zoo.family.render import render

KIND, ATTRIBUTE = "planet", "background"
VALUES = ATTRIBUTES[KIND][ATTRIBUTE]
ERRORS = (0.0, 0.05, 0.1, 0.2, 0.3)
PICTURES, CALIBRATION, SETS, SEEDS, RUNS = 1600, 800, 8, 24, 300


def readings(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) true values of rendered planets, and what the judge reads."""
    rng = random.Random(11)
    scenes = [sample_scene(KIND, rng) for _ in range(count)]
    images = np.stack([render(scene, 70_000 + i) for i, scene in enumerate(scenes)])
    pictures = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    true = np.array([VALUES.index(scene.values[ATTRIBUTE]) for scene in scenes])
    return true, np.asarray(load_judge().read(pictures, KIND).labels[ATTRIBUTE])


def replaced(read: np.ndarray, error: float, rng: np.random.Generator) -> np.ndarray:
    """``read`` with a share ``error`` of it replaced by another value."""
    moved = (read + rng.integers(1, len(VALUES), read.shape)) % len(VALUES)
    return np.where(rng.random(read.shape) < error, moved, read)


def collapsed(rng: np.random.Generator) -> np.ndarray:
    """(value,) shares of a set: one value in most of it."""
    shares = rng.dirichlet(np.ones(len(VALUES)))
    shares = 0.35 * shares
    shares[rng.integers(len(VALUES))] += 0.65
    return shares


def entropy(shares: np.ndarray) -> float:
    held = shares[shares > 0]
    return float(-(held * np.log(held)).sum() / np.log(len(VALUES)))


def run(
    true: np.ndarray, read: np.ndarray, error: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Reading → (bound,) of the mean entropy of sets, for new sets and seeds."""
    known, others = slice(0, CALIBRATION), np.arange(CALIBRATION, len(true))
    confusion = confusion_matrix(true[known], replaced(read[known], error, rng), len(VALUES))
    values: dict[str, list[np.ndarray]] = {"as read": [], "corrected": []}
    for p in (collapsed(rng) for _ in range(SETS)):
        drawn = rng.choice(len(VALUES), SEEDS, p=p)
        pictures = np.array([rng.choice(others[true[others] == value]) for value in drawn])
        labels = replaced(read[pictures], error, rng)
        values["as read"].append(entropy_by_seed(labels, len(VALUES)))
        values["corrected"].append(corrected_entropy_by_seed(labels, confusion))
    found = {name: crossed_mean(np.stack(rows)) for name, rows in values.items()}
    return {name: np.array([i.estimate, i.low, i.high]) for name, i in found.items()}


def main() -> None:
    args = arguments(__doc__).parse_args()
    runs = 10 if args.quick else RUNS
    true, read = readings(PICTURES)
    rng = np.random.default_rng(0)
    truth = float(np.mean([entropy(collapsed(rng)) for _ in range(100_000)]))
    shown, rows = [], []
    for error in ERRORS:
        shown.append(run(true, read, error, np.random.default_rng(1)))
        many = [run(true, read, error, rng) for _ in range(runs)]
        row: Row = {"share of readings replaced": f"{error:g}"}
        for name in shown[0]:
            bounds = np.stack([found[name] for found in many])
            held = (bounds[:, 1] <= truth) & (truth <= bounds[:, 2])
            off = bounds[:, 0].mean() - truth
            row = {**row, f"{name}, off by": f"{off:+.3f}", f"{name}, holds": f"{held.mean():.3f}"}
        rows.append(row)
    wrong = float((true != read).mean())
    caption = (
        f"{SETS} sets × {SEEDS} seeds of planets by {ATTRIBUTE}, true mean entropy {truth:.3f}; "
        f"the judge itself misreads {wrong:.1%}. {runs} runs, and the share of them whose 95 % "
        "interval holds the truth."
    )
    bound = "the number of seeds: what a corrected entropy gains in truth it pays in width."
    publish(args, "misreading", "Entropy read with mistakes", {caption: rows}, bound)
    if not args.quick:
        save_data(_dataset(shown, truth), SHIPPED.parent, "misreading")


def _dataset(shown: list[dict[str, np.ndarray]], truth: float) -> xr.Dataset:
    names = list(shown[0])
    values = np.array([[found[name] for found in shown] for name in names])
    coords = {"reading": names, "error": list(ERRORS), "bound": list(BOUNDS)}
    entropies = xr.DataArray(values, coords, ("reading", "error", "bound"))
    return xr.Dataset({"entropy": entropies.assign_attrs(level=0.95), "truth": truth})


if __name__ == "__main__":
    main()
