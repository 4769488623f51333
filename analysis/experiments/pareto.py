"""Every way to more diversity on the same prompts and seeds: diversity, fidelity, evaluations,
seconds and memory.

Two sets of prompts and of seeds: the policy is fitted on the first, from traces of base and student
alone; all methods are measured on the second."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from xhat.analysis.experiments.arm_table import few_step_base
from xhat.analysis.experiments.pareto_text import pareto_table, sentences
from xhat.analysis.experiments.setting import Setting, check_whole_number
from xhat.analysis.measures.pareto_front import front_share, on_front
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import Arm, against, measure_arms, summarised
from xhat.hooks.points.names import denoiser_of
from xhat.samplers.composite.denoiser import CompositeDenoiser, model_key
from xhat.samplers.composite.lowrank import LowRankStudent, extract_lora
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.build import swap_plan
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.policy import Policy
from xhat.samplers.rivals.adaptive import Adaptive
from xhat.samplers.rivals.registry import InapplicableRival, rival
from xhat.zoo.family.attributes import OPEN_PROMPTS

RANK = 32
JUDGE_PROMPTS = OPEN_PROMPTS[:12]
COSTS = ("evaluations", "seconds")
SINGLE = {
    "base": "base",
    "base_few": "base at few steps",
    "student": "student",
    "skip": "first step skipped",
    "own_noise": "student, own noise",
    "hybrid_own_noise": "hybrid, own noise",
    "hybrid_embedding_noise": "hybrid, noise on embeddings",
    "guidance_interval": "guidance interval",
    "guidance_interval_published": "guidance interval of SDXL",
    "cads": "CADS",
    "cads_published": "CADS, as published",
    "particles": "particle guidance",
    "particles_features": "particle guidance of pictures",
    "teacher": "Distillation++",
    "modes": "mode guidance",
    "feature_dispersal": "feature dispersal",
    "stride": "STRIDE",
    "group_inference": "group inference",
    "spectral_noise": "reshaped noise",
    "sparke": "SPARKE",
    "embedding_noise": "noise on embeddings",
    "strength": "strength 0.75",
}
"""Rivals that need one student, with what is printed for them."""
SEVERAL = {"ensemble": "ensemble of students", "one_to_many": "one student a range"}


Options = Mapping[str, Mapping[str, Any]]


def contenders(
    pair: Any, policy: Policy, rank: int = RANK, tuned: Options | None = None
) -> dict[str, tuple[str, Arm]]:
    """name → (label, arm) of every method: the rivals, hybrids, students of low rank, the policy.

    ``tuned``: rival → its options, of :mod:`~xhat.analysis.experiments.tuning`. With those of the
    hybrid, it is there as ``hybrid_tuned`` too.

    ``hybrid`` is the default recipe, whose base makes the first step in several evaluations; in
    ``hybrid_K`` it makes the student's first K steps in one evaluation each.

    An ensemble and one student a range of noise are there where the pair has several students of
    one schedule."""
    base, student = pair.base, pair.student
    tuned = tuned or {}
    pipes = _rivals(pair, tuned)
    pipes["base"] = (SINGLE["base"], base)
    pipes["student"] = (SINGLE["student"], student)
    pipes["hybrid"] = "hybrid, first step in several", hybrid(base, student)
    if "hybrid" in tuned:
        pipes["hybrid_tuned"] = "hybrid, tuned", rival("hybrid", pair, **tuned["hybrid"])
    guided = default_guidance(base)
    for k in range(1, default_steps(student)):
        steps = f"{k} step{'s' * (k > 1)}"
        plain = swap_plan(base, student, range(k))
        pipes[f"hybrid_{k}"] = f"hybrid, {steps}", hybrid(base, student, plan=plain)
        if guided > 1:
            strong = swap_plan(base, student, range(k), base_guidance_scale=guided)
            pipe = hybrid(base, student, plan=strong)
            pipes[f"hybrid_{k}_guided"] = f"hybrid, {steps} guided", pipe
    small = extract_lora(base, student, rank).student(base, student)
    pipes["low_rank"] = f"student of rank {rank}", small
    pipes["hybrid_low_rank"] = f"hybrid, rank {rank}", hybrid(base, small)
    fellows = _fellows(pair)
    if len(fellows) > 1:
        pipes |= {name: (text, rival(name, pair, names=fellows)) for name, text in SEVERAL.items()}
    pipes["policy"] = "policy", hybrid(base, student, policy=policy)
    return {name: (text, Arm(pipe)) for name, (text, pipe) in pipes.items()}


def _rivals(pair: Any, tuned: Options) -> dict[str, tuple[str, Any]]:
    """name → (label, pipeline) of the rivals of one student; those that would change nothing are
    left out, with a warning.
    """
    pipes = {}
    for name, label in SINGLE.items():
        try:
            pipes[name] = label, rival(name, pair, **tuned.get(name, {}))
        except InapplicableRival as error:
            warnings.warn(f"{label} is left out: {error}", stacklevel=3)
    return pipes


def _fellows(pair: Any) -> list[str]:
    """Students that step as the chosen one does, which comes first."""
    steps, own = default_steps(pair.student), pair.student.scheduler
    alike = [
        name
        for name, pipe in pair.students.items()
        if type(pipe.scheduler) is type(own)
        and dict(pipe.scheduler.config) == dict(own.config)
        and default_steps(pipe) == steps
    ]
    return sorted(alike, key=lambda name: name != pair.chosen)[:steps]


@dataclass(frozen=True, kw_only=True)
class Pareto(Setting):
    """What :func:`measure_pareto` is asked.

    Parameters
    ----------
    prompts, seeds
        All methods are measured on these.
    policy
        The policy whose plan is among the methods, fitted on other prompts and seeds
        (:func:`~xhat.analysis.experiments.policy.fit_policy`).
    rank
        Of the student of low rank.
    tuned
        Rival → its options, picked on other prompts and seeds
        (:func:`~xhat.analysis.experiments.tuning.options_of`); its defaults where left out.
    """

    policy: Policy
    prompts: Sequence[str] = JUDGE_PROMPTS
    seeds: Sequence[int] = range(16)
    rank: int = RANK
    tuned: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_number("rank", self.rank)

    def settings(self) -> dict[str, Any]:
        """All that was asked; of the policy, which plan it chose, within what."""
        chosen = {"chosen": self.policy.chosen, "budget": self.policy.budget}
        return super().settings() | {"policy": chosen | {"setting": self.policy.setting}}


def measure_pareto(config: Pareto, *, cache: Path | None = None) -> Result:
    """Every method of :func:`contenders`, and the adaptive policy, on the same prompts and seeds.

    Parameters
    ----------
    cache
        Folder where samples and timings are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data``: ``measured`` (:func:`measure_contenders`), ``pareto``, its means and intervals,
        and ``predicted`` (:func:`predicted`).
    """
    pair = config.models()
    measured = measure_contenders(pair, config, cache)
    expected = predicted(config.policy, measured)
    lines = sentences(measured, config.policy, expected)
    data = {"measured": measured, "pareto": figure_data(measured), "predicted": expected}
    return Result(
        "pareto",
        {name: array.assign_attrs(student=pair.chosen) for name, array in data.items()},
        pareto_table(measured),
        lines,
        config.settings(),
    )


def measure_contenders(pair: Any, config: Pareto, cache: Path | None = None) -> xr.Dataset:
    """Every method as :func:`~xhat.analysis.sampling.arms.measure_arms` has it.

    Further variables (arm): ``label``; ``plan``, JSON, where base and student are run as they are;
    ``megabytes`` of the denoisers' weights; ``front``, whether it is on the front of diversity
    (``policy.measure``), fidelity and evaluations, and ``front_share``, in which share of bootstrap
    samples of the prompts it is."""
    policy, prompts, seeds = config.policy, list(config.prompts), list(config.seeds)
    methods = contenders(pair, policy, config.rank, config.tuned)
    arms = {name: arm for name, (_, arm) in methods.items()}
    twin = "student" if policy.chosen == "student" else _twin(arms)
    measured = measure_arms(
        {name: arm for name, arm in arms.items() if name != "policy" or twin is None},
        prompts,
        seeds,
        space=config.features(pair),
        cache=cache,
        batch_size=config.set_batch,
    )
    per_arm = [n for n, v in measured.data_vars.items() if {"arm", "prompt"} <= set(v.dims)]
    measured = measured[[*per_arm, *COSTS]]
    if twin is not None:
        measured = _with_arm(measured, "policy", measured.sel(arm=twin, drop=True))
    labels = {name: text for name, (text, _) in methods.items()}
    if policy.look is not None:
        adaptive = _adaptive(pair, policy, measured, prompts, seeds)
        measured = _with_arm(measured, "policy_adaptive", adaptive)
        labels["policy_adaptive"] = "policy, adaptive"
    names = [str(name) for name in measured["arm"].values]
    pipes = [arms[name.removesuffix("_adaptive")].pipe for name in names]
    few = float(measured["evaluations"].sel(arm="base_few"))
    labels["base_few"] = few_step_base(default_steps(pair.student), few)
    measured["label"] = ("arm", [labels[name] for name in names])
    measured["megabytes"] = ("arm", [memory(pipe) / 1e6 for pipe in pipes])
    measured["plan"] = ("arm", [_text(arms[name].pipe) if name in arms else "" for name in names])
    return _with_front(measured, policy.measure)


def _with_front(measured: xr.Dataset, measure: str) -> xr.Dataset:
    kept = (measure, "fidelity") if "fidelity" in measured else (measure,)
    means = [measured[name].mean("prompt").values for name in kept]
    measured["front"] = ("arm", on_front(np.stack([*means, -measured["evaluations"].values], -1)))
    measured["front_share"] = ("arm", front_share(measured, kept))
    return measured.assign_attrs(measure=measure, front_of=", ".join((*kept, "evaluations")))


def _with_arm(measured: xr.Dataset, name: str, values: xr.Dataset) -> xr.Dataset:
    return xr.concat(
        [measured, values.expand_dims(arm=[name])],
        "arm",
        data_vars="minimal",
        combine_attrs="override",
    )


def _twin(arms: Mapping[str, Arm]) -> str | None:
    """The arm that runs the policy's plan anyway: its pictures are the policy's, to the bit."""
    own = ran(arms["policy"].pipe)
    return next(
        (name for name, arm in arms.items() if name != "policy" and ran(arm.pipe) == own), None
    )


def ran(pipe: Any) -> Plan | None:
    """The plan by which a hybrid runs base and student as they are, None where taps or other models
    do.
    """
    scheduler = pipe.scheduler
    plain = getattr(scheduler, "taps", None) == () and set(
        getattr(scheduler, "schedulers", ())
    ) == {"base", "student"}
    return scheduler.plan if plain and not _low_rank(pipe) else None


def _text(pipe: Any) -> str:
    plan = ran(pipe)
    return "" if plan is None else plan.to_json()


def _low_rank(pipe: Any) -> bool:
    denoiser: Any = denoiser_of(pipe)
    return any(isinstance(network, LowRankStudent) for network in denoiser.networks())


def _adaptive(
    pair: Any, policy: Policy, measured: xr.Dataset, prompts: list[str], seeds: list[int]
) -> xr.Dataset:
    """Each prompt as the policy's plan or the student alone made it, whichever its look says; looks
    are paid for.
    """
    looking = Adaptive(pair.base, pair.student, policy)
    needing = []
    for prompt in prompts:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x0 = looking.look(prompt, num_images_per_prompt=len(seeds), generator=generators)
        needing.append(policy.needs_base(x0))
    chosen, own = (measured.sel(arm=name, drop=True) for name in ("policy", "student"))
    mask = xr.DataArray(needing, dims="prompt", coords={"prompt": measured["prompt"]})
    picked = xr.where(mask, chosen.drop_vars(COSTS), own.drop_vars(COSTS), keep_attrs=True)
    share = float(np.mean(needing))
    for name in COSTS:  # the look is the student's first step, lost where the base makes it
        look = float(own[name]) / policy.option("student").evaluations
        picked[name] = share * (float(chosen[name]) + look) + (1 - share) * float(own[name])
    return picked.assign_attrs(share=share)


def memory(pipe: Any) -> int:
    """Bytes of the denoisers' weights that a pipeline needs: each tensor once, of models that its
    plan runs.
    """
    denoiser, wanted = denoiser_of(pipe), []
    if isinstance(denoiser, CompositeDenoiser):
        scheduler = denoiser.scheduler
        keys = {model_key(segment) for segment in scheduler.plan.segments}
        keys |= {str(getattr(tap, "teacher", getattr(tap, "model", ""))) for tap in scheduler.taps}
        wanted = [network for name, network in denoiser.models.items() if name in keys]
    tensors = [
        t for network in wanted or [denoiser] for t in (*network.parameters(), *network.buffers())
    ]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors if t.numel()}.values())


def predicted(policy: Policy, measured: xr.Dataset) -> xr.Dataset:
    """What the policy expected of each hybrid that was measured, beside what came: gains over the
    student.

    Variables ``expected`` (plan), on the prompts it was fitted on, and ``measured`` (plan, bound),
    on those it never saw."""
    plans = dict(
        zip(measured["arm"].values.tolist(), measured["plan"].values.tolist(), strict=True)
    )
    own = policy.option("student").diversity
    expected = {
        name: option.diversity - own
        for name, plan in plans.items()
        for option in policy.options
        if not name.startswith("policy") and not option.measured and option.plan.to_json() == plan
    }
    gains = against(measured, "student")[policy.measure].sel(arm=list(expected)).rename(arm="plan")
    return xr.Dataset(
        {"expected": ("plan", np.array(list(expected.values()), dtype=float)), "measured": gains},
        attrs={"measure": policy.measure, "of": "gain"},
    )


def figure_data(measured: xr.Dataset) -> xr.Dataset:
    """What the figure is drawn from: by arm, means and intervals of diversity and fidelity, costs,
    and the front.
    """
    levels = summarised(measured)
    names = [n for n in (measured.attrs["measure"], "fidelity") if n in levels]
    levels = levels[[*names, *COSTS, "megabytes", "label", "front", "front_share"]]
    return levels.assign(front=levels["front"].astype("int8"))
