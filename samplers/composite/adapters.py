"""A pipeline's own calls about adapters, made to reach every network of a hybrid; and saving, which
cannot be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from xhat.samplers.composite.experts import SECOND, has_two

# diffusers looks for networks of its own class, and passes over a composite without a word
_ADAPTERS = (
    "set_adapters",
    "get_active_adapters",
    "get_list_adapters",
    "enable_lora",
    "disable_lora",
    "delete_adapters",
    "fuse_lora",
    "unfuse_lora",
    "unload_lora_weights",
)
_SAVES = ("save_pretrained", "push_to_hub")


def reach_all(pipe: Any, slot: str) -> None:
    """Have ``pipe``'s calls about adapters go to each network behind its composite, and its saving
    be refused.
    """
    for name in _ADAPTERS:
        if hasattr(type(pipe), name):
            setattr(pipe, name, _on_each(pipe, slot, name))
    for name in _SAVES:
        setattr(pipe, name, _refuse)


def _on_each(pipe: Any, slot: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        answers = []
        for i, network in enumerate(getattr(pipe, slot).xhat_parts):
            member = _with_network(pipe, slot, network, encoders=i == 0)
            answers.append(getattr(member, name)(*args, **kwargs))
            if hasattr(member, "_merged_adapters"):
                pipe._merged_adapters = member._merged_adapters
        return answers[0]

    return call


def _with_network(pipe: Any, slot: str, network: nn.Module, encoders: bool) -> Any:
    """The pipeline as it was without a composite, and without the encoders where another call has
    seen to them.
    """
    member = copy.copy(pipe)
    for name in (*_ADAPTERS, *_SAVES):
        member.__dict__.pop(name, None)
    others = {} if encoders else {n: None for n in pipe.components if n.startswith("text_encoder")}
    if has_two(pipe):
        others[SECOND] = None
    member.register_modules(**{slot: network}, **others)
    return member


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise ValueError(
        "a hybrid is several networks and is not saved as one folder: save the pipelines it was "
        "made of, each with its "
        "own save_pretrained, and the plan as JSON (pipe.scheduler.plan.to_json(), or "
        "policy.save(path)); "
        "xhat.hybrid(base, student, plan=xhat.Plan.from_json(text)) puts them together again"
    )
