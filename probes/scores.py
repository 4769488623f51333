"""How well a picture fits its prompt, and whether people would prefer it: scores by name.

================  ==============================================================================
``clip_score``    100 × cosine of CLIP's embeddings of picture and prompt
``siglip_score``  the same of SigLIP
``pickscore``     a CLIP trained on people's preferences: its logit for picture and prompt
================  ==============================================================================

HPSv3, HPSv2 and ImageReward are left out: the package of the first asks for transformers 4.45.2,
those of the others have had no release since February 2024 and July 2023 (read in November 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xhat.hooks.naming import nearest
from xhat.probes.encoders import HUB, LICENCES, NORM, MissingWeights, resized, weights_hash

SCORES = ("clip_score", "siglip_score", "pickscore")
_PLACES = {
    "clip_score": (HUB["clip"], LICENCES["clip"]),
    "siglip_score": (HUB["siglip"], LICENCES["siglip"]),
    "pickscore": ("yuvalkirstain/PickScore_v1", "MIT (its repository; its card states none)"),
}


@dataclass(frozen=True)
class Score:
    """``of``: pictures (n, 3, h, w) in [0, 1], and the prompt → (n,). ``attrs``: the weights'
    place, hash and licence.
    """

    name: str
    of: Callable[[torch.Tensor, str], torch.Tensor]
    attrs: Mapping[str, str]

    def __call__(self, images: np.ndarray, prompt: str, batch_size: int = 16) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(batch_size)
        with torch.no_grad():
            return np.concatenate([self.of(part, prompt).double().numpy() for part in parts])


def load_score(name: str) -> Score:
    """The score of a name.

    Parameters
    ----------
    name
        One of :data:`SCORES`; after a colon, a folder or hub name with other weights.

    Returns
    -------
    Score
        ``score(images, prompt)`` is (n,).

    Raises
    ------
    ValueError
        For any other name; as ``MissingWeights``, with the command that fetches them, where weights
        are not on this machine. Nothing is downloaded.

    References
    ----------
    Hessel et al. 2021, arXiv 2104.08718 (CLIP score; the factor 100 and no clipping at 0 as in
    arXiv 2503.10637); Zhai et al. 2023, arXiv 2303.15343; Kirstain et al. 2023, arXiv 2305.01569.
    """
    kind, _, source = name.partition(":")
    if kind not in SCORES:
        near = nearest(kind, SCORES) or SCORES
        raise ValueError(
            f"unknown score {name!r}; did you mean {near[0]!r}? There are {', '.join(SCORES)}"
        )
    place, licence = (source, "") if source else _PLACES[kind]
    family = "siglip" if kind == "siglip_score" else "clip"
    model, tokenizer = towers(kind, family, place, licence)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORM[family])
    side = model.config.vision_config.image_size

    def of(images: torch.Tensor, prompt: str) -> torch.Tensor:
        words = text_of(tokenizer, prompt, model.config.text_config, family)
        out = model(**words, pixel_values=(resized(images, side) - mean) / std)
        if kind == "pickscore":
            return out.logits_per_image[:, 0]
        return 100 * (out.image_embeds @ out.text_embeds.T)[:, 0]

    attrs = {"model": place, "weights": weights_hash(model)}
    return Score(kind, of, attrs | ({"licence": licence} if licence else {}))


def scores_here(names: Sequence[str] = SCORES) -> tuple[list[Score], list[str]]:
    """The scores whose weights are on this machine, and a line on each that is not."""
    there, missing = [], []
    for name in names:
        try:
            there.append(load_score(name))
        except MissingWeights as error:
            missing.append(str(error))
    return there, missing


class ScoredSpace:
    """A feature space, with scores and reference pictures beside it: everything that is measured
    of a set of pictures.

    Parameters
    ----------
    space
        Where pictures are compared. What else it reads (``labels``, ``fidelity``) stays.
    vae
        Decodes, where the space does not.
    scores
        Of :func:`load_score`.
    """

    def __init__(self, space: Any, vae: Any, scores: Sequence[Score]) -> None:
        from xhat.probes.features import Decoded

        self.space, self.name = space, space.name
        self._scores = tuple(scores)
        self._images = getattr(space, "images", None) or Decoded(vae).images
        self.attrs: Mapping[str, str] = dict(space.attrs) | {
            f"{score.name} {key}": value for score in scores for key, value in score.attrs.items()
        }

    def __getattr__(self, name: str) -> Any:
        if name == "space":
            raise AttributeError(name)
        return getattr(self.space, name)

    def features(self, latents: np.ndarray) -> np.ndarray:
        return self.space.features(latents)

    def scores(self, latents: np.ndarray, prompt: str) -> dict[str, np.ndarray]:
        """Name of a score → (n,)."""
        images = self._images(latents)
        return {score.name: score(images, prompt) for score in self._scores}


def with_scores(space: Any, vae: Any, names: Sequence[str] | None = None) -> Any:
    """``space`` with the scores of these names; left out: with those whose weights are on this
    machine, and with none for the embedded family's judge, which says itself whether its drawings
    show what was asked.
    """
    if names is None:
        scores = [] if space.name == "judge" else scores_here()[0]
    else:
        scores = [load_score(name) for name in names]
    return ScoredSpace(space, vae, scores) if scores else space


def towers(name: str, family: str, place: str, licence: str) -> tuple[Any, Any]:
    """The model of pictures and texts at ``place``, ``family`` ``"clip"`` or ``"siglip"``, and its
    tokenizer; ``name``: of what needs it. Raises MissingWeights where it is not here.
    """
    from transformers import AutoTokenizer, CLIPModel, SiglipModel

    made: Any = SiglipModel if family == "siglip" else CLIPModel
    try:
        model = made.from_pretrained(place, local_files_only=True).eval()
        return model, AutoTokenizer.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError) as error:
        terms = f" ({licence})" if licence else ""
        raise MissingWeights(
            f"{name!r} needs the weights and the tokenizer of {place}, which are neither "
            "a folder nor in the cache of the Hugging Face hub: get them with "
            f"`hf download {place}`{terms}, or name a folder, {name}:FOLDER"
        ) from error


def text_of(tokenizer: Any, prompt: str, config: Any, family: str) -> dict[str, Any]:
    """The prompt as its text encoder was trained to read it: SigLIP in lower case, padded to its
    full length, and without a mask.
    """
    length = config.max_position_embeddings
    if family == "siglip":
        given = tokenizer(
            prompt.lower(),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        return {"input_ids": given["input_ids"]}
    given = tokenizer(prompt, truncation=True, max_length=length, return_tensors="pt")
    return {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
