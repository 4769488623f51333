"""What is asked of pictures: attributes and their choices, of a file of one's own or as GRADE and
DIM-CIM publish theirs. Nothing of these is copied here."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

YES_NO = {"yes", "no", "Yes", "No"}


@dataclass(frozen=True)
class Question:
    """What is asked of the pictures of some prompts.

    Parameters
    ----------
    attribute
        Its name in tables: ``"time of day"``.
    choices
        Two or more, of which a picture shows one.
    text
        What is asked; ``{}`` is where a choice stands, at the end if it is left out.
    concept
        A word or words that a prompt holds of whose pictures it is asked; of every prompt if empty.

    A prompt that states one of the choices leaves nothing open, and is not asked; yes and no are
    answers, not words of a prompt.

    Raises
    ------
    ValueError
        For fewer than two choices, or the same twice.
    """

    attribute: str
    choices: tuple[str, ...]
    text: str = "a picture of {}"
    concept: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        if len(set(self.choices)) < max(2, len(self.choices)):
            raise ValueError(
                f"{self.attribute!r}: expected two or more different choices, got "
                f"{list(self.choices)}"
            )

    def is_open_in(self, prompt: str) -> bool:
        """Whether the prompt is about the concept, and states none of the choices."""
        stated = {c for c in self.choices if _holds(prompt, c)} - YES_NO
        return _holds(prompt, self.concept) and not stated


def _holds(prompt: str, words: str) -> bool:
    held = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", prompt, re.IGNORECASE)
    return not words or held is not None


def load_questions(file: Path | str) -> tuple[Question, ...]:
    """Questions of a file.

    Parameters
    ----------
    file
        JSON: a list of ``{"attribute": …, "choices": […], "text": …, "concept": …}``, the last two
        of which may be left out; or a concept's file of DIM-CIM (arXiv 2506.05108), whose types of
        attributes are asked. CSV: the data set of GRADE (arXiv 2410.22592).

    Returns
    -------
    tuple of Question
        Each once, in the file's order.

    Raises
    ------
    ValueError
        For any other content.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
        listed = text if file.suffix.lower() == ".csv" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no file of questions: {error}") from None
    if isinstance(listed, str):
        found = _of_grade(listed, str(file))
    elif isinstance(listed, dict) and "coarse_dense_prompts" in listed:
        found = _of_dimcim(listed, str(file))
    else:
        found = _of_list(listed, str(file))
    return tuple(dict.fromkeys(found))


def _of_list(listed: Any, file: str) -> Iterator[Question]:
    known = {field.name for field in fields(Question)}
    expected = f'expected a list of {{"attribute": …, "choices": […]}}, with {", ".join(known)}'
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{file}: {expected}")
    for entry in listed:
        whole = isinstance(entry, dict) and {"attribute", "choices"} <= set(entry) <= known
        if not whole or not isinstance(entry["choices"], list):
            raise ValueError(f"{file}: {expected}, got {json.dumps(entry)[:120]}")
        yield Question(**entry)


def _of_grade(text: str, file: str) -> Iterator[Question]:
    """A row a prompt and question; ``attribute`` is the question, ``attribute_values`` a set of
    words as Python writes it. Sets have no order: the words are sorted.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    wanted = ("concept", "attribute", "attribute_values")
    if not rows or not set(wanted) <= set(rows[0]):
        raise ValueError(f"{file}: expected GRADE's columns {', '.join(wanted)}")
    for row in rows:
        try:
            values = sorted(str(value) for value in ast.literal_eval(row["attribute_values"]))
        except (ValueError, SyntaxError, TypeError):
            raise ValueError(
                f"{file}: expected a set of words, got {str(row['attribute_values'])[:80]!r}"
            ) from None
        concept = re.sub(r"^(an?|the)\s+", "", row["concept"].strip(), flags=re.IGNORECASE)
        yield Question(row["attribute"].strip(), tuple(values), row["attribute"].strip(), concept)


def _of_dimcim(content: Mapping[str, Any], file: str) -> Iterator[Question]:
    """One question a type of attribute; its choices are the attributes of the dense prompts."""
    choices: dict[str, dict[str, None]] = {}
    try:
        concept = str(content["concept"])
        for prompt in content["coarse_dense_prompts"]:
            for dense in prompt["dense_prompts"]:
                of_type = choices.setdefault(str(dense["attribute_type"]), {})
                of_type[str(dense["attribute"])] = None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: a file of DIM-CIM without {error}") from None
    for kind, values in choices.items():
        if len(values) > 1:
            text = f"What is the {kind} of the {concept}?"
            yield Question(kind, tuple(values), text, concept)


def check_asked(questions: Sequence[Question], prompts: Sequence[str]) -> None:
    """Raises ValueError for a prompt of whose pictures nothing is asked, where anything is."""
    left = [p for p in prompts if not any(q.is_open_in(p) for q in questions)]
    if questions and left:
        raise ValueError(
            f"no question is open in {', '.join(map(repr, left[:4]))}: give one whose concept they "
            "hold, or other prompts"
        )
