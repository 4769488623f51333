"""Feature spaces in which pictures are compared, by name, each a function of latents.

=================
===========================================================================================
``latent``         the latents themselves, each sample scaled to unit RMS
``pixel``          the decoded picture, 32 × 32, in [−1, 1]
``judge``          the embedding of the embedded family's judge; knows attributes too
                   (``judge:judge-2``: that of one trained under another seed)
``denoiser``       what the pipeline's own denoiser reads at a point (``denoiser:POINT``), noise
added
``clip``           CLIP's projected image embedding (``clip:FOLDER`` for other weights)
``siglip``         SigLIP's pooled image embedding (``siglip:FOLDER``)
``dinov2``         DINOv2's class token (``dinov2:FOLDER``)
``dinov3``         DINOv3's class token (``dinov3:FOLDER``)
``dreamsim``       DreamSim's embedding: cosine distance is the DreamSim distance
``lpips``          features of AlexNet whose squared Euclidean distance is the LPIPS distance
``inception``      the features that FID is computed of (``inception:FILE``)
=================
===========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from xhat.hooks.describe import fingerprint
from xhat.hooks.naming import nearest
from xhat.hooks.points.names import denoiser_of, named_points
from xhat.probes.encoders import Encoder, load_encoder, weights_hash
from xhat.zoo.family.attributes import ATTRIBUTES, parse_prompt
from xhat.zoo.family.judge import SECOND_JUDGE, Judge, load_judge

ENCODERS = ("clip", "siglip", "dinov2", "dinov3", "dreamsim", "lpips", "inception")
SPACES = ("latent", "pixel", "judge", "denoiser", *ENCODERS)
PICTURE_SPACES = ("pixel", "judge", *ENCODERS)
# as noisy as timestep 261 of Stable Diffusion, where DIFT reads (Tang et al. 2023, 2306.03881)
DENOISER_SIGMA = 0.7


@runtime_checkable
class FeatureSpace(Protocol):
    """``features``: latents (n, channel, y, x) → (n, d). ``attrs``: name, encoder and hash of its
    weights, for the attributes of what is measured in it. A space that reads attributes too has
    ``labels`` and ``fidelity``, as :class:`JudgeSpace`."""

    name: str
    attrs: Mapping[str, str]

    def features(self, latents: np.ndarray) -> np.ndarray: ...


def feature_space(name: str, pipe: Any = None, **options: Any) -> FeatureSpace:
    """The feature space of a name.

    Parameters
    ----------
    name
        One of :data:`SPACES`; after a colon, the point of ``denoiser`` or the folder of an encoder.
    pipe
        The pipeline whose VAE decodes, and whose denoiser ``denoiser`` reads; all but ``latent``
        need it.
    **options
        Those of the space's class.

    Returns
    -------
    FeatureSpace
        ``space.features(latents)`` is (n, d).

    Raises
    ------
    ValueError
        For any other name; as ``MissingWeights`` where weights are not on this machine.

    Examples
    --------
    >>> feature_space("latent").features(np.full((1, 1, 2, 2), 3.0))
    array([[1., 1., 1., 1.]], dtype=float32)
    """
    kind, _, source = name.partition(":")
    if kind not in SPACES:
        near = nearest(kind, SPACES) or SPACES
        raise ValueError(
            f"unknown feature space {name!r}; did you mean {near[0]!r}? There are "
            f"{', '.join(SPACES)}"
        )
    if kind == "latent":
        return LatentSpace()
    if pipe is None:
        raise ValueError(
            f"the feature space {kind!r} needs the pipeline that made the latents: pass pipe=…"
        )
    if kind == "denoiser":
        return DenoiserSpace(pipe, source or None, **options)
    if kind == "pixel":
        return PixelSpace(pipe.vae, **options)
    if kind == "judge":
        return JudgeSpace(pipe.vae, load_judge(source) if source else None, **options)
    return EncoderSpace(pipe.vae, load_encoder(kind, source or None), **options)


def decode_latents(vae: Any, latents: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Latents (n, c, h, w) → images (n, 3, H, W) float32 in [0, 1], through the pipeline's own
    VAE.
    """
    scale = getattr(vae.config, "scaling_factor", None) or 1.0
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    parts = []
    with torch.no_grad():
        for part in torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32)).split(
            batch_size
        ):
            given = (part / scale + shift).to(vae.device, vae.dtype)
            parts.append((vae.decode(given).sample.float() / 2 + 0.5).clamp(0, 1).cpu().numpy())
    return np.concatenate(parts)


class LatentSpace:
    """Latents, flattened, each sample over its own root mean square: distances do not see the
    scale.
    """

    name = "latent"
    attrs: Mapping[str, str] = {"space": "latent, unit RMS"}

    def features(self, latents: np.ndarray) -> np.ndarray:
        x = np.asarray(latents, dtype=np.float64).reshape(len(latents), -1)
        size = np.sqrt(np.mean(x**2, axis=1, keepdims=True))
        return np.divide(x, size, out=np.zeros_like(x), where=size > 0).astype(np.float32)


class Decoded:
    """A space of pictures: decodes, and keeps the last ones, since each measure asks for the
    same.
    """

    def __init__(self, vae: Any, batch_size: int = 64) -> None:
        self.vae, self.batch_size = vae, batch_size
        self._seen: tuple[np.ndarray, np.ndarray] | None = None

    def features(self, latents: np.ndarray) -> np.ndarray:
        return self.of_images(self.images(latents))

    def of_images(self, images: np.ndarray) -> np.ndarray:
        """Features (n, d) of pictures (n, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def images(self, latents: np.ndarray) -> np.ndarray:
        """Decoded pictures (n, 3, H, W) in [0, 1]."""
        if (
            self._seen is None
            or self._seen[0].shape != latents.shape
            or not np.array_equal(self._seen[0], latents)
        ):
            self._seen = (latents.copy(), decode_latents(self.vae, latents, self.batch_size))
        return self._seen[1]


class PixelSpace(Decoded):
    """The decoded picture, averaged down to ``side`` × ``side``, in [−1, 1], flattened."""

    name = "pixel"

    def __init__(self, vae: Any, side: int = 32, batch_size: int = 64) -> None:
        super().__init__(vae, batch_size)
        self.side = side
        self.attrs: Mapping[str, str] = {"space": f"pixel, {side} × {side}"}

    def of_images(self, images: np.ndarray) -> np.ndarray:
        small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images), self.side)
        return small.mul(2).sub(1).flatten(1).numpy()


class EncoderSpace(Decoded):
    """The embedding that an :class:`~xhat.probes.encoders.Encoder` makes of the decoded picture."""

    def __init__(self, vae: Any, encoder: Encoder, batch_size: int = 16) -> None:
        super().__init__(vae, batch_size)
        self.encoder, self.name = encoder, encoder.name
        self.attrs: Mapping[str, str] = {"space": encoder.name} | encoder.attrs

    def of_images(self, images: np.ndarray) -> np.ndarray:
        return self.encoder(images, self.batch_size)


class DenoiserSpace:
    """What a pipeline's denoiser reads at ``point`` of the noised latents, averaged over places.

    The latents get noise at the step of the pipeline's schedule nearest to ``sigma``, the same for
    sample i of every set, and are evaluated once under ``prompt``, without guidance. ``point``: an
    alias, glob or path; the middle of the network if left out. ``call``: further arguments of the
    pipeline."""

    name = "denoiser"

    def __init__(
        self,
        pipe: Any,
        point: str | None = None,
        *,
        sigma: float = DENOISER_SIGMA,
        prompt: str = "",
        reduction: str = "mean",
        batch_size: int = 16,
        **call: Any,
    ) -> None:
        self.pipe, self.sigma, self.prompt, self.batch_size, self.call = (
            pipe,
            sigma,
            prompt,
            batch_size,
            call,
        )
        self.point = point or middle_point(denoiser_of(pipe))
        self.reduction = reduction
        place = f"denoiser, {self.point} at σ ≈ {sigma:g}, {reduction}"
        self.attrs: Mapping[str, str] = {"space": place, "weights": fingerprint(pipe)}

    def features(self, latents: np.ndarray) -> np.ndarray:
        from xhat.probes.renoise import renoise

        noisy = renoise(
            self.pipe,
            latents,
            self.sigma,
            prompts=self.prompt,
            hooks={self.point: self.reduction},
            batch_size=self.batch_size,
            **self.call,
        )
        return np.concatenate(
            [value.reshape(len(latents), -1) for value in noisy.readings.values()], axis=1
        )


def middle_point(denoiser: Any) -> str:
    """The alias of the middle of a network: ``h`` of a UNet, else its middle block."""
    aliases = [p.alias for p in named_points(denoiser)]
    blocks = [
        a for a in aliases if a.split(".")[0] in ("block", "single") and a.count(".") == 1
    ] or aliases
    return "h" if "h" in aliases else blocks[len(blocks) // 2]


class JudgeSpace(Decoded):
    """The embedded family's judge as a feature space and as a reader of attributes, over latents.

    ``features(latents)`` → embeddings (n, 128); ``labels(latents, prompt)`` → {attribute: (labels
    (n,), values)} of those attributes that the prompt leaves open; ``fidelity(latents, prompt)`` →
    (n,) share of what the prompt states that is read back (for a bare prompt: whether the kind is).
    """

    name = "judge"
    _shared: JudgeSpace | None = None

    def __init__(self, vae: Any, judge: Judge | None = None) -> None:
        super().__init__(vae)
        self.judge = judge if judge is not None else load_judge()
        self.attrs: Mapping[str, str] = {"space": "judge", "weights": weights_hash(self.judge)}

    def second(self) -> JudgeSpace | None:
        """The same pictures as a judge trained under another seed sees them, beside the family's
        first judge; None beside any other.
        """
        if self.judge is not load_judge():
            return None
        other = JudgeSpace(self.vae, load_judge(SECOND_JUDGE))
        other._shared = self
        return other

    def images(self, latents: np.ndarray) -> np.ndarray:
        return super().images(latents) if self._shared is None else self._shared.images(latents)

    def of_images(self, images: np.ndarray) -> np.ndarray:
        return self.judge.embed(images)

    def labels(self, latents: np.ndarray, prompt: str) -> dict[str, tuple[np.ndarray, int]]:
        scene = parse_prompt(prompt)
        if scene is None:
            raise ValueError(
                "the judge knows the captions of the embedded family only; got the prompt "
                f"{prompt!r}"
            )
        reading = self.judge.read(self.images(latents), scene.kind)
        free = {
            name: values
            for name, values in ATTRIBUTES[scene.kind].items()
            if name not in scene.values
        }
        return {name: (reading.labels[name], len(values)) for name, values in free.items()}

    def fidelity(self, latents: np.ndarray, prompt: str) -> np.ndarray:
        return self.judge.obedience(self.images(latents), prompt)
