"""Checkpoints as they are published, with what each needs to be run right.

The table of them is :mod:`xhat.zoo.load.catalogue`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("pipeline", "denoiser", "weights", "file", "lora")


@dataclass(frozen=True)
class Base:
    """A base model on the hub: ``name`` of its family, ``repo``, pipeline class, prediction type,
    and ``call``: what its pipeline is called with. ``checked`` says what was read to fill this in;
    ``source`` where; ``variant`` names its files in half precision."""

    name: str
    repo: str
    pipeline: str
    prediction: str
    call: Mapping[str, Any]
    source: str
    checked: str
    variant: str | None = None


@dataclass(frozen=True)
class Published:
    """A checkpoint distilled from ``base``, as published.

    kind
        ``"pipeline"``: a diffusers pipeline; ``"denoiser"``: a diffusers model with its own config;
        ``"weights"``: a
        bare state dict of the base's denoiser; ``"file"``: one file with the whole model;
        ``"lora"``: an adapter.
    file
        which file of ``repo``; None for a pipeline, and for a denoiser at the top of its
        repository.
    call
        keywords of the pipeline's call: ``num_inference_steps``, ``guidance_scale`` in the units of
        the card (0 and 1
        both mean none, but for models that take it as an input), ``eta``, ``max_sequence_length``
        and the like.
    scheduler, scheduler_config
        class in diffusers, made from the base's scheduler configuration with these changes; None:
        the checkpoint's own.
    timesteps
        those it is run at, where they do not depend on the picture's size. Where no scheduler
        setting gives them, they
        are in ``call`` too.
    checked
        what was read to fill this in; "card not read" where the authors' own page was not to be
        had.
    """

    name: str
    base: Base
    repo: str
    kind: str
    call: Mapping[str, Any]
    source: str
    file: str | None = None
    scheduler: str | None = None
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)
    timesteps: tuple[int, ...] | None = None
    lora_scale: float = 1.0
    prediction: str = ""
    checked: str = "card not read"
    note: str = ""

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        if not self.prediction:
            object.__setattr__(self, "prediction", self.base.prediction)

    @property
    def steps(self) -> int:
        return int(self.call["num_inference_steps"])

    @property
    def guidance_scale(self) -> float:
        return float(self.call.get("guidance_scale", self.call.get("true_cfg_scale", 1.0)))
