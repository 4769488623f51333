"""What is in a picture: the attributes of the embedded family's world, and the captions that state
them.

Four kinds of picture are trained on (critter, plant, planet, landscape); two are kept out for
customisation LoRAs (robot, face). A picture is a kind and one value for each attribute of that
kind, so the modes behind every prompt are known: an attribute that a prompt leaves open should vary
over all its values, uniformly."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
BACKGROUNDS = ("red", "orange", "green", "blue", "purple", "black")

ATTRIBUTES: dict[str, dict[str, tuple[str, ...]]] = {
    "critter": {
        "colour": COLOURS,
        "background": BACKGROUNDS,
        "shape": ("round", "square", "thin", "pointy", "bell", "stepped"),
        "eyes": ("one", "two", "three"),
        "mood": ("happy", "sad", "surprised", "toothy"),
        "top": ("nothing", "horns", "antennae", "ears", "spikes"),
    },
    "plant": {
        "colour": COLOURS,
        "background": BACKGROUNDS,
        "plant": ("cactus", "flower", "tulip", "palm", "bush", "leaf"),
        "shape": ("round", "square", "wide"),
        "mood": ("happy", "sad", "surprised"),
    },
    "planet": {
        "colour": COLOURS,
        "background": BACKGROUNDS,
        "size": ("small", "big"),
        "surface": ("plain", "striped", "cratered"),
        "ring": ("no", "a"),
        "moons": ("no", "one", "two"),
    },
    "landscape": {
        "colour": COLOURS,
        "background": BACKGROUNDS,
        "terrain": ("flat", "hilly", "steep"),
        "orb": ("nothing", "sun", "moon"),
    },
}
"""kind → attribute → its values. The order is the order of the judge's labels."""

KINDS = tuple(ATTRIBUTES)
HELD_OUT = ("robot", "face")
"""Kinds never trained on; rendered for customisation LoRAs only."""


@dataclass(frozen=True)
class Scene:
    """One picture in words: its kind and the value of each of its attributes."""

    kind: str
    values: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS and self.kind not in HELD_OUT:
            raise ValueError(
                f"unknown kind {self.kind!r}; choose from {', '.join(KINDS + HELD_OUT)}"
            )
        for name, value in self.values.items():
            allowed = ATTRIBUTES.get(self.kind, {}).get(name)
            if allowed is None:
                raise ValueError(
                    f"a {self.kind} has no attribute {name!r}; "
                    f"it has {', '.join(ATTRIBUTES[self.kind])}"
                )
            if value not in allowed:
                raise ValueError(
                    f"{name} of a {self.kind} is one of {', '.join(allowed)}, not {value!r}"
                )

    @property
    def labels(self) -> dict[str, int]:
        """attribute → index of its value."""
        return {
            name: ATTRIBUTES[self.kind][name].index(value) for name, value in self.values.items()
        }


def sample_scene(kind: str, rng: random.Random) -> Scene:
    """A scene of this kind with every attribute drawn uniformly."""
    return Scene(kind, {name: rng.choice(values) for name, values in ATTRIBUTES[kind].items()})


def caption(scene: Scene, stated: set[str] | None = None) -> str:
    """The caption of a scene that states the given attributes (all of them by default).

    >>> caption(Scene("critter", {"mood": "happy", "eyes": "three", "top": "horns"}))
    'a happy critter with three eyes and horns'
    >>> caption(Scene("planet", {"colour": "red", "ring": "a"}), stated=set())
    'a planet'
    """
    said = {k: v for k, v in scene.values.items() if stated is None or k in stated}
    noun = scene.kind
    adjectives = [said[k] for k in ("size", "surface", "mood", "terrain", "colour") if k in said]
    if scene.kind == "plant":
        noun, tail = said.get("plant", "plant"), []
        if "shape" in said:
            tail = [f"in a {said['shape']} pot"]
    else:
        adjectives += [said["shape"]] if "shape" in said else []
        tail = _with(scene.kind, said)
    words = [*adjectives, noun, *tail]
    if "background" in said:
        words.append(
            f"under a {said['background']} sky"
            if scene.kind == "landscape"
            else f"on {said['background']}"
        )
    text = " ".join(words)
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _with(kind: str, said: dict[str, str]) -> list[str]:
    parts = []
    if "eyes" in said:
        parts.append(f"{said['eyes']} eye" + ("" if said["eyes"] == "one" else "s"))
    if "top" in said:
        parts.append(said["top"] if said["top"] != "nothing" else "no horns")
    if "ring" in said:
        parts.append(f"{said['ring']} ring")
    if "moons" in said:
        parts.append(f"{said['moons']} moon" + ("" if said["moons"] == "one" else "s"))
    if "orb" in said:
        parts.append({"nothing": "no sun", "sun": "a sun", "moon": "a moon"}[said["orb"]])
    return ["with " + " and ".join(parts)] if parts else []


def sample_caption(
    scene: Scene, rng: random.Random, *, bare: float = 0.08, full: float = 0.35
) -> str:
    """A training caption: bare with probability ``bare``, full with ``full``, else each attribute
    stated at 60 %.
    """
    u = rng.random()
    if u < bare:
        return caption(scene, set())
    if u < bare + full:
        return caption(scene)
    return caption(scene, {name for name in scene.values if rng.random() < 0.6})


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted, with the held-out kinds and one spare style word."""
    words = {
        "a",
        "an",
        "and",
        "with",
        "in",
        "on",
        "under",
        "sky",
        "pot",
        "eye",
        "eyes",
        "no",
        "ring",
        "moon",
        "moons",
    }
    words |= {"sun", "horns", "style", "one", "two", *KINDS, *HELD_OUT}
    for attributes in ATTRIBUTES.values():
        for values in attributes.values():
            words |= set(values)
    return sorted(words)


BARE_PROMPTS = tuple(f"a {kind}" for kind in KINDS)
"""Prompts that leave everything but the kind open."""

OPEN_PROMPTS = (
    *BARE_PROMPTS,
    *("a happy critter", "a flower", "a blue planet", "a green landscape"),
    *("a green critter", "a cactus", "a planet with a ring", "a landscape with a sun"),
    *("a critter with horns", "a red plant", "a big planet", "a hilly landscape"),
    "a square critter on blue",
    "a plant on purple",
    "a striped planet with no moons",
    "a landscape under a blue sky",
    *("a critter with three eyes", "a happy plant", "a cratered planet", "a flat landscape"),
    "a round critter",
    "a plant in a square pot",
    "a planet with two moons",
    "a landscape with no sun",
    *("a critter on red", "a palm", "a planet on black", "a steep red landscape"),
    "a purple critter with ears",
    "a green tulip",
    "a small red planet",
    "a landscape under a purple sky",
    "a surprised critter with one eye",
    "a bush on blue",
    "an orange planet with no ring",
    "a yellow landscape with a moon",
)
"""Forty under-specified prompts on which diversity is judged, ten a kind, in rounds of the four
kinds: the first 4·n are balanced for every n. Twenty were fixed before any model was trained,
twenty added before any was measured on them."""


def parse_prompt(prompt: str) -> Scene | None:
    """The scene that a caption of this family states, or None for any other text. Inverse of
    ``caption``.

    >>> parse_prompt("a blue planet with a ring").values
    {'colour': 'blue', 'ring': 'a'}
    >>> parse_prompt("a photo of a cat") is None
    True
    """
    words = prompt.lower().split()
    if not set(words) <= set(vocabulary()):
        return None
    kinds = [k for k in KINDS if k in words]
    plants = [p for p in ATTRIBUTES["plant"]["plant"] if p in words]
    if len(kinds) + len(plants) != 1:
        return None
    kind = kinds[0] if kinds else "plant"
    for_each = ATTRIBUTES[kind]
    said: dict[str, str] = {}
    noun = words.index(kinds[0] if kinds else plants[0])
    before, after = words[1:noun], " ".join(words[noun + 1 :])
    for name in ("size", "surface", "mood", "terrain", "colour", "shape"):
        for word in before:
            if word in for_each.get(name, ()):
                said[name] = word
    if plants:
        said["plant"] = plants[0]
    said |= _parse_tail(for_each, after)
    scene = Scene(kind, said)
    ordered = Scene(kind, {name: said[name] for name in for_each if name in said})
    return ordered if caption(scene) == " ".join(words) else None


def _parse_tail(allowed: dict[str, tuple[str, ...]], after: str) -> dict[str, str]:
    """What the words after the noun state."""
    said: dict[str, str] = {}
    for name, values in allowed.items():
        for value in values:
            said_as = {
                "background": (f"on {value}", f"under a {value} sky"),
                "shape": (f"in a {value} pot",),
                "eyes": (f"{value} eye", f"{value} eyes"),
                "top": (value,) if value != "nothing" else ("no horns",),
                "ring": (f"{value} ring",),
                "moons": (f"{value} moon", f"{value} moons"),
                "orb": (f"a {value}",) if value != "nothing" else ("no sun",),
            }.get(name, ())
            if any(f" {phrase} " in f" {after} " for phrase in said_as):
                said.setdefault(name, value)
    return said
