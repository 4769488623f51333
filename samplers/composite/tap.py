"""The base of small methods that change a run as it goes: by the noise it starts from, by its
conditioning, by what its network computes, or by its x̂₀.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from xhat.samplers.composite.run import Run


class Tap:
    """Called by a hybrid pipeline's denoiser and scheduler at every step. What is not overridden
    changes nothing.

    A tap holds settings; what it learns of a run goes to ``run.memory``, so that every call begins
    anew. ``guidance_scale`` is the guidance with which it evaluates models itself, if it does."""

    guidance_scale: float = 1.0

    @property
    def active(self) -> bool:
        """Whether the settings are those of a method that changes every run: then a run in which
        nothing was changed is an error. Taps that watch, and those of weight zero, are not.
        """
        return False

    def begin(self, run: Run, x_T: torch.Tensor) -> torch.Tensor:
        """The noise from which the run starts, in VP, at ``run.entry.level``; asked once a call."""
        return x_T

    def features(self, run: Run, h: torch.Tensor) -> torch.Tensor:
        """The output (sample, …) of the network's middle block (:func:`~.middle.middle_of`) in the
        conditional branch of the step now under way.
        """
        return h

    def condition(self, run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the denoiser, by name, before it is evaluated: of the conditional branch
        alone.
        """
        return inputs

    def estimate(self, run: Run, x_t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        """x̂₀ after guidance, before the scheduler's step. ``x_t`` is in VP: √ᾱ·x₀ + √(1−ᾱ)·ε at
        ``run.entry.level``.

        Giving back the very ``x0`` leaves the step as it was, to the bit.
        """
        return x0


def differs(changed: Any, given: Any) -> bool:
    """Whether any tensor in ``changed`` has other values than its like in ``given``, of the same
    make.
    """
    if changed is given:
        return False
    if isinstance(given, torch.Tensor):
        return not torch.equal(changed, given)
    if isinstance(given, dict):
        return any(differs(changed[name], value) for name, value in given.items())
    if isinstance(given, list | tuple):
        return any(differs(a, b) for a, b in zip(changed, given, strict=True))
    return False
