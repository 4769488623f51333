"""What a pipeline draws without a word, though it is hardly what was meant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from xhat.hooks.protocols import Pipeline


def warn_of_doubts(pipe: Pipeline, prompts: Sequence[str], arguments: Mapping[str, Any]) -> None:
    """Warns of an empty prompt, of words a tokenizer does not know, and of guidance below 0."""
    if any(not prompt.strip() for prompt in prompts):
        warnings.warn("an empty prompt: pictures of anything", stacklevel=3)
    if unknown := unknown_words(getattr(pipe, "tokenizer", None), prompts):
        listed = ", ".join(unknown[:8]) + (", …" if len(unknown) > 8 else "")
        warnings.warn(f"words that the tokenizer does not know: {listed}", stacklevel=3)
    guidance = arguments.get("guidance_scale")
    if isinstance(guidance, int | float) and guidance < 0:
        warnings.warn(
            f"guidance_scale={guidance:g} leads away from the prompt: 0 or 1 is without guidance, "
            "above 1 towards the prompt",
            stacklevel=3,
        )


def unknown_words(tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Words for which a tokenizer has nothing but its token for the unknown, each once."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        return []  # CLIP's is the end of the text: it knows every word by its letters
    words = list(dict.fromkeys(word for prompt in prompts for word in prompt.split()))
    ids = tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    return [word for word, found in zip(words, ids, strict=True) if unknown in found]
