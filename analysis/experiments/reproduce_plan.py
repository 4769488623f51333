"""What a reproduction needs and takes, told before anything is sampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from xhat.analysis.experiments.reproduce import (
    Reproduction,
    arm_names,
    paper_arms,
    read_controls,
)
from xhat.analysis.sampling.budget import duration, seconds_each
from xhat.analysis.sampling.final_latents import to_sample
from xhat.hooks.model import with_defaults
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.table import bytes_text
from xhat.probes.features import feature_space
from xhat.probes.scores import load_score
from xhat.samplers.plans.defaults import default_guidance, default_steps


@dataclass(frozen=True)
class Readiness:
    """``missing``: a line on each thing that is not on this machine, with the command that fetches
    it; ``pictures`` and ``evaluations`` left to make; ``seconds`` for them by one timed call of the
    student, bytes on ``disk`` for all samples and of ``memory`` for weights, None where the models
    are missing.
    """

    missing: list[str]
    pictures: int | None = None
    evaluations: float | None = None
    seconds: float | None = None
    disk: int | None = None
    memory: int | None = None

    def text(self) -> str:
        lines = [f"missing: {line}" for line in self.missing]
        if self.pictures is not None:
            assert self.seconds is not None
            assert self.disk is not None
            assert self.memory is not None
            lines.append(
                f"{self.pictures} pictures left, {self.evaluations:.0f} evaluations: about "
                f"{duration(self.seconds)} on this machine, {bytes_text(self.disk)} on disk, "
                f"{bytes_text(self.memory)} of memory for weights"
            )
        return "\n".join(lines or ["nothing is missing"])


def readiness(config: Reproduction, *, cache: Path | None = None) -> Readiness:
    """Whether all that a reproduction needs is here, and what it takes.

    Shapes and steps are those of a rehearsal without arithmetic at the pipeline's own size; time is
    that of one short call.
    """
    pair, missing = config.models(), list[str]()
    models = _tried(lambda: (pair.base, pair.student), missing)
    _look_for_weights(config, _NoPipe() if models is None else models[0], missing)
    if models is None:
        return Readiness(missing)
    base, student = models
    arms = paper_arms(base, student, arm_names(config.tables, default_steps(student)))
    prompts, seeds = list(config.prompts), list(config.seeds)
    left = to_sample(arms, prompts, seeds, cache, config.batch_size)
    evaluations = sum(_evaluations(arms[name].pipe) * count for name, count in left.items())
    seconds = evaluations * seconds_each(student, prompts[0]) if evaluations else 0.0
    disk = _sample_bytes(student, prompts[0]) * len(arms) * len(prompts) * len(seeds)
    return Readiness(
        missing, sum(left.values()), evaluations, seconds, disk, _weight_bytes(base, student)
    )


def _look_for_weights(config: Reproduction, base: Any, missing: list[str]) -> None:
    """Those of the feature space, of the scores that are named, and of what controls are read
    with.
    """
    if any(table != "transfer" for table in config.tables):
        if isinstance(config.space, str):
            _tried(lambda: feature_space(str(config.space), base), missing)
        for name in config.scores or ():
            _tried(partial(load_score, name), missing)
    if config.controls is not None and "transfer" in config.tables:
        clip = f"clip:{config.clip}" if config.clip else "clip"
        _tried(partial(read_controls, config.controls), missing)
        _tried(lambda: feature_space(clip, base), missing)


def _sample_bytes(pipe: Any, prompt: str) -> int:
    """Bytes of one sample in the cache: its final latents and its x_T, in single precision."""
    seen = rehearse(pipe, [], prompt=prompt, **with_defaults(pipe, {}))
    assert seen.latents is not None
    return 2 * 4 * math.prod(seen.latents[0][1:])


def _weight_bytes(*pipes: Any) -> int:
    """Bytes of all weights, those that pipelines share once."""
    modules = {
        id(part): part
        for pipe in pipes
        for part in pipe.components.values()
        if hasattr(part, "parameters")
    }
    return sum(p.numel() * p.element_size() for m in modules.values() for p in m.parameters())


def _evaluations(pipe: Any) -> float:
    plan = getattr(pipe.scheduler, "plan", None)
    if plan is not None:
        return float(plan.evaluations)
    return default_steps(pipe) * (2.0 if default_guidance(pipe) > 1 else 1.0)


class _NoPipe:
    """Stands for the models where they are missing, so that weights can be looked for."""

    vae = None


def _tried(make: Callable[[], Any], missing: list[str]) -> Any:
    try:
        return make()
    except ValueError as error:
        missing.append(str(error))
        return None
