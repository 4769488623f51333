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
from xhat.hooks.record.final import LEFT_OUT, check_final
from xhat.hooks.record.packing import unpacked
from xhat.hooks.record.record import Array, Record, check_finite
from xhat.hooks.record.recorder import Recorder
from xhat.hooks.store.schema import path_of
from xhat.hooks.store.tiles import Tile

OURS = ("prompt", "generator", "num_images_per_prompt", "latents", "prompt_embeds", "return_dict")


# arguments that may hold one picture a prompt; in lists, of ControlNets, one a network
PICTURES = (
    "image",
    "init_image",
    "original_image",
    "input_image",
    "mask",
    "mask_image",
    "control_image",
    "control_mask",
    "conditioning_image",
    "depth_map",
)
VIDEOS = ("video", "control_video", "conditioning_frames")


class Batch(NamedTuple):
    """A tile's arrays by path, the labels of the branch axis by point, the schedule, and what never
    fired.
    """

    arrays: dict[str, Array]
    branches: dict[str, tuple[str, ...]]
    schedule: dict[str, np.ndarray]
    unfired: list[str]
    notes: dict[str, str]


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
        if not records:
            raise ValueError(f"nothing was traced: {self.recorder.silence()}")
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
        call, apart = per_prompt(self.pipe, self.arguments, tile, len(self.prompts))
        repeats = "num_images_per_prompt" in inspect.signature(self.pipe.__call__).parameters
        if repeats and not apart:
            call |= {
                "prompt": prompts,
                "num_images_per_prompt": len(seeds),
            }  # a prompt is encoded once
            one = {k: v for k, v in call.items() if _is_prompt(k) and isinstance(v, str)}
            call |= {k: [v] * len(prompts) for k, v in one.items()}  # FLUX does not repeat it
        else:
            each = {k for k in call if _is_prompt(k) and call[k]} | apart
            call = {k: _repeated(v, len(seeds)) if k in each else v for k, v in call.items()}
            call["prompt"] = [p for p in prompts for _ in seeds]
        call["generator"] = [torch.Generator("cpu").manual_seed(s) for _ in prompts for s in seeds]
        return call

    def _batch(self, record: Record, result: Any) -> Batch:
        selections = self.recorder.selections
        callback = any("callback" in name and v for name, v in self.arguments.items())
        check_final(record, getattr(self.pipe, "vae", None), self._returned(result), callback)
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
        notes = notes_of(record)
        return Batch(arrays, branches, record.schedule, record.unfired(selections), notes)

    def _returned(self, result: Any) -> torch.Tensor | None:
        """The latents that the call returned, if it did, laid out as those of its steps are."""
        value = getattr(result, "images", getattr(result, "frames", None))
        if self.arguments.get("output_type") != "latent" or not isinstance(value, torch.Tensor):
            return None
        return unpacked(self.pipe, value, self.recorder.size)


def notes_of(record: Record) -> dict[str, str]:
    """What the attributes of a trace say of a record."""
    return {"space": record.space} | ({} if record.final is not None else {"final": LEFT_OUT})


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
    texts = name.startswith(("prompt_", "negative_prompt"))
    return texts and not name.endswith(("embeds", "mask", "image"))


def per_prompt(
    pipe: Any, arguments: Mapping[str, Any], tile: Tile, prompts: int
) -> tuple[dict[str, Any], set[str]]:
    """The arguments of a tile's prompts, and the names of those that hold a picture or embedding
    for each of them.

    A pipeline pairs several pictures with a batch in one of three ways, and none of them knows of
    prompts that are repeated: they are given one a sample. Raises ValueError for any other number
    than one for all or one a prompt."""
    call, apart = {}, set()
    for name, value in arguments.items():
        if _is_prompt(name) and value is not None:
            call[name] = _texts(name, value, tile, prompts)
        elif _is_one_a_prompt(pipe, name, value, prompts):
            call[name] = _rows(value, list(tile.prompts))
            apart.add(name)
        else:
            call[name] = value
    return call, apart


def _texts(name: str, value: Any, tile: Tile, prompts: int) -> list[Any]:
    """A further prompt (negative, or of another encoder) for each of the tile's: one for all, or
    one a prompt.
    """
    if isinstance(value, str):
        return [value] * len(tile.prompts)
    _check_number(name, len(value), prompts)
    return [value[i] for i in tile.prompts]


def _is_one_a_prompt(pipe: Any, name: str, value: Any, prompts: int) -> bool:
    number = _number(name, value)
    several_nets = name in PICTURES and hasattr(getattr(pipe, "controlnet", None), "nets")
    if several_nets:  # a list there is one a network
        if any(_number(name, entry) not in (None, 1) for entry in value):
            raise ValueError(
                f"{name} holds several pictures for a ControlNet: expected one for each network, "
                "the same for all prompts"
            )
        return False
    if number is None or number == 1:
        return False
    _check_number(name, number, prompts)
    return True


def _number(name: str, value: Any) -> int | None:
    """How many pictures, videos or rows of embeddings an argument holds; None where it is none, or
    one that comes without a batch.
    """
    ndim = getattr(value, "ndim", None)
    if name in PICTURES or name in VIDEOS:
        whole = 4 if name in PICTURES else 5
        if ndim is not None:
            return len(value) if ndim >= whole or (ndim == 3 and "mask" in name) else None
        if isinstance(value, list | tuple):
            nested = value and isinstance(value[0], list | tuple)
            return len(value) if name in PICTURES or nested else None
        return None
    if name.endswith(("embeds", "embeds_mask", "attention_mask")) and ndim is not None:
        return len(value) if ndim > 1 else None
    return None


def _check_number(name: str, number: int, prompts: int) -> None:
    if number != prompts:
        raise ValueError(
            f"{name} has {number} entries for {prompts} prompts: expected one for all, or one a "
            "prompt"
        )


def _rows(value: Any, positions: list[int]) -> Any:
    """Entries of a list, or rows of an array."""
    return [value[i] for i in positions] if isinstance(value, list | tuple) else value[positions]


def _repeated(value: Any, times: int) -> Any:
    """Every entry or row, so many times in a row."""
    return _rows(value, [i for i in range(len(value)) for _ in range(times)])


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
