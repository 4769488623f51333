"""The measurements behind a study of controls: what there is to make, what is made already, in
which order.

Every measurement is kept in a file of its own under a hash of what it depends on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from xhat.analysis.sampling.arms import cost
from xhat.analysis.sampling.cache import Cache
from xhat.analysis.sampling.control import Control, random_controls
from xhat.analysis.sampling.dose_response import SCALES, doses
from xhat.analysis.sampling.effects import POINTS, REDUCTION, effect, free_runs, responses
from xhat.analysis.traces.effect_alignment import alignment_map
from xhat.analysis.traces.energy import compared, direction, energy
from xhat.hooks.describe import checksum, describe
from xhat.hooks.model import with_defaults
from xhat.hooks.noise.levels import noise_levels

BASE = "base"
TOGETHER = 4  # prompts of free sampling that are kept, and would be lost, together


@dataclass(frozen=True)
class Settings:
    """How much is measured. ``seeds``: a prompt, of dose–response; ``free``: of free sampling;
    ``states``: of these, those whose states effects are compared on; ``randoms``: random LoRAs;
    ``points``: where networks are read."""

    seeds: int = 8
    scales: tuple[float, ...] = SCALES
    free: int = 16
    states: int = 3
    randoms: int = 6
    points: tuple[str, ...] = POINTS
    batch_size: int = 32


@dataclass(frozen=True)
class Job:
    """One measurement: its file's folder and name, what it depends on, how many evaluations it
    takes, and how it is made of the results so far."""

    folder: str
    name: str
    key: Mapping[str, Any]
    evaluations: float
    make: Callable[[], xr.Dataset]


class Bench:
    """The models, the controls, and what was found so far."""

    def __init__(
        self,
        models: Mapping[str, Any],
        controls: Sequence[Control],
        space: Any,
        cache: Path,
        settings: Settings,
    ) -> None:
        if BASE not in models or len(models) < 2 or not controls:
            raise ValueError(
                f"expected a model named {BASE!r}, one student or more, and controls; got the "
                f"models {', '.join(models)} and {len(controls)} controls"
            )
        self.models, self.space, self.cache, self.settings = models, space, cache, settings
        self.students = [name for name in models if name != BASE]
        self.controls = [c for c in controls if c.trained_on in models]
        for left in (c for c in controls if c.trained_on not in models):
            print(
                (
                    f"{left.name} is left out: the model {left.trained_on!r} is not among "
                    f"{list(models)}"
                ),
                file=sys.stderr,
            )
        if not self.controls:
            raise ValueError(f"no control was trained on one of {list(models)}")
        if settings.seeds > settings.free or settings.states > settings.free:
            raise ValueError(
                f"seeds={settings.seeds} and states={settings.states} are some of the "
                f"free={settings.free} seeds of free sampling: there must be as many of these at "
                "least"
            )
        self.randoms = random_controls(self.controls, settings.randoms, cache / "nulls")
        self.identities = {c.name: c.identity() for c in (*self.controls, *self.randoms)}
        self.prompts = list(dict.fromkeys(p for c in self.controls for p in c.prompts))
        self.described = {name: checksum(describe(pipe)) for name, pipe in models.items()}
        self.levels = {name: self._sigmas(pipe) for name, pipe in models.items()}
        self.found: dict[tuple[str, str], xr.Dataset] = {}

    def _sigmas(self, pipe: Any) -> list[float]:
        steps = with_defaults(pipe, {}).get("num_inference_steps", 50)
        return [float(s) for s in noise_levels(pipe.scheduler, steps).sigma]

    def goes_to(self, control: Control) -> list[str]:
        """The models that a control is tried in, its own first."""
        return [BASE, *self.students] if control.trained_on == BASE else [control.trained_on, BASE]

    def run(self) -> dict[tuple[str, str], xr.Dataset]:
        """Make or read every measurement: (folder, name) → what was found."""
        jobs = {
            (job.folder, job.name): job for job in self._jobs()
        }  # students of one schedule share the base's
        missing = {
            at for at, j in jobs.items() if not Cache(self.cache / j.folder).holds(j.name, j.key)
        }
        total = sum(jobs[at].evaluations for at in missing)
        self._announce(len(jobs), len(missing), total)
        with tqdm(total=round(total), desc="transfer", unit="eval", disable=not missing) as bar:
            for at, job in jobs.items():
                bar.set_postfix_str(" ".join(at))
                self.found[at] = Cache(self.cache / job.folder).get(job.name, job.key, job.make)
                bar.update(round(job.evaluations) if at in missing else 0)
        return self.found

    def _announce(self, jobs: int, missing: int, total: float) -> None:
        evaluations, seconds = (
            cost(self.models[self.students[0]], self.prompts[0]) if missing else (1.0, 0.0)
        )
        need = total * seconds / evaluations
        print(
            (
                f"{len(self.controls)} controls and {len(self.randoms)} random LoRAs in "
                f"{len(self.models)} models: {missing} of {jobs} measurements to make, about "
                f"{need / 60:.0f} min"
            ),
            file=sys.stderr,
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
                    self._effect(model, student, control) for control in self._compared(student)
                ]
            jobs += [self._alignment(student), self._energy(student)]
        return jobs + [self._doses(c, m) for c in self.controls for m in self.goes_to(c)]

    def _compared(self, student: str) -> list[Control]:
        """The controls whose effects are compared between the base and a student, then the random
        ones.
        """
        return [*(c for c in self.controls if c.trained_on in (BASE, student)), *self.randoms]

    def _states_key(self, student: str) -> dict[str, Any]:
        s = self.settings
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
        s, sigmas, name = self.settings, self.levels[student], self._free_name(model, student)
        key = self._states_key(student) | {"model": self.described[model], "own": self._call(model)}
        stretches = [self.prompts[i : i + TOGETHER] for i in range(0, len(self.prompts), TOGETHER)]

        def part(some: list[str]) -> Callable[[], xr.Dataset]:
            pipe, seeds = self.models[model], range(s.free)
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
            found = [self.found["parts", job.name] for job in parts]
            return xr.concat(found, "prompt", coords="minimal", compat="override")

        return [*parts, Job("free", name, key, 0, joined)]

    def _free_name(self, model: str, student: str | None = None) -> str:
        return self._states_name(student or self.students[0]) if model == BASE else model

    def _states_name(self, student: str) -> str:
        return f"{BASE}.{checksum({'sigmas': self.levels[student]})[:8]}"

    def _states(self, student: str) -> xr.Dataset:
        return self.found["free", self._states_name(student)].isel(seed=slice(self.settings.states))

    def _name(self, model: str, student: str, what: str) -> str:
        return f"{self._states_name(student) if model == BASE else model}.{what}"

    def _responses_key(self, model: str, student: str) -> dict[str, Any]:
        return self._states_key(student) | {
            "model": self.described[model],
            "states": self.settings.states,
        }

    def _rest(self, model: str, student: str) -> Job:
        s = self.settings

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
        s = self.settings

        def make() -> xr.Dataset:
            rest = self.found["rest", self._name(model, student, "rest")]
            pipe, states = self.models[model], self._states(student)
            found = effect(
                pipe, control, states, points=s.points, batch_size=s.batch_size, rest=rest
            )
            return found.astype("float16")

        key = self._responses_key(model, student) | {"control": self.identities[control.name]}
        evaluations = len(self.prompts) * s.states * len(self.levels[student])
        return Job("effects", self._name(model, student, control.name), key, evaluations, make)

    def _effects(self, model: str, student: str) -> dict[str, xr.Dataset]:
        return {
            c.name: self.found["effects", self._name(model, student, c.name)]
            for c in self._compared(student)
        }

    def _both_key(self, student: str) -> dict[str, Any]:
        key = self._responses_key(student, student)
        named = {
            c.name: [self.identities[c.name], c.prompts, c.what] for c in self._compared(student)
        }
        return key | {"controls": named}

    def _alignment(self, student: str) -> Job:
        def make() -> xr.Dataset:
            prompts = {c.name: c.prompts for c in self._compared(student) if c.prompts}
            turns = {c.name: c.what for c in self.controls if c.what}
            return alignment_map(
                self._effects(BASE, student), self._effects(student, student), prompts, turns=turns
            )

        return Job("alignment", student, self._both_key(student), 0, make)

    def _energy(self, student: str) -> Job:
        def make() -> xr.Dataset:
            parts = [self._energy_of(student, c) for c in self._compared(student) if c.prompts]
            names = [c.name for c in self._compared(student) if c.prompts]
            return xr.concat(
                parts, xr.DataArray(names, dims="control", name="control"), combine_attrs="override"
            )

        return Job("energy", student, self._both_key(student), 0, make)

    def _energy_of(self, student: str, control: Control) -> xr.Dataset:
        """Along the direction that the control has in the base: the same in both models."""
        effects = self._effects(BASE, student)
        ours, theirs = self.found["free", self._states_name(student)], self.found["free", student]
        along = direction(effects[control.name], control.prompts)
        random = {
            c.name: energy(theirs, direction(effects[c.name], control.prompts), control.prompts)
            for c in self.randoms
        }
        return compared(
            energy(ours, along, control.prompts), energy(theirs, along, control.prompts), random
        )

    def _doses(self, control: Control, model: str) -> Job:
        s = self.settings
        scales = [x for x in s.scales if control.signed or x >= 0]

        def make() -> xr.Dataset:
            pipe, plain = self.models[model], self.found["free", self._free_name(model)]["final"]
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
