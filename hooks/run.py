"""A run of a trace: what is to be traced, checked, and the sampler that draws batches of it."""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from xhat.hooks.batches import Batch, Sampler, check_arguments, per_prompt
from xhat.hooks.describe import describe, describe_call, jsonable, versions
from xhat.hooks.edits.edit import Edit
from xhat.hooks.edits.patch import Patch, places
from xhat.hooks.model import with_defaults
from xhat.hooks.noise import levels as noise
from xhat.hooks.points.names import denoisers_of
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.select import Selection, select
from xhat.hooks.points.table import bytes_text
from xhat.hooks.points.taps import quiet
from xhat.hooks.record.encode import encoded_once
from xhat.hooks.record.record import warn_unfired
from xhat.hooks.record.recorder import Recorder
from xhat.hooks.store.schema import Schema, schema_of
from xhat.hooks.store.tiles import Tile, Tiling
from xhat.hooks.tracer import Hooks, attributes

MOST_SEEDS = 10**6  # a trace of more is a mistake
LIBRARIES = ("torch", "diffusers", "transformers", "xhat")  # whose versions make pictures differ


@dataclass(frozen=True)
class TraceRun:
    """What is to be traced, checked. ``config`` is what makes two runs the same."""

    pipe: Any
    prompts: list[str]
    seeds: list[int]
    selections: tuple[Selection, ...]
    hooks: Hooks
    edits: tuple[Edit, ...]
    arguments: dict[str, Any]
    config: dict[str, Any]

    @property
    def coords(self) -> dict[str, np.ndarray]:
        return {"prompt": np.array(self.prompts), "seed": np.array(self.seeds, dtype=np.int64)}


def prepare(
    pipe: Any,
    prompts: Any,
    seeds: Any,
    hooks: Any,
    edits: tuple[Edit, ...],
    batch_size: int,
    call: Mapping[str, Any],
) -> TraceRun:
    """What is asked of :func:`xhat.trace`, checked before anything is drawn."""
    prompts, seeds = _prompts(prompts), _seeds(seeds)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected a whole number above 0")
    denoisers = denoisers_of(pipe)
    noise.kind(pipe.scheduler)
    selections = select(denoisers, hooks)
    places(denoisers, edits)
    check_arguments(pipe, call)
    _check_numbers(call)
    arguments = _with_defaults(pipe, call)
    per_prompt(pipe, arguments, Tile(range(1), range(1)), len(prompts))
    described, unknown = describe_call(arguments)
    config = describe(pipe)
    unknown += config.pop("unidentified", [])
    config |= {
        "prompts": prompts,
        "seeds": seeds,
        "hooks": {s.name: str(s.reduction) for s in selections},
        "call": described,
        "libraries": {name: versions()[name] for name in LIBRARIES},
    }
    if edits:
        config["edits"] = [jsonable(edit.describe()) for edit in edits]
    if unknown:
        config["unidentified"] = unknown
    return TraceRun(pipe, prompts, seeds, selections, hooks, edits, arguments, config)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _check_numbers(call: Mapping[str, Any]) -> None:
    """Raises ValueError for a number of steps below 1, or a guidance that is no number."""
    steps = call.get("num_inference_steps")
    if steps is not None and (isinstance(steps, bool) or not hasattr(steps, "__index__")):
        raise ValueError(f"num_inference_steps={steps!r}: expected a whole number above 0")
    if steps is not None and operator.index(steps) < 1:
        raise ValueError(f"num_inference_steps={steps!r}: expected a whole number above 0")
    for name, value in call.items():
        if isinstance(value, float | np.floating) and not np.isfinite(value):
            raise ValueError(f"{name}={value}: expected a finite number")


def _prompts(prompts: str | Sequence[str]) -> list[str]:
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    if not listed or not all(isinstance(p, str) for p in listed):
        raise ValueError(f"prompts={_brief(prompts)}: expected a text, or a list of one or more")
    if ended := [p for p in listed if p.endswith("\0")]:
        raise ValueError(f"{ended[0]!r} ends in a NUL character, which coordinates do not keep")
    if repeated := [p for p, count in Counter(listed).items() if count > 1]:
        raise ValueError(
            f"prompts that repeat: {repeated[:3]}. Each is sampled under every seed once"
        )
    return listed


def _seeds(seeds: Iterable[int]) -> list[int]:
    expected = f"expected 1 to {MOST_SEEDS} whole numbers from 0 to 2⁶³−1, for example range(16)"
    try:
        if isinstance(seeds, str | bytes):
            raise TypeError
        listed = [operator.index(s) for s in itertools.islice(seeds, MOST_SEEDS + 1)]
    except TypeError:
        raise ValueError(f"seeds={_brief(seeds)}: {expected}") from None
    if not 1 <= len(listed) <= MOST_SEEDS or min(listed) < 0 or max(listed) >= 2**63:
        raise ValueError(f"seeds={_brief(seeds)}: {expected}")
    if repeated := [s for s, count in Counter(listed).items() if count > 1]:
        raise ValueError(
            f"seeds that repeat: {repeated[:5]}. Their samples would be the same picture twice"
        )
    return listed


def _with_defaults(pipe: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments: what is given, what belongs to the checkpoint, and pictures as
    arrays.
    """
    output = "latent" if given.get("output_type") == "latent" else "np"
    return with_defaults(pipe, given) | {"output_type": output}


def announcement(run: TraceRun, tiling: Tiling) -> str:
    """What the run will take: samples, steps, room on disk, memory. Found by rehearsing it without
    arithmetic.
    """
    samples = tiling.prompts * tiling.seeds
    text = f"tracing {tiling.prompts} prompts × {tiling.seeds} seeds"
    try:
        seen = rehearse(
            run.pipe,
            [s.point for s in run.selections],
            prompt=run.prompts[0],
            **_single(run),
        )
    except Exception as error:  # an estimate is worth no failure: the run will say
        return f"{text}; size unknown before the first batch ({type(error).__name__})"
    each, batch = seen.bytes_of(run.selections), tiling.height * tiling.width
    return (
        f"{text} × {seen.steps} steps, {len(run.selections)} readings: up to "
        f"{bytes_text(each * samples)} on disk before compression, and "
        f"{bytes_text(3 * each * batch)} of memory for batches of {batch}"
    )


def _single(run: TraceRun) -> dict[str, Any]:
    """Arguments for the first prompt alone."""
    call, _ = per_prompt(run.pipe, run.arguments, Tile(range(1), range(1)), len(run.prompts))
    return call | {"output_type": "latent"}


@contextmanager
def sampling(run: TraceRun) -> Iterator[Sampler]:
    """A sampler of the run's batches, whose taps are off again after the block."""
    with ExitStack() as stack:  # edits first, so that what they make is what is recorded
        patch = stack.enter_context(Patch(run.pipe, run.edits)) if run.edits else None
        recorder = stack.enter_context(Recorder(run.pipe, run.hooks, _size(run.arguments)))
        stack.enter_context(quiet(run.pipe))
        stack.enter_context(encoded_once(run.pipe))
        yield Sampler(run.pipe, recorder, run.prompts, run.seeds, run.arguments, patch)


def batch_schema(
    run: TraceRun, selections: Sequence[Selection], batch: Batch, before: Schema | None
) -> Schema:
    """The schema of a batch, which every other batch must have too."""
    root = attributes(run.config, batch.notes) if before is None else before.attrs[""]
    schema = schema_of(batch.arrays, batch.branches, selections, batch.schedule, root)
    if before is None:
        warn_unfired(batch.unfired)
        return schema
    there, here = (s.coords[""]["timestep"][1] for s in (before, schema))
    if before.variables != schema.variables or not np.array_equal(there, here):
        raise ValueError(
            f"a batch differs from the first in shape or schedule ({len(there)} steps, then "
            f"{len(here)}): every prompt of a trace runs through the same steps"
        )
    return before


def _size(arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = arguments.get("height"), arguments.get("width")
    return (height, width) if height and width else None
