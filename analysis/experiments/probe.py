"""A checkpoint nobody has looked at yet: does it collapse, where, what does it still know, how is
it to be sampled?
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.analysis.experiments.probe_verdict import ProbeVerdict, alone, nothing, recommended
from xhat.analysis.sampling.arms import measure_finals
from xhat.analysis.sampling.budget import Estimate, fit_budget, room_of, seconds_each
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.analysis.sampling.noise_ledger import check_paired
from xhat.analysis.sampling.pairing import Line, called_guidance, compare_models, divisible
from xhat.analysis.sampling.probe_sliders import slider_transfer
from xhat.analysis.sampling.structure import has_learned, structure
from xhat.analysis.traces.commitment import commitment
from xhat.analysis.traces.diversity import diversity_by_noise
from xhat.analysis.traces.layers import NoSharedLevel, TooFewSamples
from xhat.analysis.traces.similarity_map import similarity_map
from xhat.hooks.describe import checksum, describe, jsonable
from xhat.hooks.points.names import denoiser_of, named_points
from xhat.hooks.trace import trace
from xhat.probes.answers import with_questions
from xhat.probes.encoders import MissingWeights
from xhat.probes.features import FeatureSpace, feature_space
from xhat.probes.questions import Question, check_asked
from xhat.probes.reference import SPACE as REFERENCE_SPACE
from xhat.probes.reference import with_reference
from xhat.probes.scores import scores_here, with_scores
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.build import skip_plan, swap_plan
from xhat.samplers.plans.defaults import default_steps
from xhat.samplers.plans.plan import Plan
from xhat.zoo.family.attributes import OPEN_PROMPTS, parse_prompt
from xhat.zoo.suites import PAPER

LOG = logging.getLogger(__name__)

PROMPTS = (
    *PAPER,
    "an image of a car",
    "a kitchen",
    "a mountain landscape",
)
"""For models of the world: the subjects of the paper's diversity table (arXiv 2503.10637), and two
more."""

POINTS = 12


@dataclass(frozen=True)
class ProbeResult:
    """What was found. ``lines``: how the two fit; ``estimate``: what was run; ``verdict``: what is
    to be said of it.

    ``measured``: arms × prompts (:func:`~xhat.analysis.sampling.arms.measure_finals`).
    ``structure``, ``diversity``, ``commitment``, ``traces`` by model (base, student);
    ``similarity`` and ``sliders`` where there is a base."""

    lines: list[Line]
    estimate: Estimate
    verdict: ProbeVerdict
    structure: dict[str, xr.Dataset]
    notes: list[str]
    measured: xr.Dataset | None = None
    diversity: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)
    commitment: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)
    similarity: xr.Dataset | None = field(default=None, repr=False)
    sliders: list[dict[str, Any]] = field(default_factory=list)
    traces: dict[str, xr.DataTree] = field(default_factory=dict, repr=False)
    samples: dict[str, xr.DataArray] = field(default_factory=dict, repr=False)

    def to_json(self) -> str:
        """All that is not a picture or a map."""
        data: dict[str, Any] = {
            "verdict": asdict(self.verdict),
            "fit": [asdict(line) for line in self.lines],
            "run": asdict(self.estimate),
            "notes": self.notes,
            "sliders": self.sliders,
        }
        data["structure"] = {name: _numbers(found) for name, found in self.structure.items()}
        for name in ("diversity", "commitment"):
            data[name] = {model: _numbers(found) for model, found in getattr(self, name).items()}
        for name in ("measured", "similarity"):
            found = getattr(self, name)
            data[name] = None if found is None else _numbers(found)
        return json.dumps(jsonable(data), indent=1, ensure_ascii=False) + "\n"


def probe(
    student: Any,
    base: Any = None,
    *,
    out: Path,
    prompts: Sequence[str] | None = None,
    seeds: Sequence[int] = range(32),
    budget: float = 600.0,
    space: str | None = None,
    scores: Sequence[str] | None = None,
    reference: Path | None = None,
    reference_space: str = REFERENCE_SPACE,
    questions: Sequence[Question] = (),
    answers: str = "siglip",
    sliders: Sequence[Path] = (),
    batch_size: int = 16,
) -> ProbeResult:
    """Measure a checkpoint, beside its base where there is one, within ``budget`` seconds, and say
    what was found.

    ``space``: name of a feature space; by default the judge for the embedded family, else DINOv2 or
    CLIP where their weights are on this machine, else the latents at unit RMS. ``scores``: of
    alignment and quality (:func:`xhat.probes.scores.load_score`); by default those whose weights
    are on this machine. ``reference``: a folder of pictures that the drawn ones are held against,
    in ``reference_space`` (:mod:`xhat.analysis.measures.reference`). ``questions``
    (:func:`xhat.probes.questions.load_questions`): attributes of the pictures, read by who
    ``answers``; their entropy is measured. ``sliders``: LoRA files
    tried on both. Samples and traces are kept in ``out``: a run that was stopped goes on there,
    with the prompts and seeds that it chose at first.

    Where the model is no better at taking noise off its own pictures than a straight line
    (:mod:`xhat.analysis.sampling.structure`), the run ends there, and says that there is nothing to
    show. Raises ValueError for a base of another family, for a budget and disk that are too small,
    and for values that are not finite, naming step and point."""
    models = {"student": student} | ({} if base is None else {"base": base})
    notes = [note for note in (divisible(pipe) for pipe in models.values()) if note]
    lines = compare_models(student, base)
    chosen = with_scores(space_of(space, student, prompts), student.vae, scores)
    chosen = with_questions(chosen, student.vae, answers, questions)
    chosen = with_reference(chosen, student.vae, reference, reference_space)
    notes += unscored(chosen, scores)
    prompts = list(prompts or (OPEN_PROMPTS[:8] if chosen.name == "judge" else PROMPTS))
    check_asked(questions, prompts)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # encoders of other weights are in the lines above
        arms = {} if base is None else probe_arms(base, student)
    hooks = dict.fromkeys(read_points(denoiser_of(student)), "project(256)")
    estimate = _fit_budget(models, arms, prompts, list(seeds), budget, hooks, out, batch_size)
    LOG.info(estimate.text())
    traces = _traced(models, estimate, hooks, out, batch_size)
    finals = {name: tree.to_dataset()["final"].load() for name, tree in traces.items()}
    shown = {n: structure(pipe, finals[n], batch_size=batch_size) for n, pipe in models.items()}
    common: dict[str, Any] = {
        "lines": lines,
        "estimate": estimate,
        "structure": shown,
        "traces": traces,
    }
    unlearned = [name for name, found in shown.items() if not has_learned(found)]
    if unlearned:
        return ProbeResult(verdict=nothing(unlearned, shown), notes=notes, samples=finals, **common)
    common["diversity"] = {
        n: diversity_by_noise(tree, features=chosen) for n, tree in traces.items()
    }
    common["commitment"] = {n: commitment(tree) for n, tree in traces.items()}
    if base is None:
        return _alone(finals, chosen, notes, common)
    drawn = sample_arms(
        arms, estimate.prompts, estimate.seeds, cache=out / "cache", batch_size=batch_size
    )
    check_paired(drawn)
    finals |= {name: samples["final"] for name, samples in drawn.items()}
    moved = [
        slider_transfer(path, base, student, estimate.prompts, estimate.seeds[:4])
        for path in sliders
    ]
    plans = {name: arm.pipe.scheduler.plan for name, arm in arms.items()}
    return _beside_base(finals, chosen, plans, moved, notes, common)


def _traced(
    models: Mapping[str, Any],
    estimate: Estimate,
    hooks: Mapping[str, str],
    out: Path,
    batch_size: int,
) -> dict[str, xr.DataTree]:
    return {
        name: trace(
            pipe,
            estimate.prompts,
            seeds=estimate.seeds,
            hooks=hooks,
            store=out / "traces" / f"{name}.zarr",
            batch_size=batch_size,
        )
        for name, pipe in models.items()
    }


def _alone(
    finals: dict[str, xr.DataArray], space: FeatureSpace, notes: list[str], common: dict[str, Any]
) -> ProbeResult:
    """Of a checkpoint without a base; ``common``: what is in every result."""
    measured = measure_finals(finals, space)
    verdict = alone(measured, **_curves(common))
    return ProbeResult(verdict=verdict, notes=notes, measured=measured, samples=finals, **common)


def _beside_base(
    finals: dict[str, xr.DataArray],
    space: FeatureSpace,
    plans: Mapping[str, Plan],
    moved: list[dict[str, Any]],
    notes: list[str],
    common: dict[str, Any],
) -> ProbeResult:
    """Of a checkpoint with its base: which plan gives back what was lost."""
    measured = measure_finals(finals, space)
    similar, said = _similarity(common["traces"])
    return ProbeResult(
        verdict=recommended(measured, plans, similar, moved, **_curves(common)),
        notes=notes + said,
        measured=measured,
        similarity=similar,
        sliders=moved,
        samples=finals,
        **common,
    )


def probe_arms(base: Any, student: Any) -> dict[str, Arm]:
    """The cells of the swap matrix that answer most: the first step the base's, in several
    evaluations and in one; the later ones, all; and no first.
    """
    steps = default_steps(student)
    plans = {"base_few": swap_plan(base, student, range(steps))}
    if steps > 1:
        plans["later"] = swap_plan(base, student, range(1, steps))
        plans["skip"] = skip_plan(student)
    arms = {name: Arm(hybrid(base, student, plan=plan)) for name, plan in plans.items()}
    if steps == 1:
        return arms
    one = Arm(hybrid(base, student, base_evaluations=1))
    return {"hybrid": Arm(hybrid(base, student)), "hybrid_one": one} | arms


def space_of(name: str | None, pipe: Any, prompts: Sequence[str] | None) -> FeatureSpace:
    """The feature space of a name, or the best that is to be had for this model."""
    if name is not None:
        return feature_space(name, pipe)
    if _of_the_family(pipe) and all(parse_prompt(p) is not None for p in prompts or ()):
        return feature_space("judge", pipe)
    for candidate in ("dinov2", "clip"):
        try:
            return feature_space(candidate, pipe)
        except MissingWeights:
            continue
    return feature_space("latent", pipe)


def unscored(space: FeatureSpace, scores: Sequence[str] | None) -> list[str]:
    """That diversity stands alone, where nothing is measured beside it, and what would help."""
    if hasattr(space, "fidelity") or hasattr(space, "scores"):
        return []
    missing = " ".join(f"Of {line}." for line in scores_here()[1]) if scores is None else ""
    return [
        "Quality and alignment were not measured, and a gain in diversity says little without "
        f"them. {missing}".strip()
    ]


def _of_the_family(pipe: Any) -> bool:
    words = pipe.tokenizer.get_vocab() if getattr(pipe, "tokenizer", None) is not None else {}
    config: Any = denoiser_of(pipe).config
    side = config.get("sample_size")
    return (
        {"critter", "antennae", "cratered"} <= set(words)
        and side == 16
        and pipe.vae_scale_factor == 4
    )


def read_points(denoiser: Any) -> list[str]:
    """Up to a dozen points along a network: whole blocks, evenly spread."""
    names = [p.alias for p in named_points(denoiser)]
    blocks = [n for n in names if n == "h" or (n.count(".") == 1 and n.split(".")[1].isdigit())]
    step = -(-len(blocks) // POINTS)
    return blocks[:: max(step, 1)]


def _fit_budget(
    models: Mapping[str, Any],
    arms: Mapping[str, Arm],
    prompts: list[str],
    seeds: list[int],
    budget: float,
    hooks: Mapping[str, str],
    out: Path,
    batch_size: int,
) -> Estimate:
    """The part that fits the budget, the same as before where this run was begun before."""
    asked = {
        "models": {n: describe(p) for n, p in models.items()},
        "prompts": prompts,
        "seeds": seeds,
        "budget": budget,
    }
    file, key = out / "setup.json", checksum(asked)
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["key"] != key:
            raise ValueError(
                f"{out} holds a probe of other models, prompts, seeds or budget: give another --out"
            )
        return Estimate(**kept["estimate"])
    evaluations = sum(
        default_steps(p) * (2 if called_guidance(p) > 1 else 1) for p in models.values()
    )
    evaluations += sum(arm.pipe.scheduler.plan.evaluations for arm in arms.values()) + len(models)
    estimate = fit_budget(
        prompts,
        seeds,
        evaluations=evaluations,
        each=seconds_each(models["student"], prompts[0]),
        budget=budget,
        room=room_of(models, prompts[0], hooks),
        out=out,
        batch_size=batch_size,
    )
    out.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(
        json.dumps({"key": key, "estimate": asdict(estimate)}, indent=1, ensure_ascii=False) + "\n"
    )
    partial.replace(file)
    return estimate


def _similarity(traces: Mapping[str, Any]) -> tuple[xr.Dataset | None, list[str]]:
    """Debiased CKA of base and student at equal noise, or at the nearest where no level is shared,
    or why not.
    """
    for tolerance in (1e-3, 0.3):
        try:
            found = similarity_map(
                traces["base"], traces["student"], tolerance=tolerance, permutations=99
            )
        except (NoSharedLevel, TooFewSamples) as error:
            reason = str(error)
            continue
        said = "No noise level is shared: layers are compared at the nearest, within 30 %."
        return found, [] if tolerance < 0.01 else [said]
    return None, [f"Layers were not compared: {reason}."]


def _curves(common: Mapping[str, Any]) -> dict[str, Any]:
    return {name: common[name] for name in ("diversity", "commitment")}


def _numbers(found: xr.Dataset) -> dict[str, Any]:
    """Small variables by name."""
    return {str(n): v.values.tolist() for n, v in found.variables.items() if v.size <= 4096}
