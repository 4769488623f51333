"""How much of a control's target is in each picture: readings of the judge, of example pictures, of
texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xhat.analysis.sampling.control import Score
from xhat.probes.encoders import MissingWeights
from xhat.zoo.family.attributes import ATTRIBUTES


def attribute_score(space: Any, kind: str, attribute: str, up: str, down: str) -> Score:
    """P(up) − P(down) of an attribute, in [−1, 1], as the judge reads it.

    ``space``: a :class:`~xhat.probes.features.JudgeSpace`. Raises ValueError for what the judge
    does not read."""
    values = ATTRIBUTES.get(kind, {}).get(attribute, ())
    missing = [v for v in (up, down) if v not in values]
    if missing:
        raise ValueError(
            f"the judge reads no {missing[0]!r} in the {attribute} of a {kind}: it reads "
            f"{list(values)}"
        )
    high, low = values.index(up), values.index(down)

    def score(latents: np.ndarray, prompt: str) -> np.ndarray:
        likely = space.judge.probabilities(space.images(latents), kind)[attribute].astype(
            np.float64
        )
        return likely[:, high] - likely[:, low]

    return score


def axis_score(space: Any, start: np.ndarray, end: np.ndarray) -> Score:
    """How far pictures are on the way from ``start`` (0) to ``end`` (1), two points of a feature
    space.

    ⟨φ − start, end − start⟩/‖end − start‖²: for a style, from the mean of what the model drew
    before to the mean of the style's own pictures; for a direction of SliderSpace, along its axis,
    one standard deviation a unit."""
    way = np.asarray(end, dtype=np.float64) - start
    length = float(way @ way)
    if not length > 0:
        raise ValueError(
            "start and end are one point of the feature space: there is no way between them"
        )

    def score(latents: np.ndarray, prompt: str) -> np.ndarray:
        return (space.features(latents).astype(np.float64) - start) @ way / length

    return score


def text_score(space: Any, text: str, source: str | None = None, less: str | None = None) -> Score:
    """CLIP score: 100 × cosine of the picture's and the text's embedding; with ``less``, minus that
    of another text.

    ``space``: the feature space ``clip``. ``source``: folder or hub name of the weights, the
    space's own if left out. Raises MissingWeights where they are not on this machine. Source:
    Hessel et al. 2021, arXiv 2104.08718, with the factor 100 that arXiv 2503.10637 uses."""
    targets = clip_texts([text, *([less] if less else [])], source or str(space.attrs["encoder"]))

    def score(latents: np.ndarray, prompt: str) -> np.ndarray:
        x = space.features(latents).astype(np.float64)
        cosine = 100 * (x / np.linalg.norm(x, axis=1, keepdims=True)) @ targets.T
        return cosine[:, 0] - (cosine[:, 1] if less else 0)

    return score


def clip_texts(texts: Sequence[str], source: str) -> np.ndarray:
    """Unit embeddings (n, d) of texts by CLIP's text encoder, in the space of its projected image
    embeddings.
    """
    import torch
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    try:
        model = CLIPTextModelWithProjection.from_pretrained(source, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"the CLIP score needs the weights and the tokenizer of {source}, which are neither a "
            "folder nor in the cache of the Hugging Face hub: get them with `hf download "
            f"{source}`"
        ) from error
    with torch.no_grad():
        given = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        embedded = model(**given).text_embeds.double()
    return (embedded / embedded.norm(dim=1, keepdim=True)).numpy()
