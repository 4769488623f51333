"""What a trace says of where it came from: checkpoint, weights, scheduler, adapters, arguments,
versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn

from xhat.hooks.identity import Unidentified, identity
from xhat.hooks.model import model_of
from xhat.hooks.state import state_of, weights_of

VALUES_A_WEIGHT = 64


def describe(pipe: Any) -> dict[str, Any]:
    """Pipeline class and configuration, checkpoint, digest of its weights and of what was set on
    its modules since they were loaded, scheduler, adapters, precision. ``unidentified``, where
    there is something: what cannot be told from another of its kind.

    What was noted of the pipeline (:func:`xhat.hooks.model.note`) is added, a plan for instance.
    """
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    state, unknown = state_of(pipe)
    try:
        weights = weights_of(pipe)
    except Unidentified as error:
        weights, unknown = "unidentified", [*unknown, str(error)]
    described: dict[str, Any] = {
        "pipeline": type(pipe).__name__,
        "pipeline_config": _config(pipe),
        "checkpoint": _name_of(pipe, denoiser),
        "weights": weights,
        "state": state,
        "scheduler": type(pipe.scheduler).__name__,
        "scheduler_config": _config(pipe.scheduler),
        "adapters": adapters(denoiser),
        "dtype": str(next(denoiser.parameters()).dtype).removeprefix("torch."),
    }
    if unknown:
        described["unidentified"] = unknown
    extra = model_of(pipe).description
    return described | ({"description": jsonable(extra)} if extra else {})


def describe_call(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments of a call as what they are (:func:`xhat.hooks.identity.identity`), and the names
    of those that cannot be told from another value of their kind.
    """
    described, unknown = {}, []
    for name, value in arguments.items():
        try:
            described[name] = identity(value)
        except Unidentified as error:
            described[name] = "unidentified"
            unknown.append(f"{name} ({error})")
    return described, unknown


def _config(part: Any) -> dict[str, Any]:
    """Settings of a diffusers object, without its private notes, whose order is not the same
    twice.
    """
    return {
        k: jsonable(v)
        for k, v in dict(getattr(part, "config", {})).items()
        if not k.startswith("_")
    }


def _name_of(pipe: Any, denoiser: nn.Module) -> str:
    for owner in (pipe, denoiser):
        name = getattr(getattr(owner, "config", None), "_name_or_path", None)
        if name:
            return str(name)
    return ""


def fingerprint(pipe: Any) -> str:
    """A checkpoint's short mark, for files made with it: sha256 of the name, shape, dtype and 64
    evenly spaced values of every weight of every module of the pipeline.

    Two checkpoints that differ by training differ in all their weights. A run's identity reads
    every bit of them instead (:func:`xhat.hooks.state.weights_of`)."""
    digest = hashlib.sha256()
    for name, module in sorted(_modules(pipe).items()):
        state = {
            k: v for k, v in sorted(module.state_dict().items()) if isinstance(v, torch.Tensor)
        }
        digest.update(name.encode())
        for key, tensor in state.items():
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        samples = [_sample(tensor) for tensor in state.values() if tensor.device.type != "meta"]
        if samples:
            digest.update(torch.cat(samples).cpu().numpy().tobytes())
    return digest.hexdigest()


def _modules(pipe: Any) -> dict[str, nn.Module]:
    parts = getattr(pipe, "components", None) or {}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // VALUES_A_WEIGHT)][:VALUES_A_WEIGHT].double()


def adapters(denoiser: nn.Module) -> dict[str, list[float]]:
    """Active adapters with what their B·A is multiplied by, alpha/rank and weight together: each
    number once.
    """
    scales: dict[str, set[float]] = {}
    for module in denoiser.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, Mapping) and not getattr(module, "disable_adapters", False):
            for name in getattr(module, "active_adapters", scaling):
                if name in scaling:
                    scales.setdefault(name, set()).add(float(scaling[name]))
    return {name: sorted(values) for name, values in sorted(scales.items())}


@functools.cache
def versions() -> dict[str, str]:
    names = ("torch", "diffusers", "transformers", "xarray", "zarr", "numpy")
    return {
        "python": platform.python_version(),
        "xhat": version("xhat"),
        **{n: version(n) for n in names},
    }


def jsonable(value: Any) -> Any:
    """The same in JSON's own types. What has none is named by its class, tensors and pictures by
    their content.

    >>> jsonable({"sigmas": np.array([1.0, 0.5]), 3: (1, None)})
    {'sigmas': [1.0, 0.5], '3': [1, None]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic) and value.size <= 1024:
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(jsonable(v) for v in value)
    if isinstance(value, list | tuple | range):
        return [jsonable(v) for v in value]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return f"array {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
    return getattr(value, "__qualname__", type(value).__qualname__)


def canonical(value: Any) -> str:
    """JSON in one line with sorted keys: equal for equal content."""
    return json.dumps(jsonable(value), sort_keys=True, ensure_ascii=False)


def checksum(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(config).encode()).hexdigest()
