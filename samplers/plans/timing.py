"""What a pipeline tells its scheduler beside the number of steps.

Pipelines of flow models give their noise levels themselves, evenly spaced, and shift them by the
size of the picture: σ' = e^μ/(e^μ + 1/σ − 1), with μ linear in the number of patches (Esser et al.,
arXiv 2403.03206, Sec. 5.3.2). A plan runs each model at the noise levels of its own pipeline, so it
has to know."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from xhat.hooks.families import FAMILIES, family_of_class


@dataclass(frozen=True)
class Timing:
    """How a pipeline sets its timesteps: whether it passes evenly spaced σ, and the number of
    patches of its picture, or a μ that is always the same. ``single``: whether σ are made in single
    precision."""

    even: bool = False
    patches: int | None = None
    mu: float | None = None
    single: bool = False

    def settings(self, scheduler: Any, steps: int | None) -> dict[str, Any]:
        """Further keywords of the scheduler's ``set_timesteps``; no σ where ``steps`` is None."""
        known = inspect.signature(scheduler.set_timesteps).parameters
        found: dict[str, Any] = {}
        evenly = self.even and not scheduler.config.get("use_flow_sigmas", False)
        if steps is not None and evenly and "sigmas" in known:
            found["sigmas"] = even(steps, self.single)
        if "mu" in known and scheduler.config.get("use_dynamic_shifting", False):
            mu = (
                self.mu
                if self.mu is not None or self.patches is None
                else shift(scheduler.config, self.patches)
            )
            found |= {} if mu is None else {"mu": mu}
        return found

    def heard(self, config: Mapping[str, Any], mu: float | None) -> Timing:
        """The same for the picture that a pipeline with this scheduler configuration speaks of by
        its μ.
        """
        if mu is None or self.mu is not None:
            return self
        slope, start = _line(config)
        if slope == 0:
            return self
        patches = (mu - start) / slope
        if abs(patches - round(patches)) > 1e-3:
            return replace(self, mu=mu)
        return replace(self, patches=round(patches))


def timing_of(pipe: Any) -> Timing:
    """How a pipeline sets its timesteps, for a picture of its default size."""
    family = family_of_class(type(pipe))
    network = getattr(pipe, "transformer", None)
    if network is None:
        return Timing()
    distilled = family.name == "Krea 2" and getattr(pipe.config, "is_distilled", False)
    side = getattr(pipe, "default_sample_size", 128)
    if family.name == "Lumina 2":  # it counts the latents' channels for their patches
        return Timing(True, network.config.in_channels)
    patch = network.config.get("patch_size", 1) if family.name == "SD3" else 2
    patches = (side // patch) ** 2
    return Timing(family.even_sigmas, patches, 1.15 if distilled else None, family.single)


def boundary_of(pipe: Any) -> float | None:
    """The timestep from which on the first of a pipeline's two networks is asked; None where one is
    all there is.
    """
    ratio = getattr(getattr(pipe, "config", None), "boundary_ratio", None)
    if getattr(pipe, "transformer_2", None) is None or ratio is None:
        return None
    return float(ratio) * pipe.scheduler.config.num_train_timesteps


def even(steps: int, single: bool = False) -> np.ndarray:
    """σ = 1, …, 1/n."""
    return (
        torch.linspace(1.0, 1 / steps, steps).numpy()
        if single
        else np.linspace(1.0, 1 / steps, steps)
    )


def check_even(sigmas: Any, known: bool) -> None:
    """Raises ValueError for σ that a plan, whose models have their own, cannot take over from a
    pipeline.
    """
    given = np.asarray(sigmas, dtype=np.float64)
    if not known:
        raise ValueError(
            "sigmas were given to a hybrid, in its call or by its pipeline, in a way that plans do "
            "not know: the plan has the noise levels of each model. Make it with "
            "student_sigmas=, or "
            "give the plan's segments sigmas. Pipelines whose own sigmas are known: "
            f"{', '.join(f.classes[0] for f in FAMILIES if f.even_sigmas)}"
        )
    if not np.allclose(given, even(len(given)), atol=1e-6):
        raise ValueError(
            "sigmas cannot be chosen in the call of a hybrid: its plan has those of each "
            "model. Make "
            "it with student_sigmas=, or give the plan's segments sigmas"
        )


def shift(config: Mapping[str, Any], patches: int) -> float:
    """μ of a picture of so many patches, in the very arithmetic of diffusers' pipelines."""
    slope, start = _line(config)
    return patches * slope + start


def _line(config: Mapping[str, Any]) -> tuple[float, float]:
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    least, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (high - low) / (most - least)
    return slope, low - slope * least
