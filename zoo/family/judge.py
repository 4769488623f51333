"""The judge: a small classifier that reads a picture's kind and attributes, and embeds it.

It is trained on rendered pictures, whose attributes are known exactly, and on their passes through
the VAE with blur and noise, so that it is fair to generated ones. Its accuracy on held-out real
pictures stands in its model card."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from xhat.zoo.family.attributes import ATTRIBUTES, KINDS, Scene, parse_prompt
from xhat.zoo.pairs import WEIGHTS

LOG = logging.getLogger(__name__)

HEADS: tuple[tuple[str, str, int], ...] = (
    ("", "kind", len(KINDS)),
    *((kind, name, len(values)) for kind in KINDS for name, values in ATTRIBUTES[kind].items()),
)
"""(kind it applies to, attribute, number of values); the first head tells the kind."""

EMBEDDING = 128
FIRST_JUDGE, SECOND_JUDGE = "judge", "judge-2"


@dataclass(frozen=True)
class JudgeReading:
    """What the judge reads of n pictures of one kind.

    ``labels[attribute]`` (n,) are indices into ``ATTRIBUTES[kind][attribute]``;
    ``confidence[attribute]`` (n,) is the probability given to that label. ``kind`` (n,) and
    ``kind_confidence`` are those of the kind head."""

    of: str
    kind: np.ndarray
    kind_confidence: np.ndarray
    labels: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]

    def obeys(self, scene: Scene) -> np.ndarray:
        """(n,) share of what the scene states that was read back; for a bare scene, whether the
        kind was.
        """
        stated = [self.labels[name] == label for name, label in scene.labels.items()]
        right_kind = self.kind == KINDS.index(scene.kind)
        return np.mean(stated, axis=0) * right_kind if stated else right_kind.astype(float)


class Judge(nn.Module):
    """Four strided convolutions, one embedding of ``EMBEDDING`` numbers, one linear head an
    attribute.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        blocks: list[nn.Module] = []
        for a, b in zip(widths, widths[1:], strict=False):
            blocks += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU()]
        self.trunk = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128 * 16, EMBEDDING))
        self.heads = nn.Linear(EMBEDDING, sum(size for *_, size in HEADS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embedding (n, EMBEDDING) of pictures (n, 3, 64, 64) in [0, 1]."""
        return self.trunk(images * 2 - 1)

    def logits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """One tensor (n, values) for each of ``HEADS``."""
        return list(self.heads(F.silu(self(images))).split([size for *_, size in HEADS], dim=1))

    @torch.no_grad()
    def embed(self, images: np.ndarray | torch.Tensor) -> np.ndarray:
        """Embedding (n, EMBEDDING), float32: the ``judge`` feature space of the diversity
        measures.
        """
        return np.concatenate([self(part).numpy() for part in _images(images).split(256)])

    @torch.no_grad()
    def probabilities(self, images: np.ndarray | torch.Tensor, kind: str) -> dict[str, np.ndarray]:
        """(n, values) of the kind, and of every attribute that a picture of this kind has; rows sum
        to 1.
        """
        parts = [self.logits(part) for part in _images(images).split(256)]
        return {
            name: torch.cat([part[i] for part in parts]).softmax(1).numpy()
            for i, (owner, name, _) in enumerate(HEADS)
            if owner in ("", kind)
        }

    def read(self, images: np.ndarray | torch.Tensor, kind: str) -> JudgeReading:
        """Read the attributes that a picture of this kind has."""
        likely = self.probabilities(images, kind)
        labels = {name: p.argmax(1) for name, p in likely.items()}
        confidence = {name: p.max(1) for name, p in likely.items()}
        return JudgeReading(kind, labels.pop("kind"), confidence.pop("kind"), labels, confidence)

    def obedience(self, images: np.ndarray | torch.Tensor, prompt: str) -> np.ndarray:
        """(n,) share of what the prompt states that is read back from each picture."""
        scene = parse_prompt(prompt)
        if scene is None:
            raise ValueError(
                "the judge knows the captions of the embedded family only; "
                f"got the prompt {prompt!r}"
            )
        return self.read(images, scene.kind).obeys(scene)


def _images(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 (n, h, w, 3) or float (n, 3, h, w) in [0, 1] → the latter."""
    x = torch.as_tensor(images)
    if x.dtype == torch.uint8:
        x = x.permute(0, 3, 1, 2).float() / 255
    if x.ndim != 4 or x.shape[1:] != (3, 64, 64):
        raise ValueError(
            "the judge reads (n, 64, 64, 3) uint8 or (n, 3, 64, 64) float; "
            f"got {tuple(x.shape)} {x.dtype}"
        )
    return x.float()


def load_judge(name: str = FIRST_JUDGE) -> Judge:
    """The trained judge; ``"judge-2"`` is a second one, trained under another seed, to compare
    with. Raises ValueError for a name that is neither.
    """
    if name not in (FIRST_JUDGE, SECOND_JUDGE):
        raise ValueError(f"no judge is named {name!r}: there are {FIRST_JUDGE} and {SECOND_JUDGE}")
    return _load_judge(name)


@cache
def _load_judge(name: str) -> Judge:
    from safetensors.torch import load_file

    judge = Judge()
    judge.load_state_dict(
        {k: v.float() for k, v in load_file(WEIGHTS / name / "model.safetensors").items()}
    )
    return judge.eval()


STEPS, BATCH, RATE = 3000, 64, 2e-3


def train_judge(runs: Path, steps: int = STEPS, seed: int = 0) -> None:
    """Cross-entropy over the kind and the attributes of that kind, label smoothing 0.05; saves
    weights and accuracy.
    """
    from safetensors.torch import save_file

    from xhat.zoo.family.data import pictures
    from xhat.zoo.family.loop import set_rate, train_loop
    from xhat.zoo.family.vae import load_vae

    world = pictures(cache=runs / "world.npz")
    vae = load_vae(runs)
    targets = torch.stack([_targets(scene) for scene in world.scenes])
    torch.manual_seed(seed)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), RATE, weight_decay=0.05)

    def step(i: int) -> dict[str, float]:
        set_rate(optimizer, i, steps, RATE, warmup=100)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        pick = torch.randint(len(world), (BATCH,), generator=generator)
        logits = judge.logits(_worn(vae, _images(world.images[pick.numpy()]), generator))
        losses = [
            F.cross_entropy(out, target, ignore_index=-1, reduction="sum", label_smoothing=0.05)
            for out, target in zip(logits, targets[pick].T, strict=True)
        ]
        loss = torch.stack(losses).sum() / (targets[pick] >= 0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    name = "judge" if seed == 0 else f"judge-{seed + 1}"
    train_loop(runs / name, {"judge": judge, "optimizer": optimizer}, step, steps)
    folder = WEIGHTS / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.half().contiguous() for k, v in judge.state_dict().items()},
        folder / "model.safetensors",
    )
    accuracy = measure_judge(judge.eval(), runs)
    (folder / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    LOG.info(json.dumps(accuracy, indent=2))


def _targets(scene: Scene) -> torch.Tensor:
    labels = {("", "kind"): KINDS.index(scene.kind)} | {
        (scene.kind, k): v for k, v in scene.labels.items()
    }
    return torch.tensor([labels.get((kind, name), -1) for kind, name, _ in HEADS])


@torch.no_grad()
def _worn(vae: Any, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half the pictures through the VAE with noisy latents; then blur, a shift of up to two pixels,
    and noise.
    """
    half = len(x) // 2
    z = vae.encoder(x[:half] * 2 - 1)
    z = z + 0.15 * z.std() * torch.rand(half, 1, 1, 1, generator=generator) * torch.randn(
        z.shape, generator=generator
    )
    x = torch.cat([vae.decoder(z).add(1).div(2).clamp(0, 1), x[half:]])
    mix = torch.rand(len(x), 1, 1, 1, generator=generator)
    x = mix * x + (1 - mix) * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    left, top = (int(o) for o in torch.randint(0, 5, (2,), generator=generator))
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, top : top + 64, left : left + 64]
    return x + 0.03 * torch.rand(len(x), 1, 1, 1, generator=generator) * torch.randn(
        x.shape, generator=generator
    )


def measure_judge(judge: Judge, runs: Path) -> dict[str, Any]:
    """Accuracy on held-out real pictures: of the kind, of each attribute of each kind, and their
    mean.
    """
    from xhat.zoo.family.data import held_out

    real = held_out(runs / "held_out.npz")
    of_kind = {kind: [i for i, s in enumerate(real.scenes) if s.kind == kind] for kind in KINDS}
    attributes: dict[str, dict[str, float]] = {}
    right = []
    for kind, index in of_kind.items():
        reading = judge.read(real.images[index], kind)
        right.append(reading.kind == KINDS.index(kind))
        truth = {
            name: np.array([real.scenes[i].labels[name] for i in index])
            for name in ATTRIBUTES[kind]
        }
        attributes[kind] = {
            name: float((reading.labels[name] == truth[name]).mean()) for name in truth
        }
    every = [v for table in attributes.values() for v in table.values()]
    return {
        "pictures": len(real),
        "kind": float(np.concatenate(right).mean()),
        "attributes_mean": float(np.mean(every)),
        "attributes": attributes,
    }
