"""Feature spaces in which pictures are compared, each a function of latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xhat.zoo.attributes import ATTRIBUTES, parse
from xhat.zoo.judge import Judge, load_judge


def decode(vae: Any, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Latents (n, c, h, w) → images (n, 3, H, W) float32 in [0, 1], through the pipeline's own VAE."""
    scale = getattr(vae.config, "scaling_factor", 1.0)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    parts = []
    with torch.no_grad():
        for part in torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32)).split(batch_size):
            parts.append((vae.decode(part / scale + shift).sample / 2 + 0.5).clamp(0, 1).numpy())
    return np.concatenate(parts)


class JudgeSpace:
    """The embedded family's judge as a feature space and as a reader of attributes, over latents.

    ``features(latents)`` → embeddings (n, 128); ``labels(latents, prompt)`` → {attribute: (labels (n,), values)} of
    those attributes that the prompt leaves open; ``fidelity(latents, prompt)`` → (n,) share of what the prompt states
    that is read back (for a bare prompt: whether the kind is).
    """

    def __init__(self, vae: Any, judge: Judge | None = None) -> None:
        self.vae, self.judge = vae, judge or load_judge()
        self._seen: tuple[np.ndarray, np.ndarray] | None = None

    def images(self, latents: np.ndarray) -> np.ndarray:
        """Decoded pictures; the last ones are kept, since each measure asks for the same."""
        if self._seen is None or self._seen[0].shape != latents.shape or not np.array_equal(self._seen[0], latents):
            self._seen = (latents.copy(), decode(self.vae, latents))
        return self._seen[1]

    def features(self, latents: np.ndarray) -> np.ndarray:
        return self.judge.embed(self.images(latents))

    def labels(self, latents: np.ndarray, prompt: str) -> dict[str, tuple[np.ndarray, int]]:
        scene = parse(prompt)
        if scene is None:
            raise ValueError(f"the judge knows the captions of the embedded family only; got the prompt {prompt!r}")
        reading = self.judge.read(self.images(latents), scene.kind)
        free = {name: values for name, values in ATTRIBUTES[scene.kind].items() if name not in scene.values}
        return {name: (reading.labels[name], len(values)) for name, values in free.items()}

    def fidelity(self, latents: np.ndarray, prompt: str) -> np.ndarray:
        return self.judge.obedience(self.images(latents), prompt)
