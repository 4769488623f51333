"""Controls in several models: what is to be measured, what is measured already, in which order.

Every measurement is cached under a hash of what it depends on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from xhat.analysis.sampling.arms import cost
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.control import Control, random_controls
from xhat.analysis.sampling.control_jobs import Extent, Job, Measured
from xhat.analysis.sampling.dose_response import doses
from xhat.analysis.sampling.effects import REDUCTION, effect, free_runs, responses
from xhat.analysis.sampling.joined_grid import passing, sigmas_of
from xhat.analysis.traces.effect_alignment import alignment_map
from xhat.analysis.traces.energy import compare_energy, direction, energy
from xhat.hooks.describe import checksum, describe
from xhat.hooks.model import with_defaults

BASE = "base"
TOGETHER = 4  # prompts of free sampling that are cached, and would be lost, together
LOG = logging.getLogger(__name__)


class Bench:
    """The models, the controls, and what was measured so far.

    Raises ValueError without a base, a student, or a control that was trained on one of the
    models."""

    def __init__(
        self,
        models: Mapping[str, Any],
        controls: Sequence[Control],
        space: Any,
        cache: Path,
        extent: Extent,
    ) -> None:
        if BASE not in models or len(models) < 2 or not controls:
            raise ValueError(
                f"expected a model named {BASE!r}, one student or more, and controls; got the "
                f"models {', '.join(models)} and {len(controls)} controls"
            )
        self.models, self.space, self.cache, self.extent = models, space, cache, extent
        self.students = [name for name in models if name != BASE]
        self.controls = [c for c in controls if c.trained_on in models]
        for other in (c for c in controls if c.trained_on not in models):
            LOG.warning(
                "%s is left out: the model %r is not among %s",
                other.name,
                other.trained_on,
                ", ".join(models),
            )
        if not self.controls:
            raise ValueError(f"no control was trained on one of {list(models)}")
        self.randoms = random_controls(self.controls, extent.randoms, cache / "nulls")
        self.identities = {c.name: c.identity() for c in (*self.controls, *self.randoms)}
        self.prompts = list(dict.fromkeys(p for c in self.controls for p in c.prompts))
        self.described = {name: checksum(describe(pipe)) for name, pipe in models.items()}
        self.levels = {name: sigmas_of(pipe) for name, pipe in models.items()}
        self.results: dict[tuple[str, str], xr.Dataset] = {}

    def goes_to(self, control: Control) -> list[str]:
        """The models that a control is tried in, its own first."""
        return [BASE, *self.students] if control.trained_on == BASE else [control.trained_on, BASE]

    def run(self) -> Measured:
        """Make or read every measurement."""
        jobs = {job.at: job for job in self._jobs()}  # students of one schedule share the base's
        missing = {at for at, j in jobs.items() if not self._cache(j).holds(j.name, j.key)}
        total = sum(jobs[at].evaluations for at in missing)
        self._announce(len(jobs), len(missing), total)
        with tqdm(total=round(total), desc="transfer", unit="eval", disable=not missing) as bar:
            for at, job in jobs.items():
                bar.set_postfix_str(" ".join(at))
                self.results[at] = self._cache(job).get(job.name, job.key, job.make)
                bar.update(round(job.evaluations) if at in missing else 0)
        doses = {
            (c.name, m): self.results["doses", f"{c.name}.{m}"]
            for c in self.controls
            for m in self.goes_to(c)
        }
        by_student = (
            {m: self.results[what, m] for m in self.students} for what in ("alignment", "energy")
        )
        return Measured(self.controls, list(self.models), doses, *by_student)

    def _cache(self, job: Job) -> Cache:
        return Cache(self.cache / job.folder)

    def _announce(self, jobs: int, missing: int, total: float) -> None:
        if not missing:
            return
        evaluations, seconds = cost(self.models[self.students[0]], self.prompts[0])
        LOG.info(
            "%d controls and %d random LoRAs in %d models: %d of %d measurements to make, about "
            "%.0f min",
            len(self.controls),
            len(self.randoms),
            len(self.models),
            missing,
            jobs,
            total * seconds / evaluations / 60,
        )

    def _jobs(self) -> list[Job]:
        """Every measurement, in an order in which each finds what it needs."""
        pairs = [
            *((BASE, student) for student in self.students),
            *((student, student) for student in self.students),
        ]
        jobs = [job for model, student in pairs for job in self._free(model, student)]
        for student in self.students:
            for model in (BASE, student):
                jobs.append(self._rest(model, student))
                jobs += [
                    self._effect(model, student, control) for control in self._controls_at(student)
                ]
            jobs += [self._alignment(student), self._energy(student)]
        return jobs + [self._doses(c, m) for c in self.controls for m in self.goes_to(c)]

    def _controls_at(self, student: str) -> list[Control]:
        """The controls whose effects are compared between the base and a student, then the random
        ones.
        """
        return [*(c for c in self.controls if c.trained_on in (BASE, student)), *self.randoms]

    def _states_key(self, student: str) -> dict[str, Any]:
        s = self.extent
        key = {
            "base": self.described[BASE],
            "sigmas": self.levels[student],
            "prompts": self.prompts,
            "seeds": s.free,
        }
        return key | {
            "points": s.points,
            "reduction": REDUCTION,
            "call": self._call(BASE),
            "batch": s.batch_size,
        }

    def _call(self, model: str) -> dict[str, Any]:
        return with_defaults(self.models[model], {})

    def _evaluations(self, model: str) -> float:
        """Of the network, for one picture."""
        call = self._call(model)
        return len(self.levels[model]) * (2 if call.get("guidance_scale", 7.5) > 1 else 1)

    def _free(self, model: str, student: str) -> list[Job]:
        """Free samples of a model at the noise levels of a student, a few prompts at a time, then
        joined.
        """
        s, sigmas, name = self.extent, self.levels[student], self._free_name(model, student)
        key = self._states_key(student) | {"model": self.described[model], "own": self._call(model)}
        stretches = [self.prompts[i : i + TOGETHER] for i in range(0, len(self.prompts), TOGETHER)]

        def part(some: list[str]) -> Callable[[], xr.Dataset]:
            pipe, seeds = passing(self.models[model], sigmas), range(s.free)
            return lambda: free_runs(
                pipe, some, seeds, sigmas, points=s.points, batch_size=s.batch_size
            )

        parts = [
            Job(
                "parts",
                f"{name}.{i}",
                key | {"part": some},
                len(some) * s.free * self._evaluations(model),
                part(some),
            )
            for i, some in enumerate(stretches)
        ]

        def joined() -> xr.Dataset:
            each = [self.results[job.at] for job in parts]
            return xr.concat(each, "prompt", coords="minimal", compat="override")

        return [*parts, Job("free", name, key, 0, joined)]

    def _free_name(self, model: str, student: str | None = None) -> str:
        return self._states_name(student or self.students[0]) if model == BASE else model

    def _states_name(self, student: str) -> str:
        return f"{BASE}.{checksum({'sigmas': self.levels[student]})[:8]}"

    def _states(self, student: str) -> xr.Dataset:
        return self.results["free", self._states_name(student)].isel(seed=slice(self.extent.states))

    def _name(self, model: str, student: str, what: str) -> str:
        return f"{self._states_name(student) if model == BASE else model}.{what}"

    def _responses_key(self, model: str, student: str) -> dict[str, Any]:
        return self._states_key(student) | {
            "model": self.described[model],
            "states": self.extent.states,
        }

    def _rest(self, model: str, student: str) -> Job:
        s = self.extent

        def make() -> xr.Dataset:
            return responses(
                self.models[model], self._states(student), points=s.points, batch_size=s.batch_size
            )

        evaluations = len(self.prompts) * s.states * len(self.levels[student])
        return Job(
            "rest",
            self._name(model, student, "rest"),
            self._responses_key(model, student),
            evaluations,
            make,
        )

    def _effect(self, model: str, student: str, control: Control) -> Job:
        s = self.extent

        def make() -> xr.Dataset:
            rest = self.results["rest", self._name(model, student, "rest")]
            pipe, states = self.models[model], self._states(student)
            change = effect(
                pipe, control, states, points=s.points, batch_size=s.batch_size, rest=rest
            )
            return change.astype("float16")

        key = self._responses_key(model, student) | {"control": self.identities[control.name]}
        evaluations = len(self.prompts) * s.states * len(self.levels[student])
        return Job("effects", self._name(model, student, control.name), key, evaluations, make)

    def _effects(self, model: str, student: str) -> dict[str, xr.Dataset]:
        return {
            c.name: self.results["effects", self._name(model, student, c.name)]
            for c in self._controls_at(student)
        }

    def _both_key(self, student: str) -> dict[str, Any]:
        key = self._responses_key(student, student)
        named = {
            c.name: [self.identities[c.name], c.prompts, c.what] for c in self._controls_at(student)
        }
        return key | {"controls": named}

    def _alignment(self, student: str) -> Job:
        def make() -> xr.Dataset:
            prompts = {c.name: c.prompts for c in self._controls_at(student) if c.prompts}
            turns = {c.name: c.what for c in self.controls if c.what}
            return alignment_map(
                self._effects(BASE, student), self._effects(student, student), prompts, turns=turns
            )

        return Job("alignment", student, self._both_key(student), 0, make)

    def _energy(self, student: str) -> Job:
        def make() -> xr.Dataset:
            parts = [self._energy_of(student, c) for c in self._controls_at(student) if c.prompts]
            names = [c.name for c in self._controls_at(student) if c.prompts]
            return xr.concat(
                parts, xr.DataArray(names, dims="control", name="control"), combine_attrs="override"
            )

        return Job("energy", student, self._both_key(student), 0, make)

    def _energy_of(self, student: str, control: Control) -> xr.Dataset:
        """Along the direction that the control has in the base: the same in both models."""
        effects = self._effects(BASE, student)
        ours, theirs = (
            self.results["free", self._states_name(student)],
            self.results["free", student],
        )
        along = direction(effects[control.name], control.prompts)
        random = {
            c.name: energy(theirs, direction(effects[c.name], control.prompts), control.prompts)
            for c in self.randoms
        }
        return compare_energy(
            energy(ours, along, control.prompts), energy(theirs, along, control.prompts), random
        )

    def _doses(self, control: Control, model: str) -> Job:
        s = self.extent
        scales = [x for x in s.scales if control.signed or x >= 0]

        def make() -> xr.Dataset:
            pipe, plain = self.models[model], self.results["free", self._free_name(model)]["final"]
            return doses(
                pipe,
                control,
                range(s.seeds),
                self.space,
                scales=scales,
                batch_size=s.batch_size,
                plain=plain,
            )

        key: dict[str, Any] = {
            "model": self.described[model],
            "control": self.identities[control.name],
        }
        key |= {
            "prompts": control.prompts,
            "seeds": s.seeds,
            "scales": scales,
            "batch": s.batch_size,
            "call": self._call(model),
        }
        key |= {"space": dict(self.space.attrs), "score": control.reading}
        pictures = len({*scales} - {0.0}) * len(control.prompts) * s.seeds
        return Job(
            "doses", f"{control.name}.{model}", key, pictures * self._evaluations(model), make
        )
