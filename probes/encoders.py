"""Encoders that others trained: CLIP, SigLIP, DINOv2 and v3, DreamSim, LPIPS, Inception.

Nothing is downloaded. Weights are taken from a folder that is named, or from the cache where their
own library keeps them; where they are not there, one sentence says what is missing and how to get
it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

HUB = {
    "clip": "openai/clip-vit-base-patch32",
    "siglip": "google/siglip2-base-patch16-224",
    "dinov2": "facebook/dinov2-base",
    "dinov3": "facebook/dinov3-vitb16-pretrain-lvd1689m",
}
"""Where the weights are looked for if no folder or hub name is given."""

LICENCES = {
    "clip": "MIT",
    "siglip": "Apache-2.0",
    "dinov2": "Apache-2.0",
    "dinov3": "DINOv3 License (gated: accept it on its page first)",
    "dreamsim": "MIT",
    "lpips": "BSD-2-Clause",
    "inception": "Apache-2.0",
}
"""Licences of these weights, as their authors state them."""

_CLIP_NORM = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NORM = {
    "clip": _CLIP_NORM,
    "siglip": _HALVES,
    "dinov2": _IMAGENET_NORM,
    "dinov3": _IMAGENET_NORM,
}
_MODELS = {"clip": "CLIPVisionModelWithProjection", "siglip": "SiglipVisionModel"}
_DREAMSIM = (
    "dino_vitb16_pretrain.pth",
    "open_clip_vitb16_pretrain.pth.tar",
    "clip_vitb16_pretrain.pth.tar",
)
_ALEXNET = "alexnet-owt-*.pth"  # the name under which torchvision keeps the trunk of LPIPS


class MissingWeights(ValueError):
    """An encoder's weights, or its package, are not on this machine."""


@dataclass(frozen=True)
class Encoder:
    """``embed``: pictures (n, 3, h, w) in [0, 1] → embeddings (n, d). ``attrs``: its source, its
    weights' hash and, where they are the usual ones, their licence.
    """

    name: str
    embed: Callable[[torch.Tensor], torch.Tensor]
    attrs: dict[str, str]

    def __call__(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Embeddings (n, d) float32 of pictures (n, 3, h, w) in [0, 1]."""
        parts = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(batch_size)
        with torch.no_grad():
            return np.concatenate([self.embed(part).float().numpy() for part in parts])


def load_encoder(name: str, source: str | None = None) -> Encoder:
    """The encoder ``clip``, ``siglip``, ``dinov2``, ``dinov3``, ``dreamsim``, ``lpips`` or
    ``inception``.

    ``source``: a folder or hub name in place of the usual one (for DreamSim, its folder of weights;
    LPIPS takes none; for Inception, the file of torch-fidelity's weights). The embedding of CLIP is
    the projected one, that of SigLIP its pooled one, that of DINOv2 and DINOv3 the class token
    after the last norm, that of Inception the 2048 features that FID is computed of. Squared
    Euclidean distance between embeddings of LPIPS is the LPIPS distance (AlexNet, v0.1); cosine
    distance between those of DreamSim is the DreamSim distance. Raises ValueError where weights or
    their library are not on this machine.

    Sources: Radford et al. 2021, arXiv 2103.00020; Oquab et al. 2023, arXiv 2304.07193; Fu et al.
    2023, arXiv 2306.09344; Zhang et al. 2018, arXiv 1801.03924, eq. 1; Tschannen et al. 2025, arXiv
    2502.14786; Siméoni et al. 2025, arXiv 2508.10104."""
    makers = dict.fromkeys(HUB, _transformer)
    makers |= {"dreamsim": _dreamsim, "lpips": _lpips, "inception": _inception}
    if name not in makers:
        raise ValueError(f"unknown encoder {name!r}: expected one of {', '.join(makers)}")
    return makers[name](name, source)


def weights_hash(module: nn.Module) -> str:
    """sha256 of every weight of a network, names and values."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(
            value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if value.ndim
            else b""
        )
    return digest.hexdigest()


def _transformer(name: str, source: str | None) -> Encoder:
    import transformers

    place = source or HUB[name]
    kind = getattr(transformers, _MODELS.get(name, "AutoModel"))
    try:
        model = kind.from_pretrained(place, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"the feature space {name!r} needs the weights of {place}, which are neither a folder "
            "nor in the cache of "
            f"the Hugging Face hub: get them with `hf download {place}`{_licence(name, source)}, "
            f"or name a folder, {name}:FOLDER"
        ) from error
    side = min(224, getattr(model.config, "image_size", 224) or 224)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORM[name])

    def embed(images: torch.Tensor) -> torch.Tensor:
        output = model(pixel_values=(resized(images, side) - mean) / std)
        return output.image_embeds if name == "clip" else output.pooler_output

    return Encoder(name, embed, _attrs(name, place, model, source))


def _attrs(name: str, place: str, model: nn.Module, source: str | None) -> dict[str, str]:
    licence = {} if source else {"licence": LICENCES[name]}
    return {"encoder": place, "weights": weights_hash(model)} | licence


def _licence(name: str, source: str | None) -> str:
    return "" if source else f" ({LICENCES[name]})"


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures (n, 3, h, w) with their shorter side resized to ``side``, bicubic, and the middle
    square cut out.
    """
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    size = max(side, round(height * scale)), max(side, round(width * scale))
    resized = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return resized[..., top : top + side, left : left + side]


def _dreamsim(name: str, source: str | None) -> Encoder:
    folder = Path(source or "models")  # where the library itself keeps them
    package = _package("dreamsim")
    missing = [file for file in _DREAMSIM if not (folder / file).exists()]
    if missing:
        raise MissingWeights(
            f"the feature space 'dreamsim' needs its weights ({missing[0]}, …) in "
            f"{folder.resolve()}: load the model "
            "once with dreamsim.dreamsim(pretrained=True), or name their folder, dreamsim:FOLDER"
        )
    model, _ = package.dreamsim(pretrained=True, device="cpu", cache_dir=str(folder))

    def embed(images: torch.Tensor) -> torch.Tensor:
        size = (224, 224)  # DreamSim squeezes pictures into its square
        resized = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        return model.embed(resized).reshape(len(images), -1)

    return Encoder(name, embed, _attrs(name, "dreamsim ensemble", model, None))


def _lpips(name: str, source: str | None) -> Encoder:
    if source is not None:
        raise ValueError(
            f"the feature space 'lpips' takes no folder, got {source!r}: its weights come with "
            "its package"
        )
    package = _package("lpips")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not list(folder.glob(_ALEXNET)):
        raise MissingWeights(
            f"the feature space 'lpips' needs torchvision's AlexNet ({_ALEXNET}) in {folder}: "
            "torchvision.models.alexnet(weights='DEFAULT') puts it there"
        )
    model = package.LPIPS(net="alex", verbose=False).eval()
    return Encoder(name, lpips_embedding(model), _attrs(name, "lpips v0.1, alex", model, None))


def _inception(name: str, source: str | None) -> Encoder:
    package = _package("torch_fidelity", "torch_fidelity.feature_extractor_inceptionv3")
    made = package.FeatureExtractorInceptionV3
    url = str(getattr(package, "URL_INCEPTION_V3", "its page"))
    file = Path(source or Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name)
    if not file.exists():
        raise MissingWeights(
            f"the feature space 'inception' needs torch-fidelity's weights in {file}: get them "
            f"with `curl -L -o {file} {url}` ({LICENCES[name]}), or name the file, inception:FILE"
        )
    model = made("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)).eval()

    def embed(images: torch.Tensor) -> torch.Tensor:
        return model((images * 255).round().to(torch.uint8))[0]

    return Encoder(name, embed, _attrs(name, "torch-fidelity inception-v3-compat", model, source))


def lpips_embedding(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """φ with ‖φ(a) − φ(b)‖² = LPIPS(a, b): unit features of each layer, times √(w/(h·w)), in one
    row.

    LPIPS is the mean over places of Σ_c w_c·(â_c − b̂_c)², summed over layers (Zhang et al. 2018,
    eq. 1)."""

    def embed(images: torch.Tensor) -> torch.Tensor:
        rows = []
        for features, layer in zip(
            model.net(model.scaling_layer(images * 2 - 1)), model.lins, strict=True
        ):
            unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
            weight = layer.model[-1].weight.reshape(1, -1, 1, 1).clamp(min=0)
            rows.append((unit * (weight / unit[0, 0].numel()).sqrt()).flatten(1))
        return torch.cat(rows, dim=1)

    return embed


def _package(name: str, module: str | None = None) -> Any:
    try:
        return import_module(module or name)
    except ImportError as error:
        raise MissingWeights(
            f"the feature space {name!r} needs the package {name}: pip install 'xhat[features]' "
            f"({error})"
        ) from error
