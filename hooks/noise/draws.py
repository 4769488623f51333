"""The noise that a scheduler step drew, told from the state of its generators before and after.

A step's arithmetic differs from scheduler to scheduler; its draw does not: one normal tensor,
shaped like the latents. Drawn once more from a generator put back to the state before, it is the
same to the bit, and the state that it leaves proves that this was the whole draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xhat.hooks.noise import levels as noise

# These draw in float32 whatever the latents are; the others in the dtype of the model's output.
_SINGLE = {
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LTXEulerAncestralRFScheduler",
    "SCMScheduler",
}
Generators = Sequence[torch.Generator]


def generators_of(
    generator: torch.Generator | Sequence[torch.Generator] | None, device: torch.device
) -> Generators:
    """The generators a step draws from: those it is given, or the global one of the device."""
    if generator is None:
        if device.type == "cuda":
            return [torch.cuda.default_generators[device.index or 0]]
        return [torch.default_generator]
    return [generator] if isinstance(generator, torch.Generator) else list(generator)


def generator_states(generators: Generators) -> list[torch.Tensor]:
    return [g.get_state() for g in generators]


def unchanged(before: list[torch.Tensor], generators: Generators) -> bool:
    return all(torch.equal(b, g.get_state()) for b, g in zip(before, generators, strict=True))


def replay(
    generators: Generators, before: list[torch.Tensor], like: torch.Tensor, scheduler: object
) -> torch.Tensor | None:
    """The normal tensor drawn since ``before``, None where it was not one tensor shaped like
    ``like``.
    """
    dtype = torch.float32 if noise.kind(scheduler) in _SINGLE else like.dtype
    shape = (
        like.shape if len(generators) == 1 else (like.shape[0] // len(generators), *like.shape[1:])
    )
    drawn = []
    for generator, state in zip(generators, before, strict=True):
        again = torch.Generator(device=generator.device)
        again.set_state(state)
        drawn.append(torch.randn(shape, generator=again, device=generator.device, dtype=dtype))
        if not torch.equal(again.get_state(), generator.get_state()):
            return None
    return torch.cat(drawn).to(like.device)
