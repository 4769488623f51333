"""Reductions: what is kept of an activation, computed on the device where it is made.

An activation is a map (sample, channel, height, width), a row of tokens (sample, token, channel), a
vector (sample, channel), or, for attention probabilities, (sample, query, key) a head. A reduction
keeps the first dimension."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange

NAMES = ("mean", "pool", "project", "full", "gram")
LARGEST = 1024  # side of a pooled map, in positions
WIDEST = 2**16  # dimensions of a projection
_DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
_SPATIAL = {
    4: (2, 3),
    5: (2, 3, 4),
    3: (1,),
    2: (),
}  # where the places are; the other dimension is the feature


@dataclass(frozen=True)
class Reduction:
    """What is kept of an activation. Made by :func:`mean`, :func:`pool`, :func:`project`,
    :func:`full`, :func:`gram`.

    Called on a tensor it gives the reduced one, first dimension unchanged. ``str`` gives what
    :func:`parse_reduction` reads."""

    name: str
    size: int | None = None
    seed: int | None = None
    dtype: str | None = None
    of: Reduction | None = None

    def __str__(self) -> str:
        parts = [str(v) for v in (self.of, self.size) if v is not None]
        parts += [
            f"{k}={v}" for k, v in (("seed", self.seed), ("dtype", self.dtype)) if v is not None
        ]
        return f"{self.name}({', '.join(parts)})" if parts else self.name

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim not in _SPATIAL:
            raise ValueError(
                f"cannot reduce an activation of shape {tuple(x.shape)}: expected 2 to 5 dimensions"
            )
        out = _REDUCE[self.name](self, x)
        return out if self.dtype is None else out.to(_DTYPES[self.dtype])

    def dims(self, ndim: int) -> tuple[str, ...]:
        """Names of the dimensions that are kept of an activation of ``ndim`` dimensions, the sample
        left out.
        """
        match self.name:
            case "mean":
                return ("feature",)
            case "project":
                return ("component",)
            case "gram":
                return ("flat",)
        places = {4: ("h", "w"), 5: ("frame", "h", "w"), 2: ()}
        if ndim == 3:
            return ("token", "feature")
        return ("feature", *places[ndim])


def mean(*, dtype: str | None = None) -> Reduction:
    """Average over places: one number a channel; of attention, how much each key is looked at on
    average.

    Parameters
    ----------
    dtype
        In which the result is kept, such as ``"float16"``. None: that of the tensor.

    Returns
    -------
    Reduction
        For ``hooks`` of :func:`xhat.trace`, where its text, ``"mean"``, will do too.

    Examples
    --------
    >>> mean()(torch.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[1.5000, 5.5000]])
    """
    return Reduction("mean", dtype=_dtype(dtype))


def pool(size: int, *, dtype: str | None = None) -> Reduction:
    """Average over a grid of ``size`` × ``size`` cells.

    Parameters
    ----------
    size
        Cells a side. Tokens of a square picture are pooled as one, others in a row.
    dtype
        In which the result is kept, such as ``"float16"``. None: that of the tensor.

    Returns
    -------
    Reduction
        For ``hooks`` of :func:`xhat.trace`, where its text, ``"pool(4)"``, will do too.

    Examples
    --------
    >>> pool(1)(torch.arange(8.0).reshape(1, 2, 2, 2)).shape
    torch.Size([1, 2, 1, 1])
    """
    return Reduction("pool", size=_positive("pool", size, LARGEST), dtype=_dtype(dtype))


def project(dim: int, seed: int = 0, *, dtype: str | None = None) -> Reduction:
    """Project all numbers of a sample on ``dim`` random directions, the same for every tensor of
    that size.

    Each number is added, with a random sign, to one of ``dim`` components of equal share: a sparse
    random matrix S with E⟨Sx, Sy⟩ = ⟨x, y⟩ that needs neither its P × dim entries nor their
    products.

    Parameters
    ----------
    dim
        Directions: numbers a sample that are kept.
    seed
        Of the random matrix.
    dtype
        In which the result is kept, such as ``"float16"``. None: that of the tensor.

    Returns
    -------
    Reduction
        For ``hooks`` of :func:`xhat.trace`, where its text, ``"project(64)"``, will do too.

    References
    ----------
    Charikar et al. 2002, "Finding frequent items in data streams"; Weinberger et al. 2009, arXiv
    0902.2206.

    Examples
    --------
    >>> x = torch.randn(2, 3, 8, 8)
    >>> project(16)(x).shape
    torch.Size([2, 16])
    """
    return Reduction(
        "project", size=_positive("project", dim, WIDEST), seed=int(seed), dtype=_dtype(dtype)
    )


def full(*, dtype: str | None = None) -> Reduction:
    """Keep everything.

    Parameters
    ----------
    dtype
        In which the result is kept, such as ``"float16"``. None: that of the tensor.

    Returns
    -------
    Reduction
        For ``hooks`` of :func:`xhat.trace`, where its text, ``"full"``, will do too.
    """
    return Reduction("full", dtype=_dtype(dtype))


def gram(of: Reduction | str = "full") -> Reduction:
    """Keep the Gram matrix of all samples of the run instead of their activations: n² numbers a
    point and step.

    K = X_c·X_cᵀ in float64, X_c the activations less their mean over samples, so that a large
    common offset costs no digits. It is made when the last sample is in; until then the activations
    wait in the store.

    Parameters
    ----------
    of
        Reduction, or its text, of the activations that the matrix is made of.

    Returns
    -------
    Reduction
        For ``hooks`` of :func:`xhat.trace`, where its text, ``"gram"``, will do too.
    """
    inner = parse_reduction(of) if isinstance(of, str) else of
    if inner.name == "gram":
        raise ValueError("gram of a gram: give it mean, pool, project or full")
    return Reduction("gram", of=inner)


def parse_reduction(text: str | Reduction) -> Reduction:
    """The reduction that a text such as ``"mean"``, ``"project(256, seed=1)"`` or ``"gram(mean)"``
    names.

    >>> parse_reduction("project(256)") == project(256)
    True
    >>> str(parse_reduction("full(dtype=float16)"))
    'full(dtype=float16)'
    """
    if isinstance(text, Reduction):
        return text
    try:
        name, args, kwargs = _call_of(ast.parse(text.replace("\0", "?").strip(), mode="eval").body)
        return _MAKE[name](*args, **kwargs)
    except (SyntaxError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{text!r} is no reduction: expected mean, pool(n), project(dim, seed=0), full or "
            "gram(of), "
            "each with dtype=float16 or float32 if wanted"
        ) from error


def _call_of(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise SyntaxError("neither a name nor a call")
    return (
        node.func.id,
        [_value(a) for a in node.args],
        {k.arg or "": _value(k.value) for k in node.keywords},
    )


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    return ast.unparse(
        node
    )  # float16, mean, project(8): names and calls are read by whoever takes them


def _positive(name: str, value: int, most: int) -> int:
    if not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name}({value!r}): expected a whole number above 0, {most} at most")
    return value


def _dtype(dtype: Any) -> str | None:
    name = str(dtype).removeprefix("torch.") if dtype is not None else None
    if name is not None and name not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} of a reduction: expected one of {', '.join(_DTYPES)}")
    return name


def _mean(_: Reduction, x: torch.Tensor) -> torch.Tensor:
    places = _SPATIAL[x.ndim]
    return x.mean(places) if places else x


def _pool(r: Reduction, x: torch.Tensor) -> torch.Tensor:
    assert r.size is not None
    match x.ndim:
        case 2:
            return x
        case 3:
            side = math.isqrt(x.shape[1])
            if side * side == x.shape[1]:
                grid = rearrange(x, "sample (y x) channel -> sample channel y x", y=side)
                pooled = torch.nn.functional.adaptive_avg_pool2d(grid, r.size)
                return rearrange(pooled, "sample channel y x -> sample (y x) channel")
            row = rearrange(x, "sample token channel -> sample channel token")
            pooled = torch.nn.functional.adaptive_avg_pool1d(row, r.size)
            return rearrange(pooled, "sample channel token -> sample token channel")
        case 4:
            return torch.nn.functional.adaptive_avg_pool2d(x, r.size)
        case _:
            return torch.nn.functional.adaptive_avg_pool3d(x, (x.shape[2], r.size, r.size))


def _project(r: Reduction, x: torch.Tensor) -> torch.Tensor:
    assert r.size is not None
    assert r.seed is not None
    flat = x.flatten(1)
    order, sign = _sketch(flat.shape[1], r.size, r.seed, flat.device, flat.dtype)
    padded = torch.nn.functional.pad(flat, (0, len(order) - flat.shape[1]))
    return (
        (padded.index_select(1, order) * sign)
        .unflatten(1, (r.size, -1))
        .sum(2, dtype=torch.float32)
    )


@functools.lru_cache(maxsize=128)
def _sketch(
    count: int, dim: int, seed: int, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    """Which number goes to which component (dim equal runs of a permutation), and its sign. Made on
    the CPU, so that it is the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    total = -(-count // dim) * dim
    order = torch.randperm(total, generator=generator)
    sign = torch.randint(0, 2, (total,), generator=generator) * 2 - 1
    return order.to(device), sign.to(device, dtype)


def _full(_: Reduction, x: torch.Tensor) -> torch.Tensor:
    return x


def _gram(r: Reduction, x: torch.Tensor) -> torch.Tensor:
    assert r.of is not None
    return r.of(x).flatten(1).float()


_REDUCE: dict[str, Callable[[Reduction, torch.Tensor], torch.Tensor]] = {
    "mean": _mean,
    "pool": _pool,
    "project": _project,
    "full": _full,
    "gram": _gram,
}
_MAKE: dict[str, Callable[..., Reduction]] = {
    "mean": mean,
    "pool": pool,
    "project": project,
    "full": full,
    "gram": gram,
}
