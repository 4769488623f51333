"""What a probe will take, and how many prompts and seeds fit the time that is given."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xhat.hooks.model import with_defaults
from xhat.hooks.points.names import denoiser_of, parts_of
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.select import select
from xhat.hooks.points.table import bytes_text
from xhat.hooks.points.taps import quiet

LEAST_PROMPTS, LEAST_SEEDS, GOOD_SEEDS = 2, 4, 8
MARGIN = 1.3  # measuring, decoding and writing on top of sampling


@dataclass(frozen=True)
class Estimate:
    """``prompts`` and ``seeds`` that are to be run, of those asked for; seconds, bytes on disk and
    of memory; ``notes``: what was cut, in words."""

    prompts: list[str]
    seeds: list[int]
    seconds: float
    disk: int
    memory: int
    notes: list[str]

    def text(self) -> str:
        size = f"{len(self.prompts)} prompts × {len(self.seeds)} seeds"
        room = f"{bytes_text(self.disk)} on disk and {bytes_text(self.memory)} of memory"
        return " ".join([f"{size}: about {duration(self.seconds)}, {room} at most.", *self.notes])


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(7.2), duration(90), duration(7000)
    ('7 s', '1.5 min', '1.9 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:.2g} h"


def seconds_each(pipe: Any, prompt: str, batch_size: int = 2) -> float:
    """Seconds of one network evaluation of one sample, from one call of a few samples; decoding is
    counted in.
    """
    evaluated = 0

    def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal evaluated
        evaluated += len(
            args[0] if args else kwargs["sample" if "sample" in kwargs else "hidden_states"]
        )

    handles = [
        m.register_forward_pre_hook(count, with_kwargs=True) for m in parts_of(denoiser_of(pipe))
    ]
    try:
        with quiet(pipe):
            started = time.perf_counter()
            pipe([prompt] * batch_size, output_type="np", **with_defaults(pipe, {}))
            return (time.perf_counter() - started) / max(evaluated, 1)
    finally:
        for handle in handles:
            handle.remove()


def fit_budget(
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    evaluations: float,
    each: float,
    budget: float,
    room: Mapping[str, int],
    out: Path,
    batch_size: int,
) -> Estimate:
    """The largest part of prompts × seeds that takes no longer than ``budget`` seconds, and its
    estimate.

    ``evaluations``: of the network, for one sample of every arm; ``each``: seconds of one.
    ``room``: bytes of one sample on ``disk``, in ``memory``, and of the ``weights``. Seeds are cut
    to eight first, then prompts, then both to the least that anything can be said of. Raises
    ValueError where not even that fits the time or the disk."""
    count = int(budget / (evaluations * each * MARGIN))
    p, s = _shape(len(prompts), len(seeds), count)
    seconds = p * s * evaluations * each * MARGIN
    if min(len(prompts), LEAST_PROMPTS) * min(len(seeds), LEAST_SEEDS) > count:
        raise ValueError(
            f"even {p} prompts × {s} seeds take about {duration(seconds)}, more than the budget "
            f"of {duration(budget)}: give --budget {max(1, round(seconds * 1.2 / 60))}m, or fewer "
            "steps"
        )
    disk, free = room["disk"] * p * s, shutil.disk_usage(_existing(out)).free
    if disk > free:
        raise ValueError(
            f"{p} prompts × {s} seeds need up to {bytes_text(disk)} in {out}, and "
            f"{bytes_text(free)} are free: make room, give another --out, or fewer prompts and "
            "seeds"
        )
    cut = (p, s) != (len(prompts), len(seeds))
    asked = f"Cut from {len(prompts)} × {len(seeds)} to fit the budget of {duration(budget)}."
    memory = room["weights"] + 3 * room["memory"] * min(batch_size, p * s)
    return Estimate(
        list(prompts[:p]), list(seeds[:s]), seconds, disk, memory, [asked] if cut else []
    )


def _shape(prompts: int, seeds: int, count: int) -> tuple[int, int]:
    """Prompts and seeds, at most as many as there are, with a product of at most ``count`` where
    that can be.
    """
    s = min(seeds, max(count // prompts, GOOD_SEEDS))
    p = min(prompts, max(count // s, LEAST_PROMPTS))
    s = min(s, max(count // p, LEAST_SEEDS))
    return p, s


def room_of(pipes: Mapping[str, Any], prompt: str, hooks: Mapping[str, str]) -> dict[str, int]:
    """Bytes: of one sample's traces on ``disk``, of the largest of them in ``memory``, and of all
    ``weights``.
    """
    each = []
    for pipe in pipes.values():
        selections = select(denoiser_of(pipe), hooks)
        seen = rehearse(
            pipe, [s.point for s in selections], prompt=prompt, **with_defaults(pipe, {})
        )
        each.append(seen.bytes_of(selections))
    modules = {
        id(m): m
        for pipe in pipes.values()
        for m in pipe.components.values()
        if hasattr(m, "parameters")
    }
    weights = sum(p.numel() * p.element_size() for m in modules.values() for p in m.parameters())
    return {"disk": sum(each), "memory": max(each), "weights": weights}


def _existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
