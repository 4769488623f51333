"""The sliders of the embedded family: which attribute each turns, where they are, what their files
say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xhat.hooks.naming import suggestion
from xhat.zoo.load.embedded import WEIGHTS
from xhat.zoo.load.files import metadata

SHIPPED = WEIGHTS / "sliders"


@dataclass(frozen=True)
class Attribute:
    """An attribute that a slider turns, in the words of the captions and in those of the judge.

    ``kind`` and ``attribute`` name the judge's head, ``up`` and ``down`` the values that a positive
    and a negative scale lead to (:mod:`xhat.zoo.family.attributes`). ``training``: settings other
    than the usual."""

    target: str
    positive: str
    negative: str
    kind: str
    attribute: str
    up: str
    down: str
    training: Mapping[str, Any] = field(default_factory=dict)


def _critter(positive: str, negative: str, attribute: str, up: str, down: str) -> Attribute:
    return Attribute("a critter", positive, negative, "critter", attribute, up, down)


SLIDERS: dict[str, Attribute] = {
    "square": _critter("a square critter", "a round critter", "shape", "square", "round"),
    "horns": _critter("a critter with horns", "a critter with no horns", "top", "horns", "nothing"),
    "happy": _critter("a happy critter", "a sad critter", "mood", "happy", "sad"),
    "big": Attribute(
        "a planet", "a big planet", "a small planet", "planet", "size", "big", "small"
    ),
    "ring": Attribute(
        "a planet", "a planet with a ring", "a planet with no ring", "planet", "ring", "a", "no"
    ),
    "red": Attribute(
        "a planet",
        "a red planet",
        "a blue planet",
        "planet",
        "colour",
        "red",
        "blue",
        {"eta": 0.5, "steps": 100},
    ),  # of seven colours in a row: a whole η goes past red
    "palm": Attribute("a plant", "a palm", "a cactus", "plant", "plant", "palm", "cactus"),
}
"""name → what it turns. Chosen by whether the base follows the two captions, not by how the slider
came out."""

ON_STUDENT = ("square", "happy", "big")
"""Sliders that are also trained on the student ``dmd``, to be carried back to the base."""


def shipped(model: str | None = None) -> dict[str, Path]:
    """name → file of the sliders that come with the family, of one model (``"base"``, ``"dmd"``) or
    of all.

    Those trained on a student are named after it: ``square@dmd``.
    """
    files = {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}
    return {
        name: path
        for name, path in files.items()
        if model in (None, trained_on(path).split("/")[-1])
    }


def file_of(slider: str) -> Path:
    """The file of a slider, by the name of a shipped one or by its path, which may be that of a
    folder. Raises ValueError for neither, with the nearest names.
    """
    there = shipped()
    path = there.get(slider, Path(slider).expanduser())
    if not path.exists():
        raise ValueError(
            f"no LoRA file {slider!r}, nor is it the name of a shipped slider: "
            f"{', '.join(there) or 'none'}{suggestion(slider, there)}"
        )
    return path


def find_slider(slider: str, prompt: str | None = None) -> tuple[Path, str]:
    """The file of a slider (:func:`file_of`), and ``prompt`` or what it was trained for.

    Raises ValueError for a file that names no prompt where none is given."""
    path = file_of(slider)
    target = prompt or (notes(path).get("target") if path.suffix == ".safetensors" else None)
    if not target:
        raise ValueError(f"{path} does not say for which prompt it was trained: give one")
    texts = [target] if isinstance(target, str) else target
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"{path} names {target!r:.80} as the prompt it was trained for: expected text; give one"
        )
    return path, texts[0]


def notes(path: Path) -> dict[str, Any]:
    """How a LoRA file says it was made: objective, prompts, model and fingerprint of its weights,
    settings. Raises ValueError for a file that is not whole.
    """
    return {key: _parsed(value) for key, value in metadata(path).items() if key != "format"}


def trained_on(path: Path) -> str:
    """The model a LoRA file says it was trained on."""
    return str(notes(path).get("model", ""))


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
