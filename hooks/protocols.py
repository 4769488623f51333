"""What is asked of a pipeline and of a scheduler, and no more: those of diffusers have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch


class Scheduler(Protocol):
    """A diffusers scheduler: a schedule, and a step along it."""

    config: Any
    timesteps: torch.Tensor

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None: ...

    def step(self, *args: Any, **kwargs: Any) -> Any: ...


class Pipeline(Protocol):
    """A diffusers pipeline: components under their names, one of them a scheduler, and a call.

    Its denoiser, ``unet`` or ``transformer``, is looked up with
    :func:`xhat.hooks.points.names.denoiser_of`."""

    scheduler: Any
    config: Any

    @property
    def components(self) -> Mapping[str, Any]: ...

    def register_modules(self, **modules: Any) -> None: ...

    def register_to_config(self, **settings: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
