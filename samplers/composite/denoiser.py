"""A denoiser that is a different network at different steps, and does each segment's guidance
itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from xhat.hooks.families import CONDITIONS, STACKED, Guidance, family_of
from xhat.hooks.noise.levels import NoiseLevel, prediction, space
from xhat.hooks.noise.x0 import x0_at
from xhat.hooks.record.rows import joined, take
from xhat.samplers.composite.facade import Facade
from xhat.samplers.composite.guidance import FirstPass, combine, halves, twice, unguided
from xhat.samplers.composite.handover import unit
from xhat.samplers.composite.middle import changing_middle
from xhat.samplers.composite.scheduler import CompositeScheduler
from xhat.samplers.composite.starting import starting_noise
from xhat.samplers.composite.tap import differs
from xhat.samplers.plans.plan import Segment
from xhat.samplers.plans.schedule import timestep_at

Inputs = dict[str, Any]


class CompositeDenoiser(Facade):
    """What a pipeline sees as its ``unet`` or ``transformer`` while a plan is run.

    A call goes to the model of the step now under way. Where the pipeline above runs with guidance,
    it asks for unconditional and conditional predictions, as two halves of a batch or in two calls,
    and combines the answers as u + g·(c − u): here both answers are the segment's own prediction,
    so that this changes nothing. A segment without guidance evaluates the conditional one alone.

    ``models``: name → network. ``embed``: the pipeline's embedding of a guidance scale, for
    networks that take it as an input (``time_cond_proj_dim``). ``rule``: how the pipeline guides.
    ``guides``: whether it does so in the call that has begun. ``halves``: whether it then gives
    both branches in one batch."""

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        scheduler: CompositeScheduler,
        embed: Callable[..., torch.Tensor] | None,
        rule: Guidance = STACKED,
        cond_first: bool = False,
    ) -> None:
        super().__init__()
        self.models = nn.ModuleDict(dict(models))
        self.scheduler, self.embed = scheduler, embed
        self.rule, self.cond_first = rule, cond_first
        self.guides: Callable[[], bool] = lambda: False
        self.halves = self.listed = False
        self.rows = 0
        self.inputs: Inputs = {}
        self.negative: Inputs | None = None
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
        first = run.first_pass
        if self.rule.apart and first is not None and first.position == run.position:
            output: Any = self._second_pass(first, inputs)
        else:
            output = self._first_pass(inputs)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _first_pass(self, inputs: Inputs) -> Any:
        """The answer to the only call of a step, or to the conditional one of two."""
        run = self.scheduler.run
        x = inputs[self._names[0]]
        if run.models is None:
            self.listed = isinstance(x, list)
            self.halves = self.guides() and not self.rule.apart
        self.rows = len(x) // 2 if self.halves else len(x)
        if run.models is None:
            self._begin(inputs)
            inputs = self._started(inputs)
        self.inputs, self.negative = self._annealed(inputs), None
        segment = run.entry.segment
        name = model_key(segment)
        if not self.rule.apart:
            scales = segment.guidance_scale, segment.true_cfg_scale
            with self._middle(name):
                output = self.evaluate(name, self.inputs, None, *scales)
            return twice(output) if self.halves else output
        with self._middle(name):
            cond = self._ask(name, self.inputs, segment.guidance_scale)
        guided = self._cfg_scale(name, segment.guidance_scale, segment.true_cfg_scale) > 1
        output = cond.clone() if guided else cond
        run.first_pass = FirstPass(run.position, guided, cond, output)
        return output

    def _second_pass(self, first: FirstPass, inputs: Inputs) -> torch.Tensor:
        """The answer to a step's call for the unconditional prediction."""
        run = self.scheduler.run
        self.negative, first.settled = inputs, True
        if not first.guided:
            return first.output
        segment = run.entry.segment
        name = model_key(segment)
        scale = self._cfg_scale(name, segment.guidance_scale, segment.true_cfg_scale)
        uncond = self._ask(name, inputs, segment.guidance_scale)
        prediction = combine(self.rule, scale, uncond, first.cond)
        assert isinstance(prediction, torch.Tensor), "no pipeline makes both calls with lists"
        return first.output.copy_(prediction)

    def evaluate(
        self,
        name: str,
        inputs: Inputs,
        negative: Inputs | None,
        guidance_scale: float,
        true_cfg_scale: float = 1.0,
    ) -> Any:
        """A model's prediction on ``inputs`` as the pipeline gave them, guided if the scale is
        above 1: c, or u + g·(c − u).

        ``negative``: the inputs of the unconditional call, of a pipeline that makes one apart.
        """
        scale = self._cfg_scale(name, guidance_scale, true_cfg_scale)
        if scale <= 1:
            return self._ask(name, self._cond(inputs), guidance_scale)
        if negative is not None:
            cond, uncond = (self._ask(name, given, guidance_scale) for given in (inputs, negative))
        elif self.halves:
            both = self._ask(name, inputs, guidance_scale)
            uncond, cond = halves(both, self.cond_first)
        else:
            raise ValueError(unguided(name, scale, self.rule))
        return combine(self.rule, scale, uncond, cond)

    def _cfg_scale(self, name: str, guidance_scale: float, true_cfg_scale: float) -> float:
        """The scale of classifier-free guidance: a network that takes ``guidance_scale`` as an
        input has its own.
        """
        return true_cfg_scale if takes_guidance(self.models[name]) else guidance_scale

    def _ask(self, name: str, inputs: Inputs, guidance_scale: float) -> Any:
        """A model's bare answer, counted as evaluations."""
        model, run = self.models[name], self.scheduler.run
        run.evaluations += len(inputs[self._names[0]]) / run.samples
        return model(**inputs | self._guidance(model, guidance_scale, inputs), return_dict=False)[0]

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
        scheduler, name = self.scheduler.schedulers[name], self._network_of(name)
        if prediction(scheduler) == "edm":
            raise ValueError(
                f"{type(scheduler).__name__} of {name!r} preconditions its model's input: not "
                "supported"
            )
        t = timestep_at(scheduler, sigma)
        level = NoiseLevel(t, sigma, 1 / (1 + sigma * sigma))
        own = x * unit(scheduler, level)
        given = own if space(scheduler) == "flow" else x
        index = range(self.rows) if rows is None else rows
        inputs, negative = (
            None if each is None else self._elsewhere(each, given, t * self._clock(), index)
            for each in (self.inputs, self.negative)
        )
        assert inputs is not None
        output = self.evaluate(name, inputs, negative, guidance_scale)
        return x0_at(scheduler, output, level, own)

    def _network_of(self, model: str) -> str:
        """Under which name a model's network is kept, under its own adapters where the plan gives
        it some.
        """
        segments = self.scheduler.plan.segments
        adapted = [s for s in segments if s.model == model and s.adapters is not None]
        return model_key(adapted[0]) if adapted else model

    def _elsewhere(self, inputs: Inputs, x: torch.Tensor, t: float, rows: Sequence[int]) -> Inputs:
        """The inputs with other latents and another time, and the conditioning of the given
        samples, both halves of it where there are two.
        """
        both = [row + half * self.rows for half in range(1 + self.halves) for row in rows]
        moved = take(inputs, self.rows * (1 + self.halves), both)
        moved[self._names[0]] = torch.cat([x, x]) if self.halves else x
        moved["timestep"] = _like(inputs["timestep"], t, len(both))
        return moved

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

    def _started(self, inputs: Inputs) -> Inputs:
        """The inputs, from the noise that the taps start from."""
        self.inputs = inputs
        rows = starting_noise(self.scheduler.run, self.scheduler.taps)
        if rows is None:
            return inputs
        rows = torch.cat([rows, rows]) if self.halves else rows
        return {**inputs, self._names[0]: list(rows) if self.listed else rows}

    def _middle(self, name: str) -> AbstractContextManager[None]:
        """For the block, the taps change the middle of a model's features."""
        return changing_middle(
            self.models[name], self.scheduler.taps, self.scheduler.run, self.rows, self.cond_first
        )

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
        if not self.halves:
            return changed
        uncond = self._half(inputs, second=self.cond_first)
        ordered = (changed, uncond) if self.cond_first else (uncond, changed)
        return joined(*ordered, lists=self.listed)

    def _cond(self, inputs: Inputs) -> Inputs:
        """The conditional half of the inputs."""
        return self._half(inputs, second=not self.cond_first) if self.halves else inputs

    def _half(self, inputs: Inputs, second: bool) -> Inputs:
        rows = len(inputs[self._names[0]])
        index = slice(rows // 2, None) if second else slice(rows // 2)
        return take(inputs, rows, index, lists=self.listed)

    def _begin(self, inputs: Inputs) -> None:
        """Tell the run of its samples. Raises ValueError where the pipeline guides, and does not
        give both branches stacked in one batch.
        """
        x = inputs[self._names[0]]
        x = torch.stack(x) if self.listed else x
        if self.halves and (len(x) % 2 or not torch.equal(x[: self.rows], x[self.rows :])):
            raise ValueError(
                "a plan makes guidance where a pipeline gives its denoiser both branches stacked "
                "in one batch, and this one does not: give every segment guidance_scale 1"
            )
        cond = self._cond(inputs)
        prompts = (cond.get(name) for name in ("encoder_hidden_states", *sorted(CONDITIONS)))
        condition = next((value for value in prompts if value is not None), None)
        if isinstance(condition, list):
            condition = pad_sequence(condition, batch_first=True)
        run = self.scheduler.run
        run.begin(x[: self.rows], condition)
        run.models = self

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
    """Under which name a segment's network is kept: the model's, with its strength where that is
    not 1, and its expert and its adapters where it names them.

    >>> model_key(Segment("student", 0, 1, 4, strength=0.5))
    'student@0,5'
    >>> model_key(Segment("student", 0, 1, 4, adapters={"lightning": 1}))
    'student@lightning=1,0'
    """
    key = segment.model
    if segment.strength != 1:
        key += f"@{segment.strength:g}".replace(".", ",")  # a module's name holds no dot
    if segment.expert is not None:
        key += f"@{segment.expert}"
    if segment.adapters is None:
        return key
    scales = "+".join(f"{name}={scale!r}" for name, scale in dict(segment.adapters).items())
    return f"{key}@{scales}".replace(".", ",")


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
