"""The table of a pipeline's hook points, with the shapes that a call of it gives."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from xhat.hooks.model import with_defaults
from xhat.hooks.points.names import Point, denoisers_of, find_points, named_points
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.protocols import Pipeline


class PointTable(Sequence[Point]):
    """The points of a pipeline: a sequence of :class:`Point` that prints as a table."""

    def __init__(self, points: Iterable[Point], title: str = "") -> None:
        self._points = tuple(points)
        self.title = title

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return find_points(self._points, index)[0]
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (p.alias, p.path, p.kind, shape_text(p.shape), bytes_text(p.bytes))
            for p in self._points
        ]

    def __repr__(self) -> str:
        head = ("alias", "path", "module", "shape of a sample", "bytes a step")
        rows = [head, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([self.title, *lines] if self.title else lines)

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>" for name in ("alias", "path", "module", "shape", "bytes a step")
        )
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows()
        )
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def points(pipe: Pipeline, **call_kwargs: Any) -> PointTable:
    """The hook points of a pipeline's denoiser: alias, module path, class, shape of one sample,
    bytes a step.

    The call is rehearsed on tensors without data, so that nothing is computed but the prompt.

    Parameters
    ----------
    pipe
        A diffusers pipeline.
    **call_kwargs
        Arguments of its call (height, width, …) for which shapes are given, over the checkpoint's
        own defaults.

    Returns
    -------
    PointTable
        A table for terminals and notebooks; its names are what ``hooks`` of :func:`xhat.trace`
        takes.

    Raises
    ------
    ValueError
        For an object that is no such pipeline.
    """
    networks = denoisers_of(pipe)
    named = named_points(networks)
    shapes = rehearse(pipe, named, **with_defaults(pipe, call_kwargs)).outputs
    order = {path: i for i, path in enumerate(shapes)}
    ran = sorted(named, key=lambda p: order.get(p.path, len(order)))
    table = [_with_shape(p, *shapes[p.path]) if p.path in shapes else p for p in ran]
    return PointTable(table, title=f"{type(networks[0]).__name__} of {type(pipe).__name__}")


def _with_shape(point: Point, shape: Sequence[int], dtype: torch.dtype) -> Point:
    return replace(point, shape=tuple(shape[1:]), bytes=math.prod(shape[1:]) * dtype.itemsize)


def shape_text(shape: Sequence[int] | None) -> str:
    return "?" if shape is None else " × ".join(str(n) for n in shape)


def bytes_text(count: float | None) -> str:
    """Bytes in the unit that suits them.

    >>> bytes_text(1536), bytes_text(None)
    ('1.5 KiB', '?')
    """
    if count is None:
        return "?"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
