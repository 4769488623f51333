"""What a pipeline gives its denoiser: the conditioning of a prompt, and noisy latents of its own
trajectories.

The pipeline is called as always and hooks listen, so this holds for every architecture, and for a
student it yields the student's own timesteps. What was heard can be given to the denoiser again:
:func:`predict`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from xhat.hooks.model import with_defaults
from xhat.hooks.noise.levels import NoiseLevel, noise_level, scales, space
from xhat.hooks.noise.x0 import x0_at
from xhat.hooks.points.names import denoiser_of, parts_of
from xhat.hooks.points.taps import listening, quiet
from xhat.hooks.record.rows import take

Condition = dict[str, Any]
"""Keyword arguments of the denoiser for one sample, the latents and the timestep left out."""


@dataclass(frozen=True)
class States:
    """Inputs of the denoiser along trajectories: ``x_t`` (n, …) as it is given them, ``timestep``
    (n,), ``level``: the noise level of each."""

    x_t: torch.Tensor
    timestep: torch.Tensor
    level: tuple[NoiseLevel, ...]

    def __len__(self) -> int:
        return len(self.x_t)

    def __getitem__(self, index: torch.Tensor) -> States:
        return States(
            self.x_t[index], self.timestep[index], tuple(self.level[int(i)] for i in index)
        )


def states(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], **call: Any) -> States:
    """Every input of the denoiser while the pipeline samples each prompt from each seed; step after
    step, then prompt.

    ``call`` goes over the checkpoint's own defaults. Where guidance doubles the batch, the
    conditional half is meant."""
    heard = _Heard(len(seeds))
    denoiser = network_of(pipe)
    with heard.on(pipe, denoiser):
        for prompt in prompts:
            _run(pipe, prompt, seeds, call)
    x_t, timestep = (
        torch.cat([getattr(s, name) for s in heard.steps]) for name in ("x_t", "timestep")
    )
    return States(x_t, timestep, tuple(level for s in heard.steps for level in s.level))


def condition(pipe: Any, prompt: str, **call: Any) -> Condition:
    """What the denoiser is given beside latents and timestep for one sample of this prompt,
    guidance off.
    """
    heard = _Heard(
        2
    )  # two samples: what has two rows is of the samples, what has not is of the call
    denoiser = network_of(pipe)
    first, second = _names(denoiser)
    unguided = {} if _embeds_guidance(denoiser) else {"guidance_scale": 1.0}
    with heard.on(pipe, denoiser):
        _run(pipe, prompt, (0, 1), {"num_inference_steps": 1, **unguided, **call})
    inputs = take(heard.inputs, 2, slice(0, 1))
    return {name: value for name, value in inputs.items() if name not in (first, second)}


def predict(
    denoiser: nn.Module, given: Condition, x_t: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """The denoiser's output (n, …) on latents of one prompt; a learned variance is left out."""
    n = len(x_t)
    rows = tree_map(lambda v: v.expand(n, *v.shape[1:]) if _is_row(v) else v, given)
    first, second = _names(denoiser)
    output = denoiser(**{first: x_t, second: timestep}, **rows, return_dict=False)[0]
    return output.chunk(2, dim=1)[0] if output.shape[1] == 2 * x_t.shape[1] else output


def seen_x0(scheduler: Any, seen: States, output: torch.Tensor) -> torch.Tensor:
    """x̂₀ (n, …) that the outputs on these inputs stand for.

    Networks of σ-space schedulers are given x/√(1+σ²): it is scaled back before x̂₀ is taken.
    """
    rows = []
    for x, level, out in zip(seen.x_t, seen.level, output, strict=True):
        own = x if space(scheduler) == "flow" else x * math.hypot(*scales(scheduler, level))
        rows.append(x0_at(scheduler, out[None], level, own[None]))
    return torch.cat(rows)


def network_of(pipe: Any) -> Any:
    """The pipeline's one denoiser. Raises ValueError for a hybrid, which has several."""
    parts = parts_of(denoiser_of(pipe))
    if len(parts) > 1:
        raise ValueError(
            "a hybrid has several networks: train on the base or on the student it is made of"
        )
    return parts[0]


def _is_row(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == 1


def _names(denoiser: nn.Module) -> tuple[str, str]:
    """What the denoiser calls its latents and its timestep."""
    first = next(iter(inspect.signature(denoiser.forward).parameters))
    return first, "timestep"


def _embeds_guidance(denoiser: nn.Module) -> bool:
    config: Mapping[str, Any] = getattr(denoiser, "config", {})
    return bool(config.get("guidance_embeds") or config.get("time_cond_proj_dim"))


def _run(pipe: Any, prompt: str, seeds: Sequence[int], call: Mapping[str, Any]) -> None:
    generators = [torch.Generator("cpu").manual_seed(int(s)) for s in seeds]
    with torch.no_grad(), quiet(pipe):
        pipe(
            prompt=prompt,
            num_images_per_prompt=len(seeds),
            generator=generators,
            output_type="latent",
            **with_defaults(pipe, call),
        )


@dataclass
class _Heard:
    """The denoiser's last inputs, and those at each call of the scheduler's step."""

    rows: int
    inputs: dict[str, Any] = field(default_factory=dict)
    steps: list[States] = field(default_factory=list)
    scheduler: Any = None

    @contextmanager
    def on(self, pipe: Any, denoiser: nn.Module) -> Iterator[None]:
        self.scheduler, self.names = pipe.scheduler, _names(denoiser)
        self.order = list(inspect.signature(denoiser.forward).parameters)
        handle = denoiser.register_forward_pre_hook(self._inputs, with_kwargs=True)
        try:
            with listening(pipe.scheduler, "step", self):
                yield
        finally:
            handle.remove()

    def _inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {**dict(zip(self.order, args, strict=False)), **kwargs}
        named.pop("return_dict", None)
        rows = len(named[self.names[0]])
        self.inputs = take(named, rows, slice(-self.rows, None)) if rows > self.rows else named

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x_t, t = (self.inputs[name] for name in self.names)
        t = torch.as_tensor(t).reshape(-1).expand(self.rows).clone()
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        level = noise_level(self.scheduler, timestep)
        self.steps.append(States(x_t.detach().clone(), t, (level,) * self.rows))

    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        pass
