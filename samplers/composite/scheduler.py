"""A scheduler that strings together the steps of several, and hands latents over from one to the
next.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from xhat.hooks.families import STACKED, Guidance
from xhat.hooks.noise.x0 import eps_from_x0, x0_at
from xhat.samplers.composite.guidance import unguided
from xhat.samplers.composite.handover import CLEAN, carry, output_of_x0, place, unit
from xhat.samplers.composite.run import Entry, Run, lay_out, shared_noise
from xhat.samplers.composite.tap import Tap, differs
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.timing import Timing, check_even

_LMS_ORDER = 4  # of diffusers, where no order is given


class CompositeScheduler:
    """What a pipeline sees as its scheduler while a plan is run.

    ``timesteps`` are those of the plan's steps, whatever number of steps is asked for. Each step is
    made by the scheduler of its segment, on latents in that scheduler's own space, or from x̂₀
    where the plan says so. ``segment_of_step`` names the model of every step."""

    order = 1

    def __init__(
        self,
        plan: Plan,
        schedulers: Mapping[str, Any],
        taps: Sequence[Tap] = (),
        timings: Mapping[str, Timing] | None = None,
        rule: Guidance = STACKED,
    ) -> None:
        self.plan, self.schedulers, self.taps = plan, dict(schedulers), tuple(taps)
        self.rule = rule
        self.timings = dict(timings or {})
        self.begin_index: int | None = None
        self._told: set[int] = set()
        self.set_timesteps()

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        mu: float | None = None,
        sigmas: Any = None,
        timesteps: Any = None,
    ) -> None:
        """Begin a run. The plan has the number of steps: ``num_inference_steps`` is not looked at.
        Of ``sigmas`` and ``mu`` only the size of the picture is learnt: each model has the noise
        levels of its own pipeline. Raises ValueError for ``timesteps``, and for other ``sigmas``
        than the pipeline passes of itself."""
        if timesteps is not None:
            raise ValueError(
                "timesteps cannot be chosen in the call of a hybrid: its plan has those of "
                "each model. "
                "Make it with student_timesteps=, or give the plan's segments timesteps"
            )
        if sigmas is not None:
            check_even(sigmas, any(timing.even for timing in self.timings.values()))
        timings = {name: timing.heard(self.config, mu) for name, timing in self.timings.items()}
        self.run = Run(lay_out(self.plan, self.schedulers, device, timings))
        timesteps = [entry.timestep for entry in self.run.entries]
        kinds = {t.dtype for t in timesteps}
        self.timesteps = torch.stack([t if len(kinds) == 1 else t.float() for t in timesteps])
        self.num_inference_steps = len(timesteps)
        self.begin_index = None

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at another step of the plan than the first."""
        self.begin_index = self.run.position = begin_index
        if (
            begin_index == 0
            and self.run.entry.step == 0
            and hasattr(self.run.entry.scheduler, "set_begin_index")
        ):
            self.run.entry.scheduler.set_begin_index(0)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.plan}"

    @property
    def step_index(self) -> int:
        return self.run.position

    @property
    def segment_of_step(self) -> list[str]:
        """The model of every step of the run."""
        return [entry.segment.model for entry in self.run.entries]

    @property
    def noise_of_step(self) -> list[str]:
        """Where the noise of every step's landing comes from: the ``"scheduler"`` as it does, or
        ``"fresh"``, ``"own"``, ``"shared"`` where the step is made from x̂₀."""
        return [entry.noise or "scheduler" for entry in self.run.entries]

    @property
    def config(self) -> Any:
        """That of the first segment's scheduler."""
        return self.schedulers[self.plan.models[0]].config

    @property
    def sigmas(self) -> torch.Tensor:
        """Each step's σ as its own scheduler counts it, and 0 at the end; σ = √(1−ᾱ)/√ᾱ where a
        scheduler counts none.
        """
        values = [
            float(entry.scheduler.sigmas[entry.step])
            if hasattr(entry.scheduler, "sigmas")
            else entry.level.sigma
            for entry in self.run.entries
        ]
        return torch.tensor([*values, 0.0])

    @property
    def init_noise_sigma(self) -> Any:
        """What unit noise is multiplied by to become x_T; a plan that skips steps starts there with
        pure noise.
        """
        entry = self.run.entries[0]
        if entry.step == 0:
            return getattr(entry.scheduler, "init_noise_sigma", 1.0)
        return unit(entry.scheduler, entry.level)

    def delegate(self, step: int | None) -> tuple[Any, int]:
        """The scheduler that makes ``step``, and the step as it counts; those now under way where
        ``step`` is None.
        """
        entry = self.run.entry if step is None else self.run.entries[step]
        return entry.scheduler, entry.step

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        entry = self.run.entry
        if not hasattr(entry.scheduler, "scale_model_input"):
            return sample
        return entry.scheduler.scale_model_input(sample, entry.timestep)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: Any
    ) -> torch.Tensor:
        """A picture's latents at the noise level of the step that comes next, in its space."""
        entry, t = self._next_at(timesteps)
        return entry.scheduler.add_noise(original_samples, noise, t)

    def scale_noise(
        self, sample: torch.Tensor, timestep: Any, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same, as pipelines of flow models ask for it."""
        entry, t = self._next_at(timestep)
        return entry.scheduler.scale_noise(sample, t, noise)

    def _next_at(self, timesteps: Any) -> tuple[Entry, torch.Tensor]:
        """The step that comes next, and its timestep in the shape of ``timesteps``. Raises
        ValueError for any other timestep than its own.
        """
        entry, given = self.run.entry, torch.as_tensor(timesteps)
        own = entry.timestep
        if not torch.allclose(given.double().cpu(), own.double().cpu()):
            raise ValueError(
                f"noise was asked for at timestep {given.flatten()[0].item():g}, and the plan's "
                f"next step is at {own.item():g}: a plan adds noise where it goes on alone"
            )
        _seek(entry)
        return entry, own.to(given.device).expand(given.shape)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        eta: float | None = None,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """One step of the plan. Pipelines pass ``eta`` and ``generator`` on because they are named
        here.
        """
        entry = self.run.entry
        self._check_passes()
        self.run.begin(sample)
        sample = self.latents_of(sample)
        for number in range(len(self.taps)):
            model_output = self._tapped(number, entry, model_output, sample)
        if entry.noise is None:
            result = _native(
                entry, model_output, sample, return_dict, {"eta": eta, "generator": generator}
            )
        else:
            x = self._landed(entry, model_output, sample, generator)
            result = SchedulerOutput(prev_sample=x) if return_dict else (x,)
        self.run.position += 1
        if self.run.position == len(self.run.entries):
            self._check_taps()
        return result

    def latents_of(self, sample: torch.Tensor) -> torch.Tensor:
        """The latents of the step now under way: those that the pipeline holds, but at the first
        step where a tap put other noise in their place.

        Raises ValueError where these are of another shape.
        """
        start, entry = self.run.start, self.run.entry
        if start is None or self.run.position > 0:
            return sample
        if start.shape != sample.shape:
            raise ValueError(
                f"the network is given {tuple(start.shape)} where the latents are "
                f"{tuple(sample.shape)}: the noise that this pipeline starts from cannot be changed"
            )
        return (start * unit(entry.scheduler, entry.level)).to(sample.dtype)

    def _check_passes(self) -> None:
        """Raises ValueError where a guided step lacks the call for the unconditional prediction."""
        first = self.run.first_pass
        if first is None or not first.guided or first.settled or self.rule.truncates:
            return
        segment = self.run.entry.segment
        raise ValueError(unguided(segment.model, segment.guidance_scale, self.rule))

    def _check_taps(self) -> None:
        """Say what the taps changed in a run that has ended. Raises ValueError for one that is
        meant to change every run and did not change this one."""
        for number, tap in enumerate(self.taps):
            steps = self.run.changed.get(number, set())
            if tap.active and not steps:
                raise ValueError(
                    f"{tap!r} changed nothing in this call: its pictures are those of the plan "
                    f"alone. Noise levels of the run: "
                    f"{', '.join(f'{entry.level.sigma:.3g}' for entry in self.run.entries)}; "
                    f"samples: {self.run.samples}. Choose settings that reach them"
                )
            if tap.active and number not in self._told:
                self._told.add(number)
                logging.getLogger(__name__).info(
                    "%r changed %d of %d steps", tap, len(steps), len(self.run.entries)
                )

    def _tapped(
        self, number: int, entry: Entry, model_output: torch.Tensor, x_t: torch.Tensor
    ) -> torch.Tensor:
        """The model output whose x̂₀ is what the tap makes of this one's."""
        tap = self.taps[number]
        x0 = x0_at(entry.scheduler, model_output, entry.level, x_t)
        changed = tap.estimate(self.run, x_t / unit(entry.scheduler, entry.level), x0)
        if changed is x0:
            return model_output
        if differs(changed, x0):
            self.run.note_change(number)
        return output_of_x0(entry.scheduler, changed, entry.level, x_t).to(model_output.dtype)

    def _landed(
        self, entry: Entry, output: torch.Tensor, x_t: torch.Tensor, generator: Any
    ) -> torch.Tensor:
        """The step made from x̂₀ and a noise, in the space of the scheduler that follows."""
        x0 = x0_at(entry.scheduler, output, entry.level, x_t)
        if entry.target is CLEAN:
            return x0.to(x_t.dtype)
        match entry.noise:
            case "fresh":
                eps = self.run.fresh(output, generator).to(x0.dtype)
            case "shared":
                eps = shared_noise(x0)
            case _:
                eps = eps_from_x0(
                    entry.scheduler, x0, entry.level.timestep, x_t.to(x0.dtype), entry.step
                )
        return place(entry.then, stand_in(self.run, x0, entry.x0), eps, entry.target).to(x_t.dtype)


def stand_in(run: Run, x0: torch.Tensor, how: str | None) -> torch.Tensor:
    """What is handed over for x̂₀: itself, zeros, the mean over its prompt's samples, or that of
    the next of these.

    Raises ValueError where a prompt has a single sample in the batch, and its mean or shuffle would
    be itself."""
    if how is None:
        return x0
    if how == "zero":
        return torch.zeros_like(x0)
    other = x0.clone()
    for members in run.groups:
        if len(members) < 2:
            raise ValueError(
                f"x0={how!r} needs two or more samples of each prompt in a batch, and one prompt "
                "has one"
            )
        rows = x0[members]
        other[members] = rows.mean(0, keepdim=True) if how == "mean" else rows.roll(1, 0)
    return other


def _native(
    entry: Entry,
    output: torch.Tensor,
    sample: torch.Tensor,
    return_dict: bool,
    extra: dict[str, Any],
) -> Any:
    """The step as its own scheduler makes it, and the latents carried into the space of the one
    that follows.
    """
    _seek(entry)
    if hasattr(entry.scheduler, "derivatives"):  # LMS counts on a step before each of the schedule
        extra = {**extra, "order": min(_LMS_ORDER, len(entry.scheduler.derivatives) + 1)}
    known = _arguments(type(entry.scheduler))  # type: ignore[arg-type]
    passed = {name: value for name, value in extra.items() if value is not None and name in known}
    result = entry.scheduler.step(output, entry.timestep, sample, **passed, return_dict=return_dict)
    if entry.then is entry.scheduler:
        return result
    if return_dict:
        result.prev_sample = carry(result.prev_sample, entry.scheduler, entry.then, entry.target)
        return result
    return (carry(result[0], entry.scheduler, entry.then, entry.target), *result[1:])


@functools.cache
def _arguments(scheduler: Hashable) -> frozenset[str]:
    """Names of what ``step`` of schedulers of a class takes; asking for them is slow, and every
    step does.
    """
    return frozenset(inspect.signature(scheduler.step).parameters)  # type: ignore[attr-defined]


def _seek(entry: Entry) -> None:
    """Put a scheduler that counts its steps at this one, where it is not there of itself."""
    scheduler = entry.scheduler
    if entry.step > 0 and getattr(scheduler, "step_index", entry.step) != entry.step:
        scheduler.set_begin_index(entry.step)
        scheduler._step_index = None
