"""Attributes by visual question answering: a model of pictures and words is shown a picture, a
question and lettered choices, and is read at the letter it would answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
from PIL import Image

from xhat.probes.encoders import MissingWeights, weights_hash

PLACE, LICENCE = "Qwen/Qwen2-VL-2B-Instruct", "Apache-2.0"
ORDERS = 4


class VisualAnswers:
    """Answers of an image–text model of ``transformers`` (``AutoModelForImageTextToText``).

    p(choice) is the softmax of the next token's logits over the letters that stand for the choices.
    Such models prefer letters whatever they stand for; the choices are therefore asked in several
    orders, each moved on by the same number of places, and the probabilities are averaged. With as
    many orders as choices every choice stands at every letter, and the order in which they are
    given has no effect.

    Parameters
    ----------
    source
        Folder or hub name of the weights; :data:`PLACE` if empty. Nothing is downloaded, and no
        code of a repository is run.
    orders
        In how many orders the choices are asked, each one evaluation of a picture.
    device
        Where the model runs.

    Raises
    ------
    MissingWeights
        Where weights or processor are not on this machine, with the command that fetches them.
    ValueError
        For fewer than one order.
    """

    def __init__(
        self, source: str = "", *, orders: int = ORDERS, batch_size: int = 8, device: Any = "cpu"
    ) -> None:
        if orders < 1:
            raise ValueError(f"orders={orders}: expected 1 or more")
        self.orders, self.batch_size = orders, batch_size
        self.model, self.processor = _loaded(source or PLACE, "" if source else f" ({LICENCE})")
        self.model.to(device)
        # a row's last token is then its last
        self.processor.tokenizer.padding_side = "left"
        self.attrs: Mapping[str, str] = {
            "answers": f"vqa, {orders} orders",
            "answers model": source or PLACE,
            "answers weights": weights_hash(self.model),
        }

    def ask(self, images: np.ndarray, question: str, choices: Sequence[str]) -> np.ndarray:
        """(n, choices) probabilities, of pictures (n, 3, h, w) in [0, 1].

        Raises ValueError for more choices than letters, and for letters that the model's tokenizer
        has no token for.
        """
        if len(choices) > len(ascii_uppercase):
            raise ValueError(
                f"{question!r} has {len(choices)} choices; {len(ascii_uppercase)} can be lettered"
            )
        pictures = [Image.fromarray(x) for x in _bytes(images)]
        found = np.zeros((len(images), len(choices)))
        orders = list(rotations(len(choices), self.orders))
        for order in orders:
            text = prompt_text(question, [choices[i] for i in order])
            found[:, order] += self._letters(pictures, text, len(choices)) / len(orders)
        return found

    @torch.no_grad()
    def _letters(self, pictures: Sequence[Image.Image], text: str, count: int) -> np.ndarray:
        """(n, count) probabilities of the first letters."""
        tokens = [letter_token(self.processor.tokenizer, ascii_uppercase[i]) for i in range(count)]
        content = [{"type": "image"}, {"type": "text", "text": text}]
        asked = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        parts = []
        for start in range(0, len(pictures), self.batch_size):
            some = list(pictures[start : start + self.batch_size])
            inputs = self.processor(
                text=[asked] * len(some), images=[[one] for one in some], return_tensors="pt"
            )
            logits = self.model(**inputs.to(self.model.device, self.model.dtype)).logits
            parts.append(logits[:, -1, tokens].double().softmax(1).cpu().numpy())
        return np.concatenate(parts)


def prompt_text(question: str, choices: Sequence[str]) -> str:
    """The question, its choices with a letter each, and how to answer."""
    question = question.replace("{}", "…")
    lines = [
        f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)
    ]
    return "\n".join([question, *lines, "Answer with the letter of one choice."])


def rotations(count: int, orders: int) -> Iterator[list[int]]:
    """Orders of ``count`` things, each moved on by the same number of places; at most ``count``."""
    orders = min(orders, count)
    for k in range(orders):
        shift = k * count // orders
        yield [(i + shift) % count for i in range(count)]


def letter_token(tokenizer: Any, letter: str) -> int:
    """The token with which an answer of one letter begins."""
    tokens = tokenizer(letter, add_special_tokens=False)["input_ids"]
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
        raise ValueError(f"the model's tokenizer has no token for the answer {letter!r}")
    return int(tokens[0])


def _bytes(images: np.ndarray) -> np.ndarray:
    """(n, h, w, 3) uint8 of (n, 3, h, w) in [0, 1]."""
    return np.rint(255 * np.clip(np.moveaxis(images, 1, -1), 0, 1)).astype(np.uint8)


def _loaded(place: str, licence: str) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        model = AutoModelForImageTextToText.from_pretrained(place, local_files_only=True)
        return model.eval(), AutoProcessor.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"'vqa' needs the weights and the processor of {place}, an image–text model of "
            "transformers, which are neither a folder nor in the cache of the Hugging Face hub: "
            f"get them with `hf download {place}`{licence}, or name a folder, vqa:FOLDER"
        ) from error
