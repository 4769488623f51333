"""The training pictures: rendered once, kept on disk, split into training and held-out parts."""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from xhat.zoo.family.attributes import KINDS, Scene, sample_scene

PER_KIND = 4500
HELD_OUT_PER_KIND = 150


@dataclass(frozen=True)
class Pictures:
    """Rendered scenes: ``images`` uint8 (n, 64, 64, 3) beside the ``scenes`` they show."""

    images: np.ndarray
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)


def pictures(
    per_kind: int = PER_KIND,
    *,
    seed: int = 0,
    kinds: tuple[str, ...] = KINDS,
    cache: Path | None = None,
) -> Pictures:
    """``per_kind`` pictures of each kind, each attribute uniform, rendered on every core; read back
    from ``cache``.

    The same arguments give the same pixels. About 100 pictures a second a core.
    """
    if cache is not None and cache.exists():
        stored = np.load(cache)  # allow_pickle is off by default
        scenes = [Scene(kind, values) for kind, values in json.loads(str(stored["scenes"]))]
        if len(scenes) == per_kind * len(kinds):
            return Pictures(stored["images"], scenes)
    rng = random.Random(seed)
    scenes = [sample_scene(kind, rng) for _ in range(per_kind) for kind in kinds]
    work = [(scene, seed * 10_000_000 + i) for i, scene in enumerate(scenes)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(_render, work, chunksize=64)
        images = np.stack(list(tqdm(drawn, total=len(work), desc="rendering", unit="picture")))
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial.npz")
        np.savez(partial, images=images, scenes=json.dumps([(s.kind, s.values) for s in scenes]))
        partial.replace(cache)
    return Pictures(images, scenes)


def held_out(cache: Path | None = None) -> Pictures:
    """Pictures that no model was trained on, for measuring the judge and the real rows of every
    table.
    """
    return pictures(HELD_OUT_PER_KIND, seed=1, cache=cache)


def _render(work: tuple[Scene, int]) -> np.ndarray:
    from xhat.zoo.family.render import render

    return render(*work)
