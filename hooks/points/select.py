"""Which readings a trace keeps: names, globs and paths, resolved on the modules that are there
now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from xhat.hooks.points.compiled import refuse_compiled
from xhat.hooks.points.names import (
    Denoisers,
    Point,
    find_points,
    modules_at,
    named_points,
    parts_of,
)
from xhat.hooks.points.reductions import Reduction, mean, parse_reduction
from xhat.hooks.points.text_tokens import reads_prompt

READINGS = ("output", "input", "delta", "probs", "tokens")


@dataclass(frozen=True)
class Selection:
    """A point, what to read there, and what to keep of it. ``name`` is its name in a trace."""

    point: Point
    reading: str
    reduction: Reduction

    @property
    def name(self) -> str:
        return (
            self.point.alias if self.reading == "output" else f"{self.point.alias}@{self.reading}"
        )


def select(denoiser: Denoisers, hooks: Mapping[str, Any] | Iterable[str]) -> tuple[Selection, ...]:
    """What ``hooks`` asks for: {name or glob, with ``@input``, ``@delta``, ``@probs`` or
    ``@tokens`` for other readings: reduction}.

    A list of names means ``mean``. Where two names meet at one point, the exact one decides before
    a glob, and the first of equals. A module without alias can be named by its path. Raises
    ValueError for what matches nothing, and for a compiled denoiser."""
    wanted = (
        dict(hooks) if isinstance(hooks, Mapping) else {name: mean() for name in _listed(hooks)}
    )
    if not wanted:
        return ()
    networks = denoiser if isinstance(denoiser, tuple) else (denoiser,)
    for network in (*networks, *parts_of(denoiser)):
        refuse_compiled(network)
    candidates = all_points(denoiser)
    selected: dict[tuple[str, str], Selection] = {}
    for key in sorted(wanted, key=lambda k: any(c in k for c in "*?[")):
        pattern, reading = split_reading(key)
        matches = find_points(candidates, pattern)
        if reading in ("probs", "tokens"):
            matches = _attending(denoiser, matches, key, reading == "tokens")
        for point in matches:
            selected.setdefault(
                (point.path, reading), Selection(point, reading, parse_reduction(wanted[key]))
            )
    for selection in selected.values():
        _refuse_compiled_at(denoiser, selection.point.path)
    order = {p.path: i for i, p in enumerate(candidates)}
    return tuple(sorted(selected.values(), key=lambda s: (order[s.point.path], s.reading)))


def _listed(hooks: Iterable[str]) -> list[str]:
    return [hooks] if isinstance(hooks, str) else list(hooks)


def all_points(denoiser: Denoisers) -> tuple[Point, ...]:
    """Points with an alias, and every other module under its path."""
    named = named_points(denoiser)
    known = {p.path for p in named}
    rest: dict[str, Point] = {}
    for part in parts_of(denoiser):
        for path, module in part.named_modules():
            if path and path not in known and not isinstance(module, nn.ModuleList | nn.ModuleDict):
                rest.setdefault(path, Point(path, path, type(module).__name__))
    return (*named, *rest.values())


def split_reading(key: str) -> tuple[str, str]:
    """``"h@delta"`` → ``("h", "delta")``; without ``@``, the output."""
    pattern, _, reading = key.partition("@")
    reading = reading or "output"
    if reading not in READINGS:
        raise ValueError(
            f"{key!r} asks for the reading {reading!r}: expected one of {', '.join(READINGS)}"
        )
    return pattern, reading


def _attending(denoiser: Denoisers, matches: list[Point], key: str, to_prompt: bool) -> list[Point]:
    """The attention modules among the matches; ``to_prompt``: those that attend to the prompt."""

    def fits(module: nn.Module) -> bool:
        return hasattr(module, "to_q") and (not to_prompt or reads_prompt(module))

    attending = [p for p in matches if all(fits(m) for m in modules_at(denoiser, p.path))]
    if not attending:
        what = "module that attends to the prompt" if to_prompt else "attention module"
        raise ValueError(f"{key!r} names no {what} ({matches[0].alias!r} is a {matches[0].kind})")
    return attending


def _refuse_compiled_at(denoiser: Denoisers, path: str) -> None:
    for part in parts_of(denoiser):
        try:
            part.get_submodule(path)
        except AttributeError:  # another part has it
            continue
        refuse_compiled(part, path)
