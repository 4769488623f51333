"""Small pipelines with random weights, of every class of diffusers' that is made of the parts in
tests/models.py and tests/loops.py.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
STEPS = 4
SEEDS = 0, 1
LARGE = (
    "QwenImageEditInpaintPipeline",
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
    "QwenImageLayeredPipeline",
)
"""Whose calls bring every picture to a size that small networks do not help with."""


def tests_module(name: str) -> Any:
    """The builders of tests/models.py and tests/loops.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache
def donors() -> dict[str, Callable[[int], tuple[Any, dict[str, Any]]]]:
    """name → builder of a pipeline and its call, by a seed; the most particular first."""
    tiny, loops = tests_module("models"), tests_module("loops")

    def simple(name: str) -> Callable[[int], tuple[Any, dict[str, Any]]]:
        prompts = {"prompt": ["a red planet", "a robot"]}
        return lambda seed: (tiny.build(name, seed), prompts | tiny.call_arguments(name))

    builders = {name: simple(name) for name in tiny.NAMES}
    looped = {f"{name}, embeddings": partial(make, tiny) for name, make in loops.BUILDERS.items()}
    return {name: lru_cache(make) for name, make in (builders | looped).items()}


def classes() -> list[type]:
    """The pipelines of the installed diffusers that denoise pictures or videos for a prompt."""
    names = [n for n in dir(diffusers) if n.endswith("Pipeline")]
    every = [getattr(diffusers, n) for n in names if not n.startswith(("Auto", "Modular"))]
    kinds = [k for k in every if inspect.isclass(k) and issubclass(k, diffusers.DiffusionPipeline)]
    return [k for k in kinds if "prompt" in parameters(k.__call__) and "Audio" not in k.__name__]


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def of_parts(kind_: type, donor: Any) -> Any | None:
    """A pipeline of a class made of another's parts; None where they are not its parts."""
    parts = {n: copy.deepcopy(p) for n, p in donor.components.items() if p is not None}
    if kind_.__name__.startswith("LatentConsistency"):
        parts["scheduler"] = diffusers.LCMScheduler.from_config(donor.scheduler.config)
    wanted = {n: p for n, p in parameters(kind_.__init__).items() if n != "self"}
    arguments = {}
    for name, parameter in wanted.items():
        if name in parts:
            part = parts[name]
            if isinstance(part, torch.nn.Module) and not _fits(part, parameter):
                return None
            arguments[name] = part
        elif name == "controlnet":
            return None
        elif parameter.default is parameter.empty:
            arguments[name] = None
    networks = [n for n in ("unet", "transformer") if n in wanted]
    if not networks or any(n not in parts for n in networks):
        return None
    if "requires_safety_checker" in wanted:
        arguments["requires_safety_checker"] = False
    try:
        return kind_(**arguments)
    except Exception:  # parts of another kind than the class takes
        return None


def _fits(part: torch.nn.Module, parameter: inspect.Parameter) -> bool:
    """Whether a network is of a class that the parameter's annotation names."""
    names = {base.__name__ for base in type(part).__mro__}
    text = str(parameter.annotation)
    if parameter.name in ("unet", "transformer", "controlnet"):
        return any(n in text for n in names if n not in ("object", "Module", "ModelMixin"))
    return True


def pictures(call: dict[str, Any], count: int) -> dict[str, Any]:
    """What a class may be called with beside prompts, where it takes it."""
    width, height = call.get("width", 16), call.get("height", 16)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    return {
        "image": picture if count == 1 else [picture] * count,
        "control_image": picture if count == 1 else [picture] * count,
        "mask_image": Image.fromarray(mask),
        "video": [picture] * 5,
        "strength": 1.0,
        "original_inference_steps": 50,
        "_auto_resize": False,
        "max_area": width * height,
    }


class Built(NamedTuple):
    """A small pipeline of a class, another with other weights, and the arguments of a call."""

    base: Any
    other: Any
    call: dict[str, Any]

    def draw(self, pipe: Any, **extra: Any) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        call = {**self.call, "num_inference_steps": STEPS, **extra}
        return _tensor(pipe(generator=generators, output_type="latent", **call)[0])


def _tensor(value: Any) -> torch.Tensor:
    return torch.stack(list(value)) if isinstance(value, list) else torch.as_tensor(value)


def build(kind_: type) -> tuple[Built | None, str]:
    """A pipeline of a class that runs its call, and why there is none."""
    if kind_.__name__ in LARGE:
        return None, "its call makes a large picture of a small one"
    reason = "no small network of its kind"
    taken = parameters(kind_.__call__)
    for make in donors().values():
        donor, call = make(0)
        base, other = of_parts(kind_, donor), of_parts(kind_, make(1)[0])
        if base is None or other is None:
            continue
        for pipe in (base, other):
            pipe.set_progress_bar_config(disable=True)
        for count in (1, 2):  # one picture for both prompts, or one each
            given = {n: v for n, v in (pictures(call, count) | call).items() if n in taken}
            built = Built(base, other, given)
            try:
                built.draw(base)
            except Exception as error:
                reason = f"its call needs more than these parts: {one_line(error)}"
            else:
                return built, ""
    return None, reason


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).replace("|", "\\|")
    return f"{type(error).__name__}: {text[:160]}"
