"""Pictures of the embedded family's world: scenes rendered offline with DiceBear avatar styles (CC0
1.0).

The styles come from the PyPI package ``dicebear-styles``; each one used here is by DiceBear and
under CC0 1.0 (``LICENCES``). The drawings are changed where 64 pixels would hide what a caption
says: mouths, moons and suns are enlarged, hills are steepened, palettes are named colours.
Rendering needs the ``zoo`` extra; using the trained weights does not."""

from __future__ import annotations

import colorsys
import io
import json
import random
from functools import cache
from typing import Any

import numpy as np

from xhat.zoo.family.attributes import Scene

LICENCES = dict.fromkeys(
    ("critters", "sprouts", "planets", "landscape", "pixelbot", "cutouts"),
    "CC0 1.0, DiceBear (https://www.dicebear.com)",
)
SIZE = 64

_INK = {
    "red": "#f87171",
    "orange": "#fb923c",
    "yellow": "#fde047",
    "green": "#84cc16",
    "blue": "#60a5fa",
    "purple": "#c084fc",
    "white": "#f1f5f9",
}
_BACK = {
    "red": "#9f1239",
    "orange": "#c2410c",
    "green": "#047857",
    "blue": "#1d4ed8",
    "purple": "#6d28d9",
    "black": "#1e293b",
}
_SPACE = {
    "red": "#5f0f24",
    "orange": "#7c2d12",
    "green": "#064e3b",
    "blue": "#1e3a8a",
    "purple": "#4c1d95",
    "black": "#0b1120",
}
_SKY = {
    "red": "#fda4af",
    "orange": "#fed7aa",
    "green": "#bbf7d0",
    "blue": "#bae6fd",
    "purple": "#ddd6fe",
    "black": "#1e293b",
}
_HILL = {
    "red": (0.99, 0.62),
    "orange": (0.075, 0.72),
    "yellow": (0.135, 0.75),
    "green": (0.33, 0.45),
    "blue": (0.585, 0.6),
    "purple": (0.76, 0.45),
    "white": (0.6, 0.06),
}

_MOUTH = {"happy": "grin", "sad": "frown", "surprised": "open", "toothy": "teeth"}

# Where the style draws a part, and where we draw it instead, large enough for 64 pixels.
_MOVED: dict[str, dict[str, str | int]] = {
    "critters": {"mouth": "translate(28 57) scale(1.5)", "eyes": "translate(24 33) scale(1.13)"},
    "sprouts": {"mouth": "translate(36 78) scale(1.4)"},
    "planets": {"moons": "translate(9 9) scale(1.38)", "ring": "translate(-7 30) scale(1.19)"},
    "landscape": {
        "orb": "translate(35 0) scale(1.35)",
        "hill1": 24,
        "hill2": 44,
        "hill3": 62,
        "hill4": 78,
    },
}


@cache
def _style(name: str, steep: float = 1.0) -> Any:
    """A DiceBear style with its parts moved as ``_MOVED`` says."""
    from importlib.resources import files

    from dicebear import Style

    definition = json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8"))
    moved = _MOVED.get(name, {})

    def walk(elements: list[dict[str, Any]]) -> None:
        for element in elements:
            if element["type"] == "component" and element["name"] in moved:
                transform = moved[element["name"]]
                if isinstance(
                    transform, int
                ):  # a hill: stretched, and lowered so that its crest stays in place
                    transform = f"translate(0 {transform - 14 * (steep - 1):.1f}) scale(1 {steep})"
                element["attributes"] = {"transform": transform}
            walk(element.get("children", []))

    walk(definition["canvas"]["elements"])
    return Style(definition)


def _jitter(colour: str, rng: random.Random, amount: float = 0.04) -> str:
    """A near colour: hue, lightness and saturation each moved a little, so that a colour is a mode
    with width.
    """
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    h, l, s = colorsys.rgb_to_hls(r, g, b)
    h = (h + rng.uniform(-amount, amount) * 0.35) % 1
    l = min(max(l + rng.uniform(-amount, amount), 0), 1)
    return _hex(h, l, min(max(s + rng.uniform(-amount, amount), 0), 1))


def _hex(h: float, l: float, s: float) -> str:
    return "#" + "".join(f"{round(c * 255):02x}" for c in colorsys.hls_to_rgb(h, l, s))


def _critter(v: dict[str, str], rng: random.Random) -> tuple[str, float, dict[str, Any]]:
    shape = {
        "round": "squat",
        "square": "block",
        "thin": "tower",
        "pointy": "peak",
        "bell": "bell",
        "stepped": "steps",
    }
    top = {"horns": "horns", "antennae": "earsRound", "ears": "earsPointy", "spikes": "spikes"}
    return "critters", 1.0, {
        "bodyColor": _jitter(_INK[v["colour"]], rng),
        "accentColor": "#fbcfe8",
        "backgroundColor": _jitter(_BACK[v["background"]], rng),
        "bodyVariant": shape[v["shape"]],
        "eyesVariant": {"one": "mono", "two": "round", "three": "trio"}[v["eyes"]],
        "mouthVariant": _MOUTH[v["mood"]],
        "topVariant": top.get(v["top"], "horns"),
        "topProbability": 0 if v["top"] == "nothing" else 100,
        "patternProbability": 0,
        "cheeksProbability": 0,
        "translateX": rng.uniform(-8, 8),
    }  # fmt: skip


def _plant(v: dict[str, str], rng: random.Random) -> tuple[str, float, dict[str, Any]]:
    return "sprouts", 1.0, {
        "potColor": _jitter(_INK[v["colour"]], rng),
        "plantColor": _jitter("#4ade80", rng),
        "bloomColor": _jitter("#f9a8d4", rng),
        "backgroundColor": _jitter(_BACK[v["background"]], rng),
        "plantVariant": {"leaf": "seedling"}.get(v["plant"], v["plant"]),
        "potVariant": {"round": "round", "square": "cylinder", "wide": "tub"}[v["shape"]],
        "eyesVariant": "round",
        "mouthVariant": {"happy": "grin", "sad": "frown", "surprised": "open"}[v["mood"]],
        "patternProbability": 0,
        "cheeksProbability": 0,
        "translateX": rng.uniform(-10, 10),
    }  # fmt: skip


def _planet(v: dict[str, str], rng: random.Random) -> tuple[str, float, dict[str, Any]]:
    return "planets", 1.0, {
        "planetColor": _jitter(_INK[v["colour"]], rng),
        "moonColor": "#e2e8f0",
        "backgroundColor": _jitter(_SPACE[v["background"]], rng, 0.02),
        "surfaceVariant": {"striped": "banded"}.get(v["surface"], "cratered"),
        "surfaceProbability": 0 if v["surface"] == "plain" else 100,
        "ringVariant": "bold",
        "ringProbability": 100 if v["ring"] == "a" else 0,
        "moonsVariant": {"two": "two"}.get(v["moons"], "one"),
        "moonsProbability": 0 if v["moons"] == "no" else 100,
        "shadeVariant": "soft",
        "starProbability": 0,
        **{f"star{i:02d}Probability": 0 for i in range(2, 13)},
        "scale": rng.uniform(0.55, 0.63) if v["size"] == "small" else rng.uniform(0.92, 1.02),
        "translateX": rng.uniform(-10, 10),
        "translateY": rng.uniform(-8, 8),
    }  # fmt: skip


def _landscape(v: dict[str, str], rng: random.Random) -> tuple[str, float, dict[str, Any]]:
    hills = {
        "flat": ("gentle", "slope"),
        "hilly": ("rolling", "dunes"),
        "steep": ("peak", "ridge", "rugged"),
    }
    hue, saturation = _HILL[v["colour"]]
    hue += rng.uniform(-0.012, 0.012)
    lightness = (0.95, 0.88, 0.8, 0.7) if v["colour"] == "white" else (0.68, 0.55, 0.42, 0.3)
    options: dict[str, Any] = {
        "backgroundColor": _jitter(_SKY[v["background"]], rng),
        "orbVariant": "sun",
        "orbColor": "#f8b734" if v["orb"] == "sun" else "#fafaf9",
        "orbProbability": 0 if v["orb"] == "nothing" else 100,
    }
    for i, l in enumerate(lightness, 1):
        options[f"hill{i}Variant"] = rng.choice(hills[v["terrain"]])
        options[f"hill{i}Color"] = _hex(hue % 1, l + rng.uniform(-0.03, 0.03), saturation)
    return "landscape", {"flat": 0.6, "hilly": 1.3, "steep": 2.2}[v["terrain"]], options


def _robot(_: dict[str, str], rng: random.Random) -> tuple[str, float, dict[str, Any]]:
    return "pixelbot", 1.0, {}


def _face(_: dict[str, str], rng: random.Random) -> tuple[str, float, dict[str, Any]]:
    return "cutouts", 1.0, {}


_PAINTERS = {"critter": _critter, "plant": _plant, "planet": _planet, "landscape": _landscape,
             "robot": _robot, "face": _face}  # fmt: skip


def render(scene: Scene, seed: int, size: int = SIZE) -> np.ndarray:
    """Draw a scene: uint8 RGB (size, size, 3). The seed sets what the scene leaves open (positions,
    shades).
    """
    import resvg_py
    from dicebear import Avatar
    from PIL import Image

    rng = random.Random(f"{scene.kind}:{seed}")
    style, steep, options = _PAINTERS[scene.kind](scene.values, rng)
    svg = Avatar(_style(style, steep), {"seed": str(seed), "size": size, **options}).to_string()
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
