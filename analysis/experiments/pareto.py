"""Every way to more diversity on the same prompts and seeds: diversity, fidelity, evaluations,
seconds and memory.

Two sets of prompts and of seeds: the policy is fitted on the first, from traces of base and student
alone; all methods are measured on the second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from xhat.analysis.measures.pareto_front import front_share, on_front
from xhat.analysis.sampling.arms import Arm, against, measure_arms, summarised
from xhat.hooks.points.names import denoiser_of
from xhat.samplers.composite.denoiser import CompositeDenoiser, model_key
from xhat.samplers.composite.lowrank import LowRankStudent, extract_lora
from xhat.samplers.composite.pipeline import hybrid
from xhat.samplers.plans.defaults import default_guidance, default_steps
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.policy import Policy
from xhat.samplers.rivals.adaptive import Adaptive
from xhat.samplers.rivals.registry import rival

RANK = 32
COSTS = ("evaluations", "seconds")
SINGLE = {
    "base": "base",
    "base_few": "base, student's steps",
    "student": "student",
    "skip": "first step skipped",
    "own_noise": "student, own noise",
    "hybrid_own_noise": "hybrid, own noise",
    "guidance_interval": "guidance interval",
    "cads": "CADS",
    "particles": "particle guidance",
    "teacher": "Distillation++",
    "modes": "mode guidance",
    "strength": "strength 0.75",
}
"""Rivals that need one student, with what is printed for them."""
SEVERAL = {"ensemble": "ensemble of students", "one_to_many": "one student a range"}


def contenders(pair: Any, policy: Policy, rank: int = RANK) -> dict[str, tuple[str, Arm]]:
    """name → (label, arm) of every method: the rivals, hybrids of one step and more, students of
    low rank, the policy.

    An ensemble and one student a range of noise are there where the pair has several students of
    one schedule."""
    base, student = pair.base, pair.student
    pipes = {name: (text, rival(name, pair)) for name, text in SINGLE.items()}
    pipes["base"] = (SINGLE["base"], base)
    pipes["student"] = (SINGLE["student"], student)
    guided = default_guidance(base)
    for k in range(1, default_steps(student)):
        steps = f"{k} step{'s' * (k > 1)}"
        pipes[f"hybrid_{k}"] = f"hybrid, {steps}", hybrid(base, student, base_steps=k)
        if guided > 1:
            found = hybrid(base, student, base_steps=k, base_guidance_scale=guided)
            pipes[f"hybrid_{k}_guided"] = f"hybrid, {steps} guided", found
    small = extract_lora(base, student, rank).student(base, student)
    pipes["low_rank"] = f"student of rank {rank}", small
    pipes["hybrid_low_rank"] = f"hybrid, rank {rank}", hybrid(base, small)
    fellows = _fellows(pair)
    if len(fellows) > 1:
        pipes |= {name: (text, rival(name, pair, names=fellows)) for name, text in SEVERAL.items()}
    pipes["policy"] = "policy", hybrid(base, student, policy=policy)
    return {name: (text, Arm(pipe)) for name, (text, pipe) in pipes.items()}


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


def measure_pareto(
    pair: Any,
    policy: Policy,
    prompts: Iterable[str],
    seeds: Iterable[int],
    *,
    space: Any,
    cache: Path | None = None,
    rank: int = RANK,
    batch_size: int = 24,
) -> xr.Dataset:
    """Every method of :func:`contenders`, and the adaptive policy, as
    :func:`~xhat.analysis.sampling.arms.measure_arms` does.

    Further variables (arm): ``label``; ``plan``, JSON, where base and student are run as they are;
    ``megabytes`` of the denoisers' weights; ``front``, whether it is on the front of diversity
    (``policy.measure``), fidelity and evaluations, and ``front_share``, in which share of bootstrap
    samples of the prompts it is."""
    prompts, seeds = list(prompts), list(seeds)
    found = contenders(pair, policy, rank)
    arms = {name: arm for name, (_, arm) in found.items()}
    twin = "student" if policy.chosen == "student" else _twin(arms)
    sampled = {name: arm for name, arm in arms.items() if name != "policy" or twin is None}
    measured = measure_arms(
        sampled, prompts, seeds, space=space, cache=cache, batch_size=batch_size
    )
    measured = measured[
        [n for n, v in measured.data_vars.items() if {"arm", "prompt"} <= set(v.dims)] + list(COSTS)
    ]
    if twin is not None:
        measured = _with_arm(measured, "policy", measured.sel(arm=twin, drop=True))
    bytes_of = {name: memory(arm.pipe) for name, arm in arms.items()}
    labels = {name: text for name, (text, _) in found.items()}
    if policy.look is not None:
        measured = _with_arm(
            measured, "policy_adaptive", _adaptive(pair, policy, measured, prompts, seeds)
        )
        labels["policy_adaptive"], bytes_of["policy_adaptive"] = (
            "policy, adaptive",
            bytes_of["policy"],
        )
    names = [str(name) for name in measured["arm"].values]
    measured["label"] = ("arm", [labels[name] for name in names])
    measured["megabytes"] = ("arm", [bytes_of[name] / 1e6 for name in names])
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
    """What the policy expected of each hybrid that was measured, beside what was found: gains over
    the student.

    Variables (plan): ``expected`` on the prompts it was fitted on, ``found``, ``low``, ``high`` on
    those it never saw."""
    plans = dict(
        zip(measured["arm"].values.tolist(), measured["plan"].values.tolist(), strict=True)
    )
    gains = against(measured, "student")
    own = policy.option("student").diversity
    rows = [
        (
            name,
            option.diversity - own,
            *(
                float(gains[f"{policy.measure}_{part}"].sel(arm=name))
                for part in ("mean", "low", "high")
            ),
        )
        for name, plan in plans.items()
        for option in policy.options
        if not name.startswith("policy") and not option.measured and option.plan.to_json() == plan
    ]
    numbers = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 4)
    data = {
        name: ("plan", numbers[:, i]) for i, name in enumerate(("expected", "found", "low", "high"))
    }
    return xr.Dataset(
        data,
        coords={"plan": [row[0] for row in rows]},
        attrs={"measure": policy.measure, "of": "gain"},
    )


def figure_data(measured: xr.Dataset) -> xr.Dataset:
    """What the figure is drawn from: by arm, means and intervals of diversity and fidelity, costs,
    and the front.
    """
    found = summarised(measured)
    names = [
        n
        for n in found.data_vars
        if str(n).rpartition("_")[0] in (measured.attrs["measure"], "fidelity")
    ]
    found = found[[*names, "evaluations", "seconds", "megabytes", "label", "front", "front_share"]]
    return found.assign(front=found["front"].astype("int8"))
