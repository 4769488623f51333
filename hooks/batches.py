"""Runs a pipeline on a tile of prompts × seeds and gives its arrays."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from xhat.hooks.edits.patch import Patch
from xhat.hooks.naming import nearest
from xhat.hooks.points.select import Selection
from xhat.hooks.record.record import Array, Record, check_finite
from xhat.hooks.record.recorder import Recorder
from xhat.hooks.store.schema import path_of
from xhat.hooks.store.tiles import Tile

OURS = ("prompt", "generator", "num_images_per_prompt", "latents", "prompt_embeds", "return_dict")


class Batch(NamedTuple):
    """A tile's arrays by path, the labels of the branch axis by point, the schedule, and what never
    fired.
    """

    arrays: dict[str, Array]
    branches: dict[str, tuple[str, ...]]
    schedule: dict[str, np.ndarray]
    unfired: list[str]
    space: str


class Sampler:
    """Calls the pipeline under a recorder. Where memory runs out, it goes on with half the batch,
    and says so.
    """

    def __init__(
        self,
        pipe: Any,
        recorder: Recorder,
        prompts: Sequence[str],
        seeds: Sequence[int],
        arguments: Mapping[str, Any],
        patch: Patch | None = None,
    ) -> None:
        self.pipe, self.recorder, self.patch = pipe, recorder, patch
        self.prompts, self.seeds, self.arguments = prompts, seeds, arguments
        self.limit: int | None = None

    def __call__(self, tile: Tile) -> Batch:
        if self.limit is not None and len(tile) > self.limit:
            return _joined(*(self(half) for half in tile.halves()))
        try:
            return self._run(tile)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error) or len(tile) == 1:
                raise
        # outside the except: the traceback holds the tensors that filled the memory
        self.recorder.take()
        self.limit = -(-len(tile) // 2)
        warnings.warn(
            f"out of memory with {len(tile)} samples: going on with {self.limit} at a time",
            stacklevel=2,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self(tile)

    def _run(self, tile: Tile) -> Batch:
        if self.patch is not None:
            self.patch.labels = [
                (self.prompts[i], self.seeds[j]) for i in tile.prompts for j in tile.seeds
            ]
            self.patch.samples = len(tile)
        result = self.pipe(**self._call(tile))
        records = self.recorder.take()
        if len(records) != 1:
            raise ValueError(
                f"the pipeline made {len(records)} denoising runs in one call: expected one"
            )
        return self._batch(records[0], result)

    def _call(self, tile: Tile) -> dict[str, Any]:
        """The keywords of the call: one generator a sample, so that its image does not depend on
        its batch.
        """
        prompts = [self.prompts[i] for i in tile.prompts]
        seeds = [self.seeds[j] for j in tile.seeds]
        repeats = "num_images_per_prompt" in inspect.signature(self.pipe.__call__).parameters
        call = {k: _per_prompt(k, v, tile, len(self.prompts)) for k, v in self.arguments.items()}
        if repeats:
            call |= {
                "prompt": prompts,
                "num_images_per_prompt": len(seeds),
            }  # a prompt is encoded once
        else:
            call = {
                k: [x for x in v for _ in seeds] if _is_prompt(k) and v else v
                for k, v in call.items()
            }
            call["prompt"] = [p for p in prompts for _ in seeds]
        call["generator"] = [torch.Generator("cpu").manual_seed(s) for _ in prompts for s in seeds]
        return call

    def _batch(self, record: Record, result: Any) -> Batch:
        selections = self.recorder.selections
        root, readings = record.root(), record.readings(selections)
        check_finite(record, selections, readings)
        arrays = dict(root)
        for selection in selections:
            if selection.name in readings:
                arrays[path_of(selection)] = flat_if_gram(selection, readings[selection.name].array)
        images = getattr(result, "images", None)
        if isinstance(images, np.ndarray) and images.ndim == 4:
            arrays["images"] = Array(
                ("sample", "row", "col", "rgb"), (images * 255).round().astype(np.uint8)
            )
        branches = {name: reading.branches for name, reading in readings.items()}
        return Batch(arrays, branches, record.schedule, record.unfired(selections), record.space)


def flat_if_gram(selection: Selection, array: Array) -> Array:
    """For a Gram matrix, all that is not sample, step or branch comes in one dimension."""
    if selection.reduction.name != "gram":
        return array
    kept = tuple(d for d in array.dims if d in ("sample", "step", "branch"))
    return Array((*kept, "flat"), array.data.reshape(*array.data.shape[: len(kept)], -1))


def _joined(*batches: Batch) -> Batch:
    first = batches[0]
    arrays = {
        path: Array(array.dims, np.concatenate([b.arrays[path].data for b in batches]))
        for path, array in first.arrays.items()
    }
    return first._replace(arrays=arrays)


def _is_prompt(name: str) -> bool:
    return name.startswith(("prompt_", "negative_prompt")) and not name.endswith(("embeds", "mask"))


def _per_prompt(name: str, value: Any, tile: Tile, prompts: int) -> Any:
    """A further prompt (negative, or of another encoder) for each of the tile's: one for all, or
    one a prompt.
    """
    if not _is_prompt(name) or value is None or name == "prompt_embeds":
        return value
    if isinstance(value, str):
        return [value] * len(tile.prompts)
    if len(value) != prompts:
        raise ValueError(
            f"{name} has {len(value)} entries for {prompts} prompts: expected a text, or one a "
            "prompt"
        )
    return [value[i] for i in tile.prompts]


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error).lower() for words in ("allocate memory", "not enough memory"))


def check_arguments(pipe: Any, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for a keyword that the trace sets itself, or that the pipeline does not
    take.
    """
    taken = [name for name in OURS if name in arguments]
    if taken:
        raise ValueError(f"{', '.join(taken)}: set by the trace itself, from its prompts and seeds")
    parameters = inspect.signature(pipe.__call__).parameters
    named = [
        n
        for n, p in parameters.items()
        if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL
    ]
    if len(named) < 3:  # a call that only passes on what it is given
        return
    # a pipeline's **kwargs takes two old names, and lets any misspelt one disappear
    unknown = [name for name in arguments if name not in {*named, "callback", "callback_steps"}]
    if unknown:
        near = nearest(unknown[0], named, 3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{type(pipe).__name__} takes no {', '.join(unknown)}{hint}")
