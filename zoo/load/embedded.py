"""The pipelines that are shipped with the package: ``demo/base`` and its students."""

from __future__ import annotations

from pathlib import Path

from xhat.hooks.naming import UnknownName

WEIGHTS = Path(__file__).parents[1] / "weights"
DEMO = "demo"
FAMILY = ("base", "turbo", "dmd", "lcm", "lightning", "pruned", "em", "turbo-late", "dmd-late")
"""Names of the embedded family: the base, the default student, the other students, the controls."""

RETIRED = {"paired": "lcm"}
"""Embedded models that are gone, and what to take in their place."""


def embedded() -> dict[str, Path]:
    """name → folder of every embedded pipeline, the base first."""
    return {
        name: WEIGHTS / name for name in FAMILY if (WEIGHTS / name / "model_index.json").exists()
    }


def is_embedded(name: str) -> bool:
    """Whether a name is meant for an embedded pipeline, be there one or not."""
    return name.partition("/")[0] == DEMO and not Path(name).exists()


def embedded_folder(name: str) -> Path:
    """The folder of ``demo/<member>``; of ``demo``, the base's. Raises UnknownName, and ValueError
    for one that is retired.
    """
    refuse_retired(name)
    folders = {f"{DEMO}/{member}": folder for member, folder in embedded().items()}
    whole = f"{DEMO}/base" if name == DEMO else name
    if whole not in folders:
        raise UnknownName("embedded model", name, folders, f"there are {', '.join(folders)}")
    return folders[whole]


def refuse_retired(name: str) -> None:
    """Raise ValueError for an embedded model that is gone, naming its heir."""
    family, _, member = name.partition("/")
    if family == DEMO and member in RETIRED:
        raise ValueError(f"{name} is retired; take {DEMO}/{RETIRED[member]} in its place")
