"""How a student does while it is trained: obedience, picture quality and diversity on a small set
of held-out prompts and seeds, noted beside its weights.

Training stops on obedience and quality. Diversity is noted so that how collapse grows with training
can be drawn, and nothing is decided by it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from xhat.zoo.family.attributes import ATTRIBUTES, KINDS, caption, parse_prompt, sample_scene
from xhat.zoo.family.judge import load_judge
from xhat.zoo.family.teacher import SHAPE, Teacher

PROMPTS = (
    *(f"a {kind}" for kind in KINDS),
    "a happy critter",
    "a red plant",
    "a planet with a ring",
    "a landscape with a sun",
)
SEEDS, CAPTIONS, BATCH = 16, 64, 32

Sampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Caption embeddings (n, tokens, width) and noise (steps, n, c, h, w) → latents (n, c, h, w)."""


def progress(teacher: Teacher, sampler: Sampler, steps: int) -> dict[str, float]:
    """Figures of a sampler that takes ``steps`` noises: means over captions or prompts.

    ``obedience``: share of what a full caption states that the judge reads back; ``confidence``:
    probability that the judge gives to its readings, which falls on pictures unlike real ones;
    ``entropy``: of the attributes that a prompt leaves open, over seeds, 1 where uniform;
    ``vendi_q2``: n²/‖K‖² of the judge's embeddings over seeds (2210.02410, order 2)."""
    judge, rng = load_judge(), random.Random(2)
    texts = [
        caption(sample_scene(kind, rng)) for _ in range(CAPTIONS // len(KINDS)) for kind in KINDS
    ]
    images = _draw(teacher, sampler, texts, range(CAPTIONS), steps)
    obeyed, sure = [], []
    for image, text in zip(images, texts, strict=True):
        reading = judge.read(image[None], text_kind(text))
        obeyed.append(judge.obedience(image[None], text)[0])
        sure.append(np.mean([reading.kind_confidence, *reading.confidence.values()]))
    entropies, vendis = [], []
    for prompt in PROMPTS:
        images = _draw(teacher, sampler, [prompt] * SEEDS, range(SEEDS), steps)
        scene = parse_prompt(prompt)
        assert scene is not None
        labels = judge.read(images, scene.kind).labels
        entropies.append(
            np.mean(
                [
                    entropy(labels[name], len(values))
                    for name, values in ATTRIBUTES[scene.kind].items()
                    if name not in scene.values
                ]
            )
        )
        vendis.append(vendi_q2(judge.embed(images)))
    figures = {"obedience": obeyed, "confidence": sure, "entropy": entropies, "vendi_q2": vendis}
    return {name: round(float(np.mean(values)), 4) for name, values in figures.items()}


def text_kind(text: str) -> str:
    """The kind of picture that a caption of the family states."""
    scene = parse_prompt(text)
    assert scene is not None, text
    return scene.kind


def vendi_q2(features: np.ndarray) -> float:
    """Vendi score of order 2 with the cosine kernel."""
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return len(x) ** 2 / float(((x @ x.T) ** 2).sum())


def entropy(labels: np.ndarray, values: int) -> float:
    """Entropy of labels over that of a uniform choice among ``values``."""
    share = np.bincount(labels, minlength=values) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / np.log(values))


@torch.no_grad()
def _draw(
    teacher: Teacher, sampler: Sampler, texts: Sequence[str], seeds: Sequence[int], steps: int
) -> np.ndarray:
    """Pictures (n, 3, 64, 64) in [0, 1], one generator a sample."""
    images = []
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        eps = torch.stack(
            [
                torch.randn(steps, *SHAPE, generator=torch.Generator().manual_seed(seed))
                for seed in seeds[part]
            ],
            dim=1,
        ).to(teacher.device)
        images.append(decode_pictures(teacher.vae, sampler(teacher.condition(texts[part]), eps)))
    return np.concatenate(images)


def decode_pictures(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Pictures (n, 3, 64, 64) in [0, 1] of latents in the UNet's units."""
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    return ((decoded + 1) / 2).clamp(0, 1).cpu().numpy()
