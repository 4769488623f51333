"""Figures of merit of the embedded family, written into its model cards: ``python
benchmarks/family.py [--quick]``.

Obedience: share of what a full caption states that the judge reads back. Entropy and Vendi: across
seeds of under-specified prompts, in what the prompts leave open. Taught: share of real pictures
whose colour a classifier tells that saw samples alone. The same of real pictures in place of
samples stand beside all. Intervals are 95 % bootstraps over captions, prompts or real pictures."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import xhat
from xhat.analysis import stats
from xhat.analysis.measures.classification import classification_accuracy
from xhat.analysis.measures.diversity import attribute_entropy, vendi
from xhat.zoo.family.attributes import (
    ATTRIBUTES,
    COLOURS,
    KINDS,
    OPEN_PROMPTS,
    Scene,
    caption,
    parse_prompt,
    sample_scene,
)
from xhat.zoo.family.base import draw as draw_grid
from xhat.zoo.family.data import pictures
from xhat.zoo.family.judge import load_judge
from xhat.zoo.family.render import render
from xhat.zoo.load.embedded import CONTROLS, WEIGHTS, embedded_defaults, load_embedded
from xhat.zoo.pairs import embedded
from xhat.zoo.train import STUDENTS

Draw = Callable[[list[str], list[int]], np.ndarray]
"""Prompts and as many seeds → pictures (n, 3, 64, 64) in [0, 1]."""

ABOUT = {
    "base": "v-prediction with classifier-free guidance (zoo/family/base.py)",
    **{name: f"{what} (zoo/family/{name.partition('-')[0]}.py)" for name, what in STUDENTS.items()},
    **{name: f"that of {student}, on timesteps of its own" for name, student in CONTROLS.items()},
}


SIDE = 16  # of the pictures that a classifier is taught by


@dataclass(frozen=True)
class Merit:
    """Obedience of each caption; attribute entropy and Vendi of each prompt; whether each real
    picture was told.
    """

    obedience: np.ndarray
    entropy: np.ndarray
    vendi_q2: np.ndarray
    taught: np.ndarray


LABELS = {
    "obedience": "obedience to full captions",
    "entropy": "attribute entropy across seeds (1 = uniform over the true modes)",
    "vendi_q2": "Vendi, q = 2, judge's embedding",
    "taught": "real pictures' colour, told by a classifier of samples (classification accuracy "
    "score)",
}


def measure(draw: Draw, captions: int, prompts: list[str], seeds: int) -> Merit:
    """Sample and judge one model at its own steps and guidance, or real pictures in its place."""
    judge, rng = load_judge(), random.Random(2)
    obeyed = []
    for _ in range(captions // 20):
        texts = [caption(sample_scene(rng.choice(KINDS), rng)) for _ in range(20)]
        images = draw(texts, [rng.randrange(2**31) for _ in texts])
        obeyed += [
            judge.obedience(image[None], text)[0] for image, text in zip(images, texts, strict=True)
        ]
    entropies, vendis = [], []
    for prompt in prompts:
        images = np.concatenate(
            [draw([prompt] * 16, list(range(s, s + 16))) for s in range(0, seeds, 16)]
        )
        scene = _scene(prompt)
        read = judge.read(images, scene.kind).labels
        left = {
            name: values
            for name, values in ATTRIBUTES[scene.kind].items()
            if name not in scene.values
        }
        entropies.append(
            np.mean([attribute_entropy(read[name], len(values)) for name, values in left.items()])
        )
        vendis.append(vendi(judge.embed(images), q=2))
    return Merit(*(np.array(v) for v in (obeyed, entropies, vendis)), taught(draw, captions))


def taught(draw: Draw, count: int) -> np.ndarray:
    """1 for each real picture whose colour is told by a classifier of ``count`` samples of "a red
    planet" and the like.

    What else is in a picture, the prompts leave to the model: where it always draws the same,
    little is learnt."""
    texts = [caption(Scene(kind, {"colour": colour})) for kind in KINDS for colour in COLOURS]
    each = max(count // len(texts), 2)
    images = np.concatenate([draw([text] * each, list(range(each))) for text in texts])
    labels = np.repeat([_scene(text).values["colour"] for text in texts], each)
    real = pictures(250, seed=3)
    colours = [scene.values["colour"] for scene in real.scenes]
    shown = real.images.transpose(0, 3, 1, 2) / 255
    return classification_accuracy(_small(images), labels, _small(shown), colours)["right"].values


def _small(images: np.ndarray) -> np.ndarray:
    return (
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images).float(), SIDE)
        .flatten(1)
        .numpy()
    )


def of_model(pipe: Any) -> Draw:
    """Samples of a pipeline, (n, 3, 64, 64) in [0, 1]."""

    def draw(texts: list[str], seeds: list[int]) -> np.ndarray:
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        images = pipe(texts, generator=generators, output_type="np", **xhat.defaults(pipe)).images
        return images.transpose(0, 3, 1, 2)

    return draw


def of_world(texts: list[str], seeds: list[int]) -> np.ndarray:
    """Real pictures of the same prompts: what they leave open is drawn uniformly."""
    images = []
    for text, seed in zip(texts, seeds, strict=True):
        stated = _scene(text)
        values = sample_scene(stated.kind, random.Random(f"{text} {seed}")).values | stated.values
        images.append(render(Scene(stated.kind, values), seed).transpose(2, 0, 1) / 255)
    return np.stack(images).astype(np.float32)


def _scene(text: str) -> Scene:
    scene = parse_prompt(text)
    assert scene is not None, text
    return scene


def _text(found: stats.Interval, sign: str = "") -> str:
    return (
        f"{float(found.estimate):{sign}.3f} | {float(found.low):{sign}.3f} to "
        f"{float(found.high):{sign}.3f}"
    )


def card(name: str, folder: Path, merit: Merit, base: Merit, real: Merit, setting: str) -> str:
    """The text of a model card; a student's differences from the base are paired over the same
    captions and prompts.
    """
    lines = [
        f"| {text} | {_text(stats.bootstrap_mean(getattr(merit, key)))} |"
        for key, text in LABELS.items()
    ]
    if merit is not base:
        for key, text in LABELS.items():
            less = stats.bootstrap_difference(getattr(base, key), getattr(merit, key))
            lines.append(f"| {text.split(' (')[0]}, less the base's | {_text(less, '+')} |")
    else:
        for key, text in LABELS.items():
            lines.append(
                f"| {text.split(' (')[0]}, real pictures | "
                f"{_text(stats.bootstrap_mean(getattr(real, key)))} |"
            )
    rows = "\n".join(lines)
    return f"""# demo/{name}

Trained by this project; weights under the project's licence. Pictures: drawn scenes from DiceBear
styles by DiceBear, CC0 1.0 (`zoo/family/render.py`). Objective: {ABOUT[name]}.
Sampling: {_sampling(embedded_defaults(name))}.
{_training(folder)}

| | mean | 95 % interval |
|---|---|---|
{rows}

{setting}

![two rows a kind: the bare prompt, then full captions](grid.png)
"""


def _sampling(defaults: dict[str, Any]) -> str:
    """Steps, guidance, and the timesteps where the model has its own."""
    text = f"{defaults['num_inference_steps']} steps, guidance {defaults['guidance_scale']:g}"
    timesteps = defaults.get("timesteps")
    return f"{text}, `timesteps={timesteps}`" if timesteps else text


def _training(folder: Path) -> str:
    file = folder / "training.json"
    if not file.exists():
        return ""
    t = json.loads(file.read_text())
    grid = f" on timesteps {'/'.join(map(str, t['timesteps']))}" if "timesteps" in t else ""
    return f"Trained for {t['steps']} steps{grid}, seed {t['seed']}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="100 captions, 8 prompts × 16 seeds; writes nothing"
    )
    parser.add_argument(
        "--models", nargs="*", help="embedded names (default all; the base is measured too)"
    )
    args = parser.parse_args()
    captions, prompts, seeds = (
        (100, list(OPEN_PROMPTS[:8]), 16) if args.quick else (500, list(OPEN_PROMPTS), 64)
    )
    setting = (
        f"Measured on {captions} full captions, and on {len(prompts)} open prompts × {seeds} seeds."
    )
    chosen = args.models or list(embedded())
    real, base = measure(of_world, captions, prompts, seeds), None
    for name, folder in embedded().items():
        if name not in ("base", *chosen):
            continue
        pipe = load_embedded(name)
        merit = measure(of_model(pipe), captions, prompts, seeds)
        base = merit if base is None else base
        text = card(name, folder, merit, base, real, setting)
        print(text, flush=True)
        if name in chosen and not args.quick:
            draw_grid(folder, WEIGHTS / name / "grid.png", **xhat.defaults(pipe))
            (WEIGHTS / name / "README.md").write_text(text)


if __name__ == "__main__":
    main()
