"""What makes two values the same, in JSON's own types: for the identity of a run.

Functions are what their code, defaults, closure and the globals that they name are; objects are
their class and attributes; arrays, tensors and pictures their content. What cannot be told apart
from another value of its kind is not guessed at: :class:`Unidentified` names it."""

from __future__ import annotations

import enum
import functools
import hashlib
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

LIBRARIES = ("builtins", "diffusers", "functools", "numpy", "torch", "transformers")
SIMPLE = bool | int | float | str | None

BY_NAME = (
    types.BuiltinFunctionType,
    types.ModuleType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    np.ufunc,
)
"""Kinds of values of which there is one of a name."""


class Unidentified(ValueError):
    """A value that cannot be told from another of its kind."""


def identity(value: Any, parts: Mapping[int, str] | None = None) -> Any:
    """A value in JSON's types, equal for what is the same and different for what is not. Whole
    numbers are equal whatever their type: 1 is 1.0.

    ``parts``: names of objects, by ``id``, that are known from elsewhere, as the modules of the
    pipeline are. Raises Unidentified for what has no content that could be read: an open file, an
    iterator, an object of an extension without attributes.

    >>> identity(1.0), identity((1, 2.5)), identity(None)
    (1, [1, 2.5], None)
    >>> scaled = lambda factor: lambda x: factor * x
    >>> identity(scaled(2)) == identity(scaled(2)), identity(scaled(2)) == identity(scaled(3))
    (True, False)
    """
    return _Reader(dict(parts or {})).read(value)


class _Reader:
    """Reads one value. What it is in the middle of reading is named by its depth."""

    def __init__(self, parts: dict[int, str]) -> None:
        self.parts = parts

    def read(self, value: Any) -> Any:
        if isinstance(value, float):
            if not math.isfinite(value):
                return str(value)  # JSON has no infinity
            return int(value) if value.is_integer() else value
        if value is None or isinstance(value, bool | int | str):
            return value
        if id(value) in self.parts:
            return self.parts[id(value)]
        self.parts[id(value)] = f"part {len(self.parts)}"
        try:
            return self._read(value)
        finally:
            del self.parts[id(value)]

    def _read(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): self.read(v) for k, v in value.items()}
        if isinstance(value, list | tuple | range):
            return [self.read(v) for v in value]
        if isinstance(value, set | frozenset):
            return sorted((self.read(v) for v in value), key=str)
        if (content := _content(value)) is not None:
            return content
        if isinstance(value, functools.partial):
            return {"partial": [self.read(v) for v in (value.func, value.args, value.keywords)]}
        if isinstance(value, types.MethodType):
            return {"method": [self.read(value.__func__), self.read(value.__self__)]}
        if isinstance(value, types.FunctionType):
            return {"function": _name(value), "content": self._function(value)}
        if isinstance(value, type):
            return {"class": _name(value), "content": self._class(value)}
        if isinstance(value, BY_NAME):
            return _name(value)
        if isinstance(value, nn.Module):
            tensors = [*value.named_parameters(), *value.named_buffers()]
            return {"module": _name(type(value)), "weights": digest_of(tensors)}
        return self._object(value)

    def _function(self, function: types.FunctionType) -> list[Any]:
        used = {n: function.__globals__[n] for n in _names(function.__code__, function)}
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        content = [self._code(function.__code__)]
        if _from_library(function):
            used = {}
        parts = (function.__defaults__, function.__kwdefaults__, cells, used)
        return content + [self.read(part) for part in parts]

    def _code(self, code: types.CodeType) -> list[Any]:
        constants = [
            self._code(c) if isinstance(c, types.CodeType) else self.read(c)
            for c in code.co_consts
            if c is not Ellipsis
        ]
        return [code.co_code.hex(), list(code.co_names), constants]

    def _class(self, cls: type) -> list[Any]:
        """What is the user's own of a class; the libraries' is told by their versions."""
        own = [c for c in cls.__mro__ if not _from_library(c)]
        return [
            {k: self.read(v) for k, v in sorted(vars(c).items()) if _is_content(k, v)} for c in own
        ]

    def _object(self, value: Any) -> Any:
        cls = type(value)
        names = [n for c in cls.__mro__ for n in _slots(c)]
        state = {n: getattr(value, n) for n in names if hasattr(value, n)}
        state |= getattr(value, "__dict__", {})
        readable = hasattr(value, "__dict__") or names
        if not readable or isinstance(value, Iterator) or hasattr(value, "fileno"):
            raise Unidentified(f"a value of type {_name(cls)} cannot be told from another")
        return {"object": self.read(cls), "state": self.read(state)}


def _content(value: Any) -> Any:
    """Arrays, pictures and other values that are plain content; None for anything else."""
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)} {value.dtype} {digest_of([('', value)])[:32]}"
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            return [identity(x) for x in array.reshape(-1).tolist()]
        return f"array {array.shape} {array.dtype} {_sha(array.tobytes())}"
    if hasattr(value, "tobytes") and hasattr(value, "mode") and hasattr(value, "size"):
        palette = getattr(value, "getpalette", lambda: None)()
        content = value.tobytes() + bytes(palette or ())
        return f"picture {value.mode} {tuple(value.size)} {_sha(content)}"
    if hasattr(value, "to_dict") and hasattr(value, "data_vars"):  # of xarray
        return _sha(repr(value.to_dict(encoding=False)).encode())
    if isinstance(value, bytes | bytearray):
        return f"bytes {_sha(bytes(value))}"
    if isinstance(value, enum.Enum | PurePath | torch.dtype | torch.device | complex):
        return str(value)
    if isinstance(value, torch.Generator):
        return f"generator {_sha(value.get_state().numpy().tobytes())}"
    return None


def digest_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """sha256 of names, shapes, dtypes and every bit of tensors. Raises Unidentified for one whose
    data are not there (``meta``).
    """
    named = list(tensors)
    with ThreadPoolExecutor() as pool:  # hashing runs outside of Python's lock
        digests = list(pool.map(_tensor_digest, [t for _, t in named]))
    whole = hashlib.sha256()
    for (name, tensor), digest in zip(named, digests, strict=True):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {digest}\n".encode())
    return whole.hexdigest()


def _tensor_digest(tensor: torch.Tensor) -> str:
    if tensor.device.type == "meta":
        raise Unidentified("weights are on the meta device, without their data")
    if tensor.layout is not torch.strided or tensor.is_quantized:
        tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    flat = tensor.detach().reshape(-1).contiguous().cpu()
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _name(value: Any) -> str:
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", getattr(value, "__name__", type(value).__name__))
    return f"{module}.{name}" if module else str(name)


def _from_library(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in LIBRARIES


def _names(code: types.CodeType, function: types.FunctionType) -> list[str]:
    """Globals that a function's code, and that of the functions inside it, may read."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    names = {n for n in code.co_names if n in function.__globals__}
    return sorted(names.union(*(_names(c, function) for c in inner)))


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _slots(cls: type) -> list[str]:
    slots = vars(cls).get("__slots__", ())
    listed = [slots] if isinstance(slots, str) else list(slots)
    return [n for n in listed if n not in ("__dict__", "__weakref__")]


def _is_content(name: str, value: Any) -> bool:
    plain = isinstance(value, SIMPLE | types.FunctionType | list | tuple | dict)
    return (plain and not name.startswith("__")) or name in ("__call__", "__init__")
