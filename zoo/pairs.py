"""Checkpoint pairs: a base, its students, and the sampling defaults that belong to each."""

from __future__ import annotations

import difflib
import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xhat.hooks.model import state
from xhat.zoo.load.entries import Base, Published, bases, find, published
from xhat.zoo.load.pipelines import BASE_DEFAULTS, STUDENT_DEFAULTS, defaults_of, load_pipeline

if TYPE_CHECKING:
    import torch

__all__ = [
    "BASE_DEFAULTS",
    "STUDENT_DEFAULTS",
    "Pair",
    "defaults_of",
    "embedded",
    "load_model",
    "load_pair",
    "load_pipeline",
]

WEIGHTS = Path(__file__).parent / "weights"
DEMO = "demo"


@dataclass
class Pair:
    """A base and the students distilled from it. Pipelines are loaded on first use; ``student`` is
    the chosen one.

    ``xhat.defaults(pipe)`` gives the steps and guidance that belong to each; ``defaults`` has them
    by
    name without loading anything."""

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

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{d.get('num_inference_steps', '')}</td>"
            f"<td>{d.get('guidance_scale', '')}</td></tr>"
            for name, d in self.defaults.items()
        )
        head = "<tr><th>model<th>steps<th>guidance</tr>"
        return f"<b>{html.escape(self.name)}</b><table>{head}{rows}</table>"


def load_pair(name: str = DEMO, *, dtype: torch.dtype | None = None) -> Pair:
    """A pair by name: ``"demo"`` (student ``dmd``), ``"demo/<student>"``, or a published one,
    ``"sdxl/dmd2"``.

    Nothing is loaded yet; the weights of a published pair come from the hub's cache or the network.
    ``dtype`` is that of the weights, float32 where it is left out. Raises ValueError for any other
    name, with the nearest ones."""
    if name in published():
        return _published(find(name), dtype)
    folders = embedded()
    family, _, chosen = name.partition("/")
    students = [n for n in folders if n != "base"]
    if family != DEMO or (chosen and chosen not in students):
        known = [DEMO, *(f"{DEMO}/{n}" for n in students), *published()]
        near = difflib.get_close_matches(name, known, 1) or known
        raise ValueError(
            f"unknown pair {name!r}; did you mean {near[0]!r}? `xhat models` lists the known pairs"
        )
    loaders = {member: _of_folder(folder, dtype) for member, folder in folders.items()}
    defaults = {member: defaults_of(folder) for member, folder in folders.items()}
    return Pair(name, loaders, chosen or students[0], defaults)


def _of_folder(folder: Path, dtype: torch.dtype | None) -> Callable[[Pair], Any]:
    return lambda pair: load_pipeline(folder, **_typed(dtype))


def _published(entry: Published, dtype: torch.dtype | None) -> Pair:
    from xhat.zoo.load.checkpoints import load_published

    student = entry.name.partition("/")[2]
    loaders: dict[str, Callable[[Pair], Any]] = {
        "base": lambda pair: load_model(entry.base.name, dtype=dtype),
        student: lambda pair: load_published(entry, pair.base, **_typed(dtype)),
    }
    return Pair(
        entry.name, loaders, student, {"base": dict(entry.base.call), student: dict(entry.call)}
    )


def _typed(dtype: torch.dtype | None) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": dtype}


def embedded() -> dict[str, Path]:
    """name → folder of every embedded pipeline, the base first."""
    order = ("base", "dmd", "lcm", "turbo", "paired")
    return {
        name: WEIGHTS / name for name in order if (WEIGHTS / name / "model_index.json").exists()
    }


def load_model(
    name: str | Path, base: Any = None, *, dtype: torch.dtype | None = None, **loading: Any
) -> Any:
    """A pipeline by embedded name (``demo/base``, ``demo/dmd`` …), family (``sdxl``: its base),
    published name (``sdxl/dmd2``), folder, file or hub name.

    ``base`` and ``loading`` are those of :func:`xhat.zoo.load_checkpoint`, for a checkpoint that is
    no whole pipeline. Raises ValueError for a name that is none of these, and for what is no
    checkpoint."""
    from xhat.zoo.load.checkpoints import load_checkpoint, load_published

    name = str(name)
    if name.partition("/")[0] == DEMO and not Path(name).exists():
        return load_pipeline(_embedded_folder(name), **_typed(dtype))
    if name in published():
        entry = find(name)
        return load_published(entry, base if base is not None else entry.base.name, **_typed(dtype))
    if name in bases():
        return _base(bases()[name], dtype)
    try:
        return load_checkpoint(name, base, **_typed(dtype), **loading)
    except ValueError as error:
        known = [f"{DEMO}/{n}" for n in embedded()] + [*published(), *bases()]
        near = [] if Path(name).exists() else difflib.get_close_matches(name, known, 1, cutoff=0.7)
        if not near:
            raise
        raise ValueError(f"unknown model {name!r}; did you mean {near[0]!r}? ({error})") from error


def _base(base: Base, dtype: torch.dtype | None) -> Any:
    """A family's base; in half precision from the files that are, where they are published."""
    import torch

    half = dtype in (torch.float16, torch.bfloat16)
    pipe = load_pipeline(base.repo, variant=base.variant if half else None, **_typed(dtype))
    return state(pipe, base.call)


def _embedded_folder(name: str) -> Path:
    folders = embedded()
    member = name.partition("/")[2] or "base"
    if member not in folders:
        known = [f"{DEMO}/{n}" for n in folders]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown embedded model {name!r}{hint}; there are {', '.join(known)}")
    return folders[member]
