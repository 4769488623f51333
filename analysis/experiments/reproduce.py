"""The paper's tables on a pair of its own kind, with its own settings, beside what it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.reproduce_text import protocol, reproduced_table
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import measure_arms
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.analysis.sampling.scores import text_score
from xhat.analysis.stats import paired_ratio
from xhat.hooks.noise.levels import noise_levels
from xhat.probes.features import feature_space
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.build import skip_plan, whole
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.recipe import hybrid_plan
from xhat.samplers.plans.schedule import scheduled
from xhat.samplers.plans.timing import timing_of
from xhat.zoo.suites import PAPER

ARMS = {
    "diversity": ("base", "student", "hybrid", "hybrid_guided"),
    "swap": ("base", "student", "hybrid", "hybrid_guided", "later"),
    "cost": ("base", "student", "hybrid", "hybrid_guided", "skip"),
}
"""What each table samples; ``transfer`` samples base and student under controls."""
TABLES = (*ARMS, "transfer")
GUIDED = 7.0  # the default of the authors' script; their notebooks give the base's step none


@dataclass(frozen=True, kw_only=True)
class Reproduction(Setting):
    """What :func:`reproduce` is asked; the defaults are the paper's.

    Parameters
    ----------
    tables
        Some of :data:`TABLES`.
    controls
        For ``transfer``: a folder with ``controls.json``, a list of ``{"row": "age", "file":
        "age.safetensors", "prompts": ["a person"], "target": "an old person", "scale": 1.0}``.
    clip
        Folder or hub name of the CLIP that scores them; the usual one by default.
    """

    pair: Any = "sdxl/dmd2"
    prompts: Sequence[str] = PAPER
    seeds: Sequence[int] = range(100)
    space: Any = "dreamsim"
    batch_size: int = 4
    tables: Sequence[str] = tuple(ARMS)
    controls: Path | None = None
    clip: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tables", tuple(self.tables))
        if unknown := [name for name in self.tables if name not in TABLES] or not self.tables:
            raise ValueError(f"tables {unknown}: expected some of {', '.join(TABLES)}")
        if "transfer" in self.tables and self.controls is None:
            raise ValueError("the table 'transfer' needs controls: a folder with controls.json")


def reproduce(config: Reproduction, *, cache: Path | None = None) -> Result:
    """Measure the tables that are asked for.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept; a run that was stopped goes on there.

    Returns
    -------
    Result
        ``data``: ``measured`` (:func:`~xhat.analysis.sampling.arms.measure_arms`) and, where it was
        asked for, ``transfer`` (control, model, bound), change of the CLIP score in percent.

    Raises
    ------
    ValueError
        As ``MissingWeights`` where the feature space is not on this machine, before anything is
        sampled.
    """
    pair = config.models()
    data: dict[str, xr.Dataset] = {}
    if names := arm_names(config.tables, default_steps(pair.student)):
        space = config.features(pair)
        data["measured"] = measure_arms(
            paper_arms(pair.base, pair.student, names),
            config.prompts,
            config.seeds,
            space=space,
            cache=cache,
            batch_size=config.batch_size,
        )
    if "transfer" in config.tables:
        data["transfer"] = measure_controls(config, pair, cache)
    settings = config.settings() | {
        "base": run_with(pair.base),
        "student_call": run_with(pair.student),
    }
    table = reproduced_table(data, pair.name, config.tables)
    return Result("reproduce", data, table, protocol(settings, data), settings)


def run_with(pipe: Any) -> dict[str, Any]:
    """Steps and guidance that a pipeline runs with."""
    return {"num_inference_steps": default_steps(pipe), "guidance_scale": default_guidance(pipe)}


def share(config: Reproduction, part: int, parts: int, *, cache: Path) -> int:
    """Sample every ``parts``-th prompt, from number ``part`` on, into ``cache``, and measure
    nothing: one process a GPU. Gives the number of prompts.
    """
    pair, prompts = config.models(), list(config.prompts)[part::parts]
    arms = paper_arms(
        pair.base, pair.student, arm_names(config.tables, default_steps(pair.student))
    )
    if prompts:
        sample_arms(arms, prompts, list(config.seeds), cache=cache, batch_size=config.batch_size)
    return len(prompts)


def arm_names(tables: Sequence[str], steps: int) -> list[str]:
    """The arms of these tables, each once; a student of one step has none to skip or to leave."""
    names = dict.fromkeys(arm for table in tables for arm in ARMS.get(table, ()))
    return [name for name in names if steps > 1 or name not in ("skip", "later")]


def paper_arms(base: Any, student: Any, names: Sequence[str]) -> dict[str, Arm]:
    """The paper's samplers: its hybrid is one evaluation of the base, handed over with fresh noise,
    with and without guidance.
    """

    def mixed(guidance: float) -> Any:
        plan = hybrid_plan(base, student, "paper", base_guidance_scale=guidance)
        return hybrid(base, student, plan=plan)

    makers = {
        "base": lambda: base,
        "student": lambda: hybrid(base, student, plan=whole("student", student)),
        "hybrid": lambda: mixed(1.0),
        "hybrid_guided": lambda: mixed(GUIDED),
        "later": lambda: hybrid(base, student, plan=later_plan(base, student)),
        "skip": lambda: hybrid(base, student, plan=skip_plan(student)),
    }
    return {name: Arm(makers[name]()) for name in names}


def later_plan(base: Any, student: Any) -> Plan:
    """The student's first step, then the base's own schedule from that noise level on, as the base
    is guided.
    """
    (own,) = whole("student", student).segments
    steps = default_steps(base)
    levels = [
        noise_levels(scheduled(pipe.scheduler, segment, timing=timing_of(pipe))).sigma
        for pipe, segment in ((student, own), (base, Segment("base", 0, steps, steps)))
    ]
    below = np.flatnonzero(np.asarray(levels[1])[:steps] <= float(levels[0][1]) * (1 + 1e-6))
    if not len(below):
        raise ValueError("the base's schedule ends above the student's second noise level")
    rest = Segment("base", int(below[0]), steps, steps, guidance_scale=default_guidance(base))
    return Plan([replace(own, stop=1), rest])


def read_controls(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``FOLDER/controls.json``, each whole, with its file there."""
    path = folder / "controls.json"
    if not path.is_file():
        raise ValueError(f"no {path}: expected a list of row, file, prompts, target and scale")
    rows = json.loads(path.read_text(encoding="utf-8"))
    needed = {"row", "file", "prompts", "target"}
    for row in rows if isinstance(rows, list) else [rows]:
        if not isinstance(row, dict) or not needed <= set(row):
            raise ValueError(f"{path}: each entry needs {', '.join(sorted(needed))}; got {row!r}")
        if not (folder / row["file"]).is_file():
            raise ValueError(f"{path} names {row['file']}, which is not in {folder}")
    return list(rows)


def measure_controls(config: Reproduction, pair: Any, cache: Path | None) -> xr.Dataset:
    """Change of the CLIP score under each control, in percent of the original (control, model,
    bound); intervals over pictures.
    """
    assert config.controls is not None
    clip = feature_space("clip" + (f":{config.clip}" if config.clip else ""), pair.base)
    parts: dict[tuple[str, str], Any] = {}
    for row in read_controls(config.controls):
        score = text_score(clip, row["target"])
        for name, pipe in (("base", pair.base), ("student", pair.student)):
            before = _scored({name: Arm(pipe)}, row, score, config, cache)
            with Control(row["row"], config.controls / row["file"]).on(pipe) as set_scale:
                set_scale(float(row.get("scale", 1.0)))
                after = _scored({name: Arm(pipe)}, row, score, config, cache)
            ratio = paired_ratio(before, after, unit="picture").array()
            parts[row["row"], name] = (100 * (ratio - 1)).assign_attrs(ratio.attrs)
    rows = list(dict.fromkeys(row for row, _ in parts))
    found = xr.concat(
        [xr.concat([parts[row, m] for m in ("base", "student")], "model") for row in rows],
        "control",
    )
    return xr.Dataset({"change": found.assign_coords(control=rows, model=["base", "student"])})


def _scored(
    arms: Mapping[str, Arm], row: Mapping[str, Any], score: Any, config: Reproduction, cache: Any
) -> np.ndarray:
    samples = sample_arms(
        arms, list(row["prompts"]), list(config.seeds), cache=cache, batch_size=config.batch_size
    )
    (found,) = samples.values()
    finals = found["final"].transpose("prompt", "seed", ...)
    return np.concatenate(
        [score(finals.sel(prompt=p).values.astype(np.float32), p) for p in row["prompts"]]
    )
