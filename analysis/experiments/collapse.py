"""The main job: trace a base, its student and their hybrid, see where the seeds collapse, and undo
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.analysis.sampling.arms import Arm, against, cost, measure_finals, summarised
from xhat.analysis.traces.commitment import commitment
from xhat.analysis.traces.diversity import diversity_by_noise
from xhat.hooks.model import model_of
from xhat.hooks.trace import trace
from xhat.probes.features import JudgeSpace
from xhat.samplers.composite.pipeline import hybrid
from xhat.zoo.family.attributes import OPEN_PROMPTS

MEASURES = {"vendi_q2": "Vendi (q = 2)", "attribute_entropy": "attribute entropy"}


@dataclass(frozen=True)
class Row:
    """One line of the table: diversity across seeds and fidelity of the final pictures, and what a
    picture costs.

    Each measure is (mean over prompts, low, high), the interval a 95 % bootstrap over prompts.
    ``evaluations``: of the network for one picture; ``seconds``: for one picture, on this machine,
    decoding included."""

    model: str
    vendi_q2: tuple[float, float, float]
    attribute_entropy: tuple[float, float, float]
    fidelity: float
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """What ``demo`` measured. ``differences[pair][measure]``: paired over prompts, (mean, low,
    high).

    ``measured``: every measure (arm, prompt), and what a picture costs (arm).
    """

    prompts: list[str]
    seeds: int
    rows: list[Row]
    differences: dict[str, dict[str, tuple[float, float, float]]]
    measured: xr.Dataset = field(repr=False)
    diversity: dict[str, xr.Dataset] = field(repr=False)
    commitment: dict[str, xr.Dataset] = field(repr=False)
    traces: dict[str, xr.DataTree] = field(repr=False)

    def table(self) -> str:
        """The rows as text, with the differences that matter below them."""
        head = f"{'':22}{'Vendi (q=2)':>22}{'attribute entropy':>22}{'fidelity':>10}"
        head += f"{'evals':>7}{'s/image':>9}"
        lines = [head]
        for row in self.rows:
            cells = "".join(f"{interval_text(getattr(row, name)):>22}" for name in MEASURES)
            lines.append(
                f"{row.model:22}{cells}{row.fidelity:10.2f}{row.evaluations:7.0f}{row.seconds:9.3f}"
            )
        for pair, measures in self.differences.items():
            lines += [
                f"{pair}: {MEASURES[name]} {_signed(value)}" for name, value in measures.items()
            ]
        lines.append(
            f"Means over {len(self.prompts)} prompts × {self.seeds} seeds; 95 % bootstrap over "
            "prompts."
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        kept = {k: v for k, v in self.__dict__.items() if k in ("prompts", "seeds", "differences")}
        return json.dumps({**kept, "rows": [asdict(row) for row in self.rows]}, indent=2) + "\n"


def interval_text(value: tuple[float, float, float]) -> str:
    """mean [low, high]"""
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def _signed(value: tuple[float, float, float]) -> str:
    verdict = "" if value[1] > 0 or value[2] < 0 else "  (the interval holds zero)"
    return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]{verdict}"


def demo(
    pair: Any,
    out: Path,
    *,
    prompts: Iterable[str] = OPEN_PROMPTS[:8],
    seeds: Iterable[int] = range(24),
    batch_size: int = 24,
) -> DemoResult:
    """Trace base, student, hybrid (and the base at the student's steps) on the same prompts and
    seeds, and compare.

    Traces go to ``out/traces/*.zarr``; a run that was stopped goes on there. ``results.json`` is
    written last."""
    prompts, seeds = list(prompts), list(seeds)
    few = {"num_inference_steps": model_of(pair.student).steps}
    arms = {
        "base": Arm(pair.base),
        "base_few": Arm(pair.base, few),
        "student": Arm(pair.student),
        "hybrid": Arm(hybrid(pair.base, pair.student)),
    }
    space = JudgeSpace(pair.base.vae)
    traces, curves, committed, costs = {}, {}, {}, {}
    for name, arm in arms.items():
        print(f"{name}: {len(prompts)} prompts × {len(seeds)} seeds", flush=True)
        store = out / "traces" / f"{name}.zarr"
        traces[name] = trace(
            arm.pipe, prompts, seeds=seeds, store=store, batch_size=batch_size, **arm.call
        )
        curves[name] = diversity_by_noise(
            traces[name], features=space.features, labels=space.labels
        )
        committed[name] = commitment(traces[name])
        costs[name] = cost(arm.pipe, prompts[0], **arm.call)
    measured = measure_finals(
        {name: tree.to_dataset()["final"] for name, tree in traces.items()}, space
    )
    for position, name in enumerate(("evaluations", "seconds")):
        measured[name] = ("arm", [costs[arm][position] for arm in arms])
    means = summarised(measured)
    rows = [_row(means.sel(arm=name)) for name in arms]
    differences = {
        f"{b} − {a}": {m: _interval(against(measured, a).sel(arm=b), m) for m in MEASURES}
        for a, b in (("base", "student"), ("student", "hybrid"), ("base", "hybrid"))
    }
    result = DemoResult(prompts, len(seeds), rows, differences, measured, curves, committed, traces)
    (out / "results.json").write_text(result.to_json())
    return result


def _row(means: xr.Dataset) -> Row:
    vendi, entropy = (_interval(means, name) for name in MEASURES)
    rest = (float(means[name]) for name in ("fidelity_mean", "evaluations", "seconds"))
    return Row(str(means["arm"].values), vendi, entropy, *rest)


def _interval(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    mean, low, high = (float(found[f"{name}_{part}"]) for part in ("mean", "low", "high"))
    return mean, low, high
