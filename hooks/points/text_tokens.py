"""Attention from the picture to the tokens of the prompt: which part of a module's probabilities
that is, and what the tokens are called."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xhat.hooks.families import family_of

# Processors that attend to prompt and picture as one sequence, by which of them comes first.
PROMPT_THEN_PICTURE = frozenset(
    {
        "FluxAttnProcessor",
        "QwenDoubleStreamAttnProcessor2_0",
        "AuraFlowAttnProcessor2_0",
        "FusedAuraFlowAttnProcessor2_0",
    }
)
PICTURE_THEN_PROMPT = frozenset({"JointAttnProcessor2_0", "FusedJointAttnProcessor2_0"})


def reads_prompt(module: nn.Module) -> bool:
    """Whether an attention module attends to the prompt: as its keys, or joined to the picture."""
    joined = getattr(module, "add_k_proj", None) is not None
    return joined or bool(getattr(module, "is_cross_attention", False))


class PromptPart:
    """Cuts (row, query, key) down to the picture's queries and the prompt's keys."""

    def __init__(self) -> None:
        self.picture: slice = slice(None)
        self.prompt: slice = slice(None)
        self.length: int | None = None  # of both together

    def enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """The module is about to be called. Raises ValueError for one that is given no prompt, and
        where the prompt's place is not known.
        """
        context = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
        x = kwargs.get("hidden_states", args[0] if args else None)
        name = f"{type(module).__name__} with {type(getattr(module, 'processor', None)).__name__}"
        if not isinstance(context, torch.Tensor) or not isinstance(x, torch.Tensor):
            raise ValueError(
                f"{name} is given no prompt of its own: read @tokens of a module that is"
            )
        if getattr(module, "add_k_proj", None) is None:
            return
        words, places = context.shape[1], x.shape[1] if x.ndim == 3 else x.shape[2:].numel()
        self.length = words + places
        kind = type(module.processor).__name__
        if kind in PROMPT_THEN_PICTURE:
            self.picture, self.prompt = slice(words, None), slice(words)
        elif kind in PICTURE_THEN_PROMPT:
            self.picture, self.prompt = slice(places), slice(places, None)
        else:
            raise ValueError(
                f"where {name} has the prompt among its keys is not known: read @probs, which has "
                "them all"
            )

    def __call__(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(row, query, key) → (row, place, token)."""
        if self.length is not None and probabilities.shape[1:] != (self.length, self.length):
            raise ValueError(
                f"attention of {tuple(probabilities.shape[1:])} where prompt and picture together "
                f"have {self.length} tokens: which are the prompt's is not known"
            )
        return probabilities[:, self.picture, self.prompt]


def token_names(pipe: Any, prompt: str, count: int) -> list[str]:
    """Names of the ``count`` tokens that a pipeline's network is given of a prompt, its padding
    included.

    Several tokenizers follow each other (SD3: CLIP's 77, then T5's); a prompt in a template
    (Qwen-Image) has its own tokens alone. Raises ValueError for a pipeline without the tokenizers.
    """
    names: list[str] = []
    used = family_of(pipe).tokenizers
    for slot in used:
        tokenizer = getattr(pipe, slot, None)
        if tokenizer is None:
            raise ValueError(f"{type(pipe).__name__} has no {slot}: its tokens have no names")
        room = tokenizer.model_max_length if slot != used[-1] else count - len(names)
        template = getattr(pipe, "prompt_template_encode", "{}")
        skipped = getattr(pipe, "prompt_template_encode_start_idx", 0) if template != "{}" else 0
        ids = tokenizer(
            template.format(prompt), truncation=True, max_length=room + skipped
        ).input_ids
        tokens = tokenizer.convert_ids_to_tokens(ids[skipped:])[:room]
        names += [*tokens, *[tokenizer.pad_token or ""] * (room - len(tokens))]
    return names[:count]
