"""The shape of a trace: its variables, coordinates and attributes, before there is any data in it.

It is read from the first batch that was sampled, so that nothing has to be guessed about a
pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xhat.hooks.points.select import Selection
from xhat.hooks.record.record import Array

ACTIVATIONS, SCRATCH = "activations", "scratch"
SAMPLES = ("prompt", "seed")


@dataclass(frozen=True)
class Variable:
    """One array of a trace: dimensions and sizes without those of the samples."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Schema:
    """``variables``: path → variable, ``pred_x0`` or ``activations/h/value``; ``coords``: group →
    name → (dim, values); ``attrs``: group → attributes."""

    variables: Mapping[str, Variable]
    coords: Mapping[str, Mapping[str, tuple[str, np.ndarray]]]
    attrs: Mapping[str, Mapping[str, Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of one sample, uncompressed."""
        return sum(v.nbytes for v in self.variables.values())

    @property
    def grams(self) -> list[str]:
        """Names of the points whose Gram matrix is wanted."""
        return [path.split("/")[1] for path in self.variables if path.startswith(f"{SCRATCH}/")]


def path_of(selection: Selection) -> str:
    """Where a selection's data goes while sampling: what waits to become a Gram matrix stands
    apart.
    """
    group = SCRATCH if selection.reduction.name == "gram" else ACTIVATIONS
    return f"{group}/{selection.name}/value"


def schema_of(
    arrays: Mapping[str, Array],
    branches: Mapping[str, tuple[str, ...]],
    selections: Sequence[Selection],
    schedule: Mapping[str, np.ndarray],
    root: Mapping[str, Any],
) -> Schema:
    """The schema that a batch's arrays (by path) have; ``branches``: labels of each point's branch
    axis.
    """
    variables = {p: Variable(a.dims[1:], a.data.shape[1:], a.data.dtype) for p, a in arrays.items()}
    coords: dict[str, dict[str, tuple[str, np.ndarray]]] = {
        "": {k: ("step", v) for k, v in schedule.items()}
    }
    attrs: dict[str, dict[str, Any]] = {"": dict(root)}
    for selection in selections:
        if selection.name not in branches:
            continue
        group, point, labels = (
            f"{ACTIVATIONS}/{selection.name}",
            selection.point,
            branches[selection.name],
        )
        attrs[group] = {"point": point.path, "module": point.kind, "reading": selection.reading}
        attrs[group]["reduction"] = str(selection.reduction)
        coords[group] = {"branch": ("branch", np.array(labels))} if labels else {}
    return Schema(variables, coords, attrs)
