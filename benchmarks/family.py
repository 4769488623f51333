"""Figures of merit of the embedded family, written into its model cards: ``python benchmarks/family.py [--quick]``.

Obedience: share of what a full caption states that the judge reads back. Entropy and Vendi: across seeds of
under-specified prompts, in what the prompts leave open. Intervals are 95 % bootstraps over captions or prompts.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xhat.analysis import stats
from xhat.analysis.diversity import attribute_entropy, vendi
from xhat.probes.features import JudgeSpace
from xhat.zoo.attributes import KINDS, OPEN_PROMPTS, caption, sample_scene
from xhat.zoo.base import draw
from xhat.zoo.judge import load_judge
from xhat.zoo.pairs import embedded, load_pipeline

ABOUT = {
    "base": "v-prediction with classifier-free guidance (zoo/base.py)",
    "dmd": "distribution matching with a fake-score network, from the base (zoo/dmd.py)",
    "lcm": "latent consistency, from the base (zoo/lcm.py)",
    "turbo": "adversary on the base's features, 3 × 3 convolutions frozen (zoo/turbo.py)",
    "paired": "regression on the base's own trajectories (zoo/paired.py)",
}


@dataclass(frozen=True)
class Merit:
    """Obedience of each caption; attribute entropy and Vendi of each prompt."""

    obedience: np.ndarray
    entropy: np.ndarray
    vendi_q2: np.ndarray


LABELS = {
    "obedience": "obedience to full captions",
    "entropy": "attribute entropy across seeds (1 = uniform over the true modes)",
    "vendi_q2": "Vendi, q = 2, judge's embedding",
}


def measure(pipe: Any, captions: int, prompts: list[str], seeds: int) -> Merit:
    """Sample and judge one model at its own steps and guidance."""
    judge, space, rng = load_judge(), JudgeSpace(pipe.vae), random.Random(2)
    obeyed = []
    for _ in range(captions // 20):
        texts = [caption(sample_scene(rng.choice(KINDS), rng)) for _ in range(20)]
        images = _images(pipe, texts, [rng.randrange(2**31) for _ in texts])
        obeyed += [judge.obedience(image[None], text)[0] for image, text in zip(images, texts, strict=True)]
    entropies, vendis = [], []
    for prompt in prompts:
        latents = np.concatenate([_latents(pipe, [prompt] * 16, range(s, s + 16)) for s in range(0, seeds, 16)])
        read = space.labels(latents, prompt).values()
        entropies.append(np.mean([attribute_entropy(labels, values) for labels, values in read]))
        vendis.append(vendi(space.features(latents), q=2))
    return Merit(*(np.array(v) for v in (obeyed, entropies, vendis)))


def _text(found: stats.Interval, sign: str = "") -> str:
    return f"{float(found.estimate):{sign}.3f} | {float(found.low):{sign}.3f} to {float(found.high):{sign}.3f}"


def _latents(pipe: Any, prompts: list[str], seeds: Any) -> np.ndarray:
    generators = [torch.Generator().manual_seed(int(s)) for s in seeds]
    return pipe(prompts, generator=generators, output_type="latent", **pipe.xhat_defaults).images.numpy()


def _images(pipe: Any, prompts: list[str], seeds: list[int]) -> np.ndarray:
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    images = pipe(prompts, generator=generators, output_type="np", **pipe.xhat_defaults).images
    return images.transpose(0, 3, 1, 2)


def card(name: str, folder: Path, merit: Merit, base: Merit, setting: str) -> str:
    """The text of a model card; a student's differences from the base are paired over the same captions and prompts."""
    d = json.loads((folder / "xhat.json").read_text())
    lines = [f"| {text} | {_text(stats.bootstrap_mean(getattr(merit, key)))} |" for key, text in LABELS.items()]
    if merit is not base:
        for key, text in LABELS.items():
            less = stats.paired_difference(getattr(base, key), getattr(merit, key))
            lines.append(f"| {text.split(' (')[0]}, less the base's | {_text(less, '+')} |")
    rows = "\n".join(lines)
    return f"""# demo/{name}

Trained by this project; weights under the project's licence. Pictures: drawn scenes from DiceBear styles by DiceBear,
CC0 1.0 (`zoo/render.py`). Objective: {ABOUT[name]}.
Sampling: {d["num_inference_steps"]} steps, guidance {d["guidance_scale"]:g}. {_training(name, folder)}

| | mean | 95 % interval |
|---|---|---|
{rows}

{setting}

![two rows a kind: the bare prompt, then full captions](grid.png)
"""


def _training(name: str, folder: Path) -> str:
    file = folder / "training.json"
    if not file.exists():
        return ""
    t = json.loads(file.read_text())
    return f"Trained for {t['steps']} steps, seed {t['seed']}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 captions, 8 prompts × 16 seeds")
    parser.add_argument("--models", nargs="*", help="embedded names (default all; the base is measured too)")
    args = parser.parse_args()
    captions, prompts, seeds = (100, list(OPEN_PROMPTS[:8]), 16) if args.quick else (500, list(OPEN_PROMPTS), 64)
    setting = f"Measured on {captions} full captions, and on {len(prompts)} open prompts × {seeds} seeds."
    chosen = args.models or list(embedded())
    base = None
    for name, folder in embedded().items():
        if name not in ("base", *chosen):
            continue
        pipe = load_pipeline(folder)
        merit = measure(pipe, captions, prompts, seeds)
        base = merit if base is None else base
        text = card(name, folder, merit, base, setting)
        print(text, flush=True)
        if name in chosen:
            draw(folder, folder / "grid.png", **pipe.xhat_defaults)
            (folder / "README.md").write_text(text)


if __name__ == "__main__":
    main()
