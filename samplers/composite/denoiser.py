"""A denoiser that is a different network at different steps, and does each segment's guidance
itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

from xhat.hooks.families import family_of
from xhat.hooks.noise.levels import NoiseLevel, prediction, space
from xhat.hooks.noise.x0 import x0_at
from xhat.hooks.record.rows import joined, take
from xhat.samplers.composite.facade import Facade
from xhat.samplers.composite.handover import unit
from xhat.samplers.composite.scheduler import CompositeScheduler
from xhat.samplers.composite.tap import differs
from xhat.samplers.plans.plan import Segment
from xhat.samplers.plans.schedule import timestep_at

Inputs = dict[str, Any]


class CompositeDenoiser(Facade):
    """What a pipeline sees as its ``unet`` or ``transformer`` while a plan is run.

    A call goes to the model of the step now under way. Where the pipeline above runs with guidance,
    it gives unconditional and conditional halves and combines the answer as u + g·(c − u): here
    both halves of the answer are the segment's own prediction, so that this changes nothing. A
    segment without guidance evaluates the conditional half alone.

    ``models``: name → network. ``embed``: the pipeline's embedding of a guidance scale, for
    networks that take it as an input (``time_cond_proj_dim``). ``halves``: whether the pipeline
    above runs with guidance."""

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        scheduler: CompositeScheduler,
        embed: Callable[..., torch.Tensor] | None,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleDict(dict(models))
        self.scheduler, self.embed = scheduler, embed
        self.halves = False
        self.inputs: Inputs = {}
        takes = inspect.signature(self.xhat_parts[0].forward).parameters
        self._names = [name for name in takes if name != "return_dict"]

    def front(self) -> nn.Module:
        return self.models[model_key(self.scheduler.run.entry.segment)]

    def networks(self) -> Sequence[nn.Module]:
        return tuple({id(model): model for model in self.models.values()}.values())

    @property
    def config(self) -> Any:
        """That of the plan's first model, without ``time_cond_proj_dim``: guidance embeddings are
        made here.
        """
        config = _config(self.models[model_key(self.scheduler.plan.segments[0])])
        if config.get("time_cond_proj_dim") is None:
            return config
        return FrozenDict({**config, "time_cond_proj_dim": None})

    def forward(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        run, inputs = self.scheduler.run, {**dict(zip(self._names, args, strict=False)), **kwargs}
        x = inputs[self._names[0]]
        listed = isinstance(x, list)  # of pictures that could be of several sizes
        x = torch.stack(x) if listed else x
        self.rows = len(x) // 2 if self.halves else len(x)
        condition = inputs.get("encoder_hidden_states")
        run.begin(x[-self.rows :], None if condition is None else condition[-self.rows :])
        if run.models is None:
            self._check_halves(x, listed)
        run.models = self
        self.inputs = self._annealed(inputs)
        segment = run.entry.segment
        output = self.evaluate(model_key(segment), self.inputs, segment.guidance_scale)
        output = torch.cat([output, output]) if self.halves else output
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def evaluate(self, name: str, inputs: Inputs, guidance_scale: float) -> torch.Tensor:
        """A model's prediction on ``inputs`` as the pipeline gave them, guided if the scale is
        above 1.

        c, or u + g·(c − u) (Ho & Salimans, arXiv 2207.12598, Eq. 6 with w = g − 1).
        """
        model, run = self.models[name], self.scheduler.run
        guided = guidance_scale > 1 and not takes_guidance(model)
        if guided and not self.halves:
            raise ValueError(
                f"guidance {guidance_scale:g} of {name!r} needs the negative prompt, which the "
                "pipeline does not pass "
                "on now: call it with guidance_scale above 1"
            )
        inputs = {**inputs, **self._guidance(model, guidance_scale, inputs)}
        if not guided:
            run.evaluations += self.rows / run.samples
            return _call(model, self._cond(inputs))
        run.evaluations += 2 * self.rows / run.samples
        uncond, cond = _call(model, inputs).chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    def x0_of(
        self,
        name: str,
        x: torch.Tensor,
        sigma: float,
        guidance_scale: float,
        rows: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """x̂₀ by the model ``name`` of latents ``x``, in VP at noise level σ, under this call's
        conditioning.

        ``rows``: of which sample each row of ``x`` takes the conditioning. Raises ValueError for a
        model whose scheduler preconditions its input."""
        scheduler = self.scheduler.schedulers[name]
        if prediction(scheduler) == "edm":
            raise ValueError(
                f"{type(scheduler).__name__} of {name!r} preconditions its model's input: not "
                "supported"
            )
        t = timestep_at(scheduler, sigma)
        level = NoiseLevel(t, sigma, 1 / (1 + sigma * sigma))
        own = x * unit(scheduler, level)
        given = own if space(scheduler) == "flow" else x
        inputs = self._of_rows(range(self.rows) if rows is None else rows)
        inputs[self._names[0]] = torch.cat([given, given]) if self.halves else given
        inputs["timestep"] = _like(
            self.inputs["timestep"], t * self._clock(), len(inputs[self._names[0]])
        )
        before, self.rows = self.rows, len(x)
        try:
            output = self.evaluate(name, inputs, guidance_scale)
        finally:
            self.rows = before
        return x0_at(scheduler, output, level, own)

    def _clock(self) -> float:
        """What the pipeline multiplies a scheduler's timestep by: 1, or 1/1000 where its model
        counts from 0 to 1.

        Raises ValueError for a pipeline whose model's time runs another way.
        """
        backward = any(family_of(part).backward_time for part in self.xhat_parts)
        given = self.inputs.get("timestep")
        t = float(self.scheduler.run.entry.timestep)
        if given is not None and not backward:
            value = torch.as_tensor(given).flatten()[0].item()
            for unit_of_time in (1.0, 1e-3):
                if abs(value - t * unit_of_time) <= 1e-2 * abs(
                    t * unit_of_time
                ):  # half precision rounds it
                    return unit_of_time
        kinds = sorted({type(part).__name__ for part in self.xhat_parts})
        raise ValueError(
            f"{', '.join(kinds)} is given its time in another way than its scheduler "
            "counts it: it cannot be "
            "asked for x̂₀ at a noise level of choice"
        )

    def _of_rows(self, rows: Sequence[int]) -> Inputs:
        """The inputs with the conditioning of the given samples, both halves of it where there are
        two.
        """
        both = [row + half * self.rows for half in range(1 + self.halves) for row in rows]
        return take(self.inputs, self.rows * (1 + self.halves), both)

    def _annealed(self, inputs: Inputs) -> Inputs:
        """The inputs after the taps, which see the conditional half alone."""
        run, taps = self.scheduler.run, self.scheduler.taps
        if not taps:
            return inputs
        given = changed = self._cond(inputs)
        for number, tap in enumerate(taps):
            before, changed = changed, tap.condition(run, changed)
            if differs(changed, before):
                run.note_change(number)
        if changed is given:
            return inputs
        return (
            joined(take(inputs, 2 * self.rows, slice(self.rows)), changed)
            if self.halves
            else changed
        )

    def _cond(self, inputs: Inputs) -> Inputs:
        """The conditional half of the inputs."""
        return take(inputs, 2 * self.rows, slice(self.rows, None)) if self.halves else inputs

    def _check_halves(self, x: torch.Tensor, listed: bool) -> None:
        """Raises ValueError where the pipeline guides, and does not give both branches stacked in
        one batch.
        """
        if self.halves and (
            listed or len(x) % 2 or not torch.equal(x[: self.rows], x[self.rows :])
        ):
            raise ValueError(
                "a plan makes guidance where a pipeline gives its denoiser both branches stacked "
                "in one batch, and "
                "this one does not: give every segment guidance_scale 1"
            )

    def _guidance(self, model: nn.Module, scale: float, inputs: Inputs) -> Inputs:
        """The input by which a network takes its guidance: one scale a row, or its embedding;
        nothing for others.
        """
        if not takes_guidance(model):
            return {"guidance": None} if inputs.get("guidance") is not None else {}
        if not _config(model).get("guidance_embeds"):
            return {"timestep_cond": self._embedded(model, scale, inputs)}
        x = inputs[self._names[0]]
        return {
            "guidance": torch.full([1], scale, device=x.device, dtype=torch.float32).expand(len(x))
        }

    def _embedded(self, model: nn.Module, scale: float, inputs: Inputs) -> torch.Tensor:
        """w = g − 1 for every row, embedded as the pipeline would for this model (LCM, arXiv
        2310.04378, Sec. 4.2).
        """
        assert self.embed is not None, "a pipeline whose models take guidance can embed it"
        x = inputs[self._names[0]]
        w = torch.tensor(scale - 1).repeat(len(x))
        return self.embed(w, embedding_dim=_config(model).get("time_cond_proj_dim")).to(
            device=x.device, dtype=x.dtype
        )


def model_key(segment: Segment) -> str:
    """Under which name a segment's network is kept: the model's, and its strength where that is not
    1.

    >>> model_key(Segment("student", 0, 1, 4, strength=0.5))
    'student@0,5'
    """
    if segment.strength == 1:
        return segment.model
    return f"{segment.model}@{segment.strength:g}".replace(".", ",")  # a module's name holds no dot


def takes_guidance(model: nn.Module) -> bool:
    """Whether a network takes the guidance scale as an input, in one evaluation."""
    config = _config(model)
    return config.get("time_cond_proj_dim") is not None or bool(config.get("guidance_embeds"))


def _config(model: nn.Module) -> Any:
    return getattr(model, "config", {})


def _like(timestep: Any, value: float, rows: int) -> Any:
    """Another timestep in the form in which the pipeline gives it: a number, or one a row."""
    if not isinstance(timestep, torch.Tensor):
        return value
    dtype = timestep.dtype if timestep.is_floating_point() or value == int(value) else torch.float32
    return torch.full((rows,) if timestep.ndim else (), value, dtype=dtype, device=timestep.device)


def _call(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    return model(**inputs, return_dict=False)[0]
