"""What a picture shows, by asking: attributes of any model's pictures, read by a model that knows
pictures and words.

A question has choices, one of which a picture shows; the share of seeds that show each is what the
entropy of attributes is made of. Who answers is exchangeable: :class:`Answers` is the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from xhat.hooks.describe import checksum
from xhat.hooks.naming import UnknownName
from xhat.probes.encoders import HUB, LICENCES, NORM, resized, weights_hash
from xhat.probes.questions import Question
from xhat.probes.scores import text_of, towers
from xhat.probes.vqa import VisualAnswers
from xhat.zoo.family.attributes import ATTRIBUTES
from xhat.zoo.family.judge import load_judge

ANSWERS = ("siglip", "clip", "vqa", "judge")


class Answers(Protocol):
    """Whoever reads pictures. ``attrs``: the weights' place, hash and licence."""

    attrs: Mapping[str, str]

    def ask(self, images: np.ndarray, question: str, choices: Sequence[str]) -> np.ndarray:
        """(n, choices) probabilities, of pictures (n, 3, h, w) in [0, 1]."""
        ...


def load_answers(name: str, device: Any = "cpu") -> Answers:
    """Whoever answers, by name: ``siglip``, ``clip`` or ``vqa``, with other weights after a colon
    (``siglip:FOLDER``), or the embedded family's ``judge``. ``device``: where ``vqa`` runs, the one
    that is large.

    Raises
    ------
    ValueError
        For any other name; as ``MissingWeights``, with the command that fetches them, where weights
        are not on this machine.
    """
    kind, _, source = name.partition(":")
    if kind not in ANSWERS:
        raise UnknownName("answers", kind, ANSWERS)
    if kind == "vqa":
        return VisualAnswers(source, device=device)
    return JudgeAnswers() if kind == "judge" else ContrastiveAnswers(kind, source)


class ContrastiveAnswers:
    """The choice whose sentence fits a picture best: softmax over choices of the logits of a model
    of pictures and texts (CLIP, arXiv 2103.00020, Sec. 3.1; SigLIP, arXiv 2303.15343).
    """

    def __init__(self, kind: str, source: str = "", batch_size: int = 16) -> None:
        place, licence = (source, "") if source else (HUB[kind], LICENCES[kind])
        self.kind, self.batch_size = kind, batch_size
        self.model, self.tokenizer = towers(kind, kind, place, licence)
        self.attrs: Mapping[str, str] = {
            "answers": kind,
            "answers model": place,
            "answers weights": weights_hash(self.model),
        }

    @torch.no_grad()
    def ask(self, images: np.ndarray, question: str, choices: Sequence[str]) -> np.ndarray:
        sentence = question if "{}" in question else f"{question} {{}}"
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORM[self.kind])
        side = self.model.config.vision_config.image_size
        words = [
            text_of(self.tokenizer, sentence.format(c), self.model.config.text_config, self.kind)
            for c in choices
        ]
        parts = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
        found = []
        for part in parts.split(self.batch_size):
            pixels = (resized(part, side) - mean) / std
            logits = [self.model(**w, pixel_values=pixels).logits_per_image[:, 0] for w in words]
            found.append(torch.stack(logits, 1).softmax(1).double().numpy())
        return np.concatenate(found)


class JudgeAnswers:
    """The embedded family's judge: a question is a kind and one of its attributes, ``"planet
    ring"``, and choices are values of it.
    """

    def __init__(self, judge: Any = None) -> None:
        self.judge = load_judge() if judge is None else judge
        self.attrs: Mapping[str, str] = {
            "answers": "judge",
            "answers weights": weights_hash(self.judge),
        }

    def ask(self, images: np.ndarray, question: str, choices: Sequence[str]) -> np.ndarray:
        kind, _, attribute = question.partition(" ")
        known = ATTRIBUTES.get(kind, {}).get(attribute, ())
        if not known or not set(choices) <= set(known):
            raise ValueError(
                f"the judge cannot tell {question!r} as one of {', '.join(choices)}: it knows "
                f"{', '.join(known) or 'a kind and its attribute, such as planet ring'}"
            )
        likely = self.judge.probabilities(images, kind)[attribute]
        asked = likely[:, [known.index(c) for c in choices]].astype(np.float64)
        return asked / asked.sum(1, keepdims=True)


class AskedSpace:
    """A feature space whose attributes are read by asking.

    Parameters
    ----------
    space
        Where pictures are compared. Its scores stay; its own attributes and fidelity do not.
    vae
        Decodes, where the space does not.
    answers, questions
        Who is asked what.
    """

    def __init__(
        self, space: Any, vae: Any, answers: Answers, questions: Sequence[Question]
    ) -> None:
        from xhat.probes.features import Decoded

        self.space, self.name = space, space.name
        self.answers, self.questions = answers, tuple(questions)
        self.images = getattr(space, "images", None) or Decoded(vae).images
        if hasattr(space, "scores"):
            self.scores = space.scores
        asked = checksum({"questions": [vars(q) for q in self.questions]})
        self.attrs: Mapping[str, str] = {**space.attrs, **answers.attrs, "questions": asked}

    def features(self, latents: np.ndarray) -> np.ndarray:
        return self.space.features(latents)

    def labels(self, latents: np.ndarray, prompt: str) -> dict[str, tuple[np.ndarray, int]]:
        """Attribute → ((n,) the likeliest choice, how many there are), of what is open."""
        images = self.images(latents)
        return {
            q.attribute: (self.answers.ask(images, q.text, q.choices).argmax(1), len(q.choices))
            for q in self.questions
            if q.is_open_in(prompt)
        }


def with_questions(space: Any, vae: Any, answers: str, questions: Sequence[Question]) -> Any:
    """``space`` with its attributes read by asking; the space itself without questions."""
    if not questions:
        return space
    return AskedSpace(space, vae, load_answers(answers, vae.device), questions)
