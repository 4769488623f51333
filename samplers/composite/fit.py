"""Whether pipelines can take turns on the same latents and the same prompt embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from xhat.hooks.points.names import slot_of

_DENOISER = {
    "in_channels": "latent channels",
    "patch_size": "patch size",
    "cross_attention_dim": "width of the prompt embeddings",
    "joint_attention_dim": "width of the prompt embeddings",
    "caption_channels": "width of the prompt embeddings",
    "encoder_hid_dim": "width of the prompt embeddings",
    "pooled_projection_dim": "width of the pooled prompt embedding",
    "projection_class_embeddings_input_dim": "width of the added conditioning",
    "addition_embed_type": "added conditioning",
    "addition_time_embed_dim": "width of the time ids",
}
_VAE = {
    "latent_channels": "VAE's latent channels",
    "scaling_factor": "VAE's scaling factor",
    "shift_factor": "VAE's shift factor",
}
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


class DifferentArchitecture(ValueError):
    """Two networks whose parameters differ in name or shape: no weights lie between theirs."""


def check_fit(pipes: Mapping[str, Any]) -> None:
    """Compare every pipeline with the first: latents, VAE, prompt encoders. Sizes of pictures may
    differ.

    Raises ValueError that lists all that does not fit, and warns where prompt encoders fit but hold
    other weights."""
    names = list(pipes)
    first = pipes[names[0]]
    for name in names[1:]:
        wrong = misfits(first, pipes[name])
        if wrong:
            raise ValueError(
                f"{names[0]!r} and {name!r} do not fit together: {'; '.join(wrong)}. "
                "A hybrid needs models with the same latents and the same prompt embeddings"
            )
        other = [slot for slot in _ENCODERS if _other_weights(first, pipes[name], slot)]
        if other:
            warnings.warn(
                f"{', '.join(other)} of {name!r} is not that of {names[0]!r}: {name!r} is given "
                "the prompt embeddings "
                f"of {names[0]!r}, with which it was perhaps not trained",
                stacklevel=3,
            )


def misfits(base: Any, student: Any) -> list[str]:
    """What of ``student`` differs from ``base`` that a shared run needs equal, each as "what: this,
    that".
    """
    slots = slot_of(base), slot_of(student)
    if slots[0] != slots[1]:
        return [f"denoiser: a {slots[0]}, a {slots[1]}"]
    found = _differences(
        _DENOISER, getattr(base, slots[0]).config, getattr(student, slots[0]).config
    )
    found += _differences(_VAE, _config(base, "vae"), _config(student, "vae"))
    factors = [getattr(pipe, "vae_scale_factor", None) for pipe in (base, student)]
    if factors[0] != factors[1]:
        found.append(f"pixels a latent: {factors[0]}, {factors[1]}")
    for name in _ENCODERS:
        found += _differences(
            {"hidden_size": f"width of {name}"}, _config(base, name), _config(student, name)
        )
    for name in _TOKENIZERS:
        ours, theirs = getattr(base, name, None), getattr(student, name, None)
        if ours is None or theirs is None:
            continue
        found += _differences({"model_max_length": f"length of {name}"}, ours, theirs)
        if ours.get_vocab() != theirs.get_vocab():
            found.append(
                f"vocabulary of {name}: {len(ours)} words, {len(theirs)} words, not all the same"
            )
    return found


def _other_weights(base: Any, student: Any, slot: str) -> bool:
    """Whether both have an encoder of the same shape in this place, with other values: a sample of
    each is compared.
    """
    ours, theirs = getattr(base, slot, None), getattr(student, slot, None)
    if ours is theirs or not isinstance(ours, nn.Module) or not isinstance(theirs, nn.Module):
        return False
    mine, yours = (dict(module.named_parameters()) for module in (ours, theirs))
    return mine.keys() != yours.keys() or not all(
        torch.equal(_few(mine[n]), _few(yours[n])) for n in mine
    )


def _few(values: torch.Tensor) -> torch.Tensor:
    flat = values.detach().flatten()
    return flat[:: max(1, len(flat) // 64)].float().cpu()


def check_same_shape(base: nn.Module, student: nn.Module) -> None:
    """Raises :class:`DifferentArchitecture` unless both networks have the same parameters, in name
    and shape.
    """
    ours, theirs = ({n: tuple(p.shape) for n, p in m.named_parameters()} for m in (base, student))
    if ours != theirs:
        differing = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        one = differing[0]
        raise DifferentArchitecture(
            f"base and student are not one architecture: {len(differing)} parameters differ in "
            "name or shape, for "
            f"example {one}: {ours.get(one)}, {theirs.get(one)}"
        )


def _config(pipe: Any, name: str) -> Any:
    return getattr(getattr(pipe, name, None), "config", None)


def _differences(fields: Mapping[str, str], ours: Any, theirs: Any) -> list[str]:
    """Fields of two configurations that both say, and say differently."""
    if ours is None or theirs is None:
        return []
    pairs = [(label, _field(ours, key), _field(theirs, key)) for key, label in fields.items()]
    return [f"{label}: {a}, {b}" for label, a, b in pairs if not _same(a, b)]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return bool(torch.isclose(torch.tensor(a), torch.tensor(b), rtol=1e-4))
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)


def _field(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
