"""The pipelines that are shipped with the package: ``demo/base`` and its students."""

from __future__ import annotations

from pathlib import Path

from xhat.hooks.naming import UnknownName

WEIGHTS = Path(__file__).parents[1] / "weights"
DEMO = "demo"


def embedded() -> dict[str, Path]:
    """name → folder of every embedded pipeline, the base first."""
    order = ("base", "dmd", "lcm", "turbo", "paired")
    return {
        name: WEIGHTS / name for name in order if (WEIGHTS / name / "model_index.json").exists()
    }


def is_embedded(name: str) -> bool:
    """Whether a name is meant for an embedded pipeline, be there one or not."""
    return name.partition("/")[0] == DEMO and not Path(name).exists()


def embedded_folder(name: str) -> Path:
    """The folder of ``demo/<member>``; of ``demo``, the base's. Raises UnknownName."""
    folders = {f"{DEMO}/{member}": folder for member, folder in embedded().items()}
    whole = f"{DEMO}/base" if name == DEMO else name
    if whole not in folders:
        raise UnknownName("embedded model", name, folders, f"there are {', '.join(folders)}")
    return folders[whole]
