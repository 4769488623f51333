"""Checkpoint pairs: a base, its students, and the sampling defaults that belong to each."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch

from xhat.hooks.naming import nearest
from xhat.zoo.load.catalogue import published
from xhat.zoo.load.checkpoints import load_model, load_published
from xhat.zoo.load.embedded import (
    DEMO,
    WEIGHTS,
    embedded,
    embedded_defaults,
    load_embedded,
    refuse_retired,
)
from xhat.zoo.load.entries import Published
from xhat.zoo.load.pipelines import BASE_DEFAULTS, STUDENT_DEFAULTS, defaults_of, load_pipeline

__all__ = [
    "BASE_DEFAULTS",
    "DEMO",
    "STUDENT_DEFAULTS",
    "WEIGHTS",
    "Pair",
    "defaults_of",
    "embedded",
    "load_model",
    "load_pair",
    "load_pipeline",
]


@dataclass
class Pair:
    """A base and the students distilled from it. Pipelines are loaded on first use; ``student`` is
    the chosen one.

    ``xhat.defaults(pipe)`` gives the steps and guidance that belong to each; ``defaults`` has them
    by name
    without loading anything."""

    name: str
    loaders: Mapping[str, Callable[[Pair], Any]] = field(repr=False)
    chosen: str
    defaults: Mapping[str, Mapping[str, Any]] = field(repr=False, default_factory=dict)

    @cached_property
    def base(self) -> Any:
        return self.loaders["base"](self)

    @cached_property
    def students(self) -> dict[str, Any]:
        """name → pipeline, every student of the family."""
        return {name: load(self) for name, load in self.loaders.items() if name != "base"}

    @property
    def student(self) -> Any:
        return self.students[self.chosen]

    @property
    def control(self) -> str | None:
        """Name of the control that commits late, where there is one: the same student's weights
        on timesteps at which step two decides."""
        name = f"{self.chosen}-late"
        return name if name in self.loaders else None

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{d.get('num_inference_steps', '')}</td>"
            f"<td>{d.get('guidance_scale', '')}</td></tr>"
            for name, d in self.defaults.items()
        )
        head = "<tr><th>model<th>steps<th>guidance</tr>"
        return f"<b>{html.escape(self.name)}</b><table>{head}{rows}</table>"


def load_pair(name: str = DEMO, *, dtype: torch.dtype | None = None) -> Pair:
    """A base and its students by name. Nothing is loaded yet.

    Parameters
    ----------
    name
        ``"demo"`` (student ``dmd``), ``"demo/<student>"``, or a published pair, such as
        ``"sdxl/dmd2"``, whose weights come from the hub's cache or the network.
    dtype
        Of the weights; float32 where it is left out.

    Returns
    -------
    Pair
        ``pair.base`` and ``pair.student`` are pipelines of diffusers, loaded on first use.

    Raises
    ------
    ValueError
        For any other name, with the nearest ones.
    """
    dtype = dtype or torch.float32
    if name in published():
        return _published(published()[name], dtype)
    refuse_retired(name)
    folders = embedded()
    family, _, chosen = name.partition("/")
    students = [n for n in folders if n != "base"]
    if family != DEMO or (chosen and chosen not in students):
        known = [DEMO, *(f"{DEMO}/{n}" for n in students), *published()]
        near = nearest(name, known) or known
        raise ValueError(
            f"unknown pair {name!r}; did you mean {near[0]!r}? `xhat models` lists the known pairs"
        )
    loaders = {member: partial(_of_folder, member, dtype) for member in folders}
    defaults = {member: embedded_defaults(member) for member in folders}
    return Pair(name, loaders, chosen or students[0], defaults)


def _of_folder(member: str, dtype: torch.dtype, pair: Pair) -> Any:
    return load_embedded(member, dtype)


def _published(entry: Published, dtype: torch.dtype) -> Pair:
    student = entry.name.partition("/")[2]
    loaders: dict[str, Callable[[Pair], Any]] = {
        "base": lambda pair: load_model(entry.base.name, dtype=dtype),
        student: lambda pair: load_published(entry, pair.base, dtype=dtype),
    }
    return Pair(
        entry.name, loaders, student, {"base": dict(entry.base.call), student: dict(entry.call)}
    )
