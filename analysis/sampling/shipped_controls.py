"""The controls that come with the embedded family, each with the prompts and the score that fit how
it was made.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from xhat.analysis.sampling.control import Control, Score
from xhat.analysis.sampling.scores import attribute_score, axis_score, text_score
from xhat.hooks.naming import nearest
from xhat.zoo.family.attributes import KINDS, OPEN_PROMPTS, parse_prompt, sample_scene
from xhat.zoo.lora.shipped import notes, shipped
from xhat.zoo.lora.styles import style_pictures

LOG = logging.getLogger(__name__)

FORMS = ("{}", "{} on blue", "{} on red", "{} on green")
"""How a style is asked for: the prompt it was trained with, and three it was not."""


def family_controls(
    space: Any, names: Iterable[str] = (), folder: Path | None = None, clip: Any = None
) -> list[Control]:
    """The shipped sliders and style LoRAs, or those that are named; ``folder``: files of the same
    make elsewhere.

    ``space``: the judge's space of the family; ``clip``: the space ``clip``, if effects are to be
    read as CLIP scores. Without a renderer the styles are left out, and that is said. Raises
    ValueError for an unknown name and where there is none."""
    files = (
        shipped() if folder is None else {p.stem: p for p in sorted(folder.glob("*.safetensors"))}
    )
    chosen = list(names) or list(files)
    if not chosen:
        raise ValueError(
            f"no sliders in {folder or 'the embedded family'}: train them with python -m "
            "xhat.zoo.train"
        )
    for name in chosen:
        if name not in files:
            near = nearest(name, files) or list(files)
            raise ValueError(
                f"unknown slider {name!r}; did you mean {near[0]!r}? There are {', '.join(files)}"
            )
    found = []
    for name in chosen:
        try:
            found.append(control_of(files[name], space, clip))
        except ImportError as error:
            LOG.warning(
                f"{name} is left out: its style is rendered by the extra xhat[zoo] ({error})"
            )
    return found


def control_of(file: Path, space: Any, clip: Any = None) -> Control:
    """A LoRA of the family as a control, by what its file says of how it was made.

    A Concept Slider is read by the judge as P(up) − P(down), a direction of SliderSpace along its
    axis, a style by :func:`style_score`; with ``clip``, sliders and styles by the CLIP score of the
    positive prompt, the paper's reading. Raises ValueError for a file without the notes of this
    family's training, ImportError for a style where nothing can be rendered."""
    made = notes(file)
    model = str(made.get("model", "")).split("/")[-1]
    common: dict[str, Any] = {"name": file.stem, "file": file, "trained_on": model or "base"}
    if {"kind", "attribute", "up", "down"} <= made.keys():
        kind, attribute = made["kind"], made["attribute"]
        score = attribute_score(space, kind, attribute, made["up"], made["down"])
        reading = f"judge: P({made['up']}) − P({made['down']})"
        if clip is not None:
            score, reading = (
                text_score(clip, made["positive"]),
                clip_reading(clip, made["positive"]),
            )
        what = f"{made['down']} → {made['up']} ({attribute} of a {kind})"
        common |= {"score": score, "reading": reading, "what": what}
        return Control(**common, prompts=open_prompts(kind, attribute), attribute=attribute)
    if "axis" in made:
        mean, axis = np.array(made["mean"]), np.array(made["axis"])
        reading = "judge's embedding: standard deviations of the base's samples along the axis"
        score = axis_score(space, mean, mean + made["spread"] * axis)
        what = f"direction of {made['target']!r}, {made['share']:.0%} of its samples' variance"
        common |= {"score": score, "reading": reading, "what": what}
        return Control(**common, prompts=open_prompts(made["target"].split()[-1]))
    if "style" in made:
        prompts = tuple(form.format(made["target"]) for form in FORMS)
        score, reading = (
            style_score(space, made["style"]),
            "judge's embedding: usual kinds 0, the style 1",
        )
        if clip is not None:
            score, reading = text_score(clip, made["target"]), clip_reading(clip, made["target"])
        common |= {"score": score, "reading": reading, "what": f"style of a {made['style']}"}
        return Control(**common, prompts=prompts, signed=False)
    raise ValueError(
        f"{file} says nothing of what it turns: a slider needs the notes kind, attribute, up and "
        "down, a direction axis, mean and spread, a style the note style, as "
        "xhat.zoo.lora.shipped, sliderspace and custom write them"
    )


def clip_reading(clip: Any, text: str) -> str:
    """A CLIP score in words, weights included."""
    return f"CLIP score of “{text}” ({clip.attrs['encoder']}, {clip.attrs['weights'][:12]})"


def open_prompts(kind: str, attribute: str = "") -> tuple[str, ...]:
    """Those of the family's open prompts that show this kind and leave the attribute open.

    >>> open_prompts("planet", "ring")[:3]
    ('a planet', 'a blue planet', 'a big planet')
    """
    scenes = {prompt: parse_prompt(prompt) for prompt in OPEN_PROMPTS}
    return tuple(
        p
        for p, s in scenes.items()
        if s is not None and s.kind == kind and attribute not in s.values
    )


def style_score(space: Any, style: str, pictures: int = 48) -> Score:
    """How near pictures are to a style kept out of training: 0 at the mean of the family's kinds, 1
    at the style's.

    Both means are of rendered pictures, in the judge's embedding; rendering needs the ``zoo``
    extra."""
    from xhat.zoo.family.render import render

    rng = random.Random(0)
    scenes = [sample_scene(KINDS[i % len(KINDS)], rng) for i in range(pictures)]
    usual = np.stack([render(scene, i) for i, scene in enumerate(scenes)])
    ends = [
        space.judge.embed(images).mean(0)
        for images in (usual, style_pictures(style, pictures, seed=1))
    ]
    return axis_score(space, *ends)
