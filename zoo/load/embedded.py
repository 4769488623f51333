"""The pipelines that are shipped with the package: ``demo/base`` and its students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from xhat.hooks.model import state
from xhat.hooks.naming import UnknownName
from xhat.zoo.load.pipelines import defaults_of, load_pipeline

WEIGHTS = Path(__file__).parents[1] / "weights"
DEMO = "demo"
FAMILY = ("base", "dmd", "em", "turbo", "lcm", "lightning", "pruned", "dmd-late", "turbo-late")
"""Names of the embedded family: the base, the default student, the other students, the controls."""

LATE_TIMESTEPS = (999, 896, 692, 453)
"""SDXL's four timesteps of DMD2 (2405.14867) as a latent of side 8 would see them. At the
hand-over, 896, no more than 1.5 % of the variance is the picture's, and step two decides anew."""

CONTROLS = {"dmd-late": "dmd", "turbo-late": "turbo"}
"""Controls that commit late, and the student whose weights each is: on ``LATE_TIMESTEPS``."""

RETIRED = {"paired": "lcm"}
"""Embedded models that are gone, and what to take in their place."""


def embedded() -> dict[str, Path]:
    """name → folder of every embedded pipeline's weights, the base first."""
    folders = {name: WEIGHTS / CONTROLS.get(name, name) for name in FAMILY}
    return {name: path for name, path in folders.items() if (path / "model_index.json").exists()}


def embedded_defaults(name: str) -> dict[str, Any]:
    """Steps, guidance and timesteps that belong to a member of the family."""
    late = {"timesteps": list(LATE_TIMESTEPS)} if name in CONTROLS else {}
    return defaults_of(embedded()[name]) | late


def load_embedded(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """The pipeline of a member of the family, with its defaults."""
    return state(load_pipeline(embedded()[name], dtype=dtype), embedded_defaults(name))


def is_embedded(name: str) -> bool:
    """Whether a name is meant for an embedded pipeline, be there one or not."""
    return name.partition("/")[0] == DEMO and not Path(name).exists()


def embedded_member(name: str) -> str:
    """The member that ``demo/<member>`` names; of ``demo``, the base. Raises UnknownName, and
    ValueError for one that is retired.
    """
    refuse_retired(name)
    known = [f"{DEMO}/{member}" for member in embedded()]
    whole = f"{DEMO}/base" if name == DEMO else name
    if whole not in known:
        raise UnknownName("embedded model", name, known, f"there are {', '.join(known)}")
    return whole.partition("/")[2]


def refuse_retired(name: str) -> None:
    """Raise ValueError for an embedded model that is gone, naming its heir."""
    family, _, member = name.partition("/")
    if family == DEMO and member in RETIRED:
        raise ValueError(f"{name} is retired; take {DEMO}/{RETIRED[member]} in its place")
