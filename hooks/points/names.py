"""Hook points: the modules of a denoiser under short names, found by alias, glob or path.

An alias is the module's path in words: ``down_blocks.0.resnets.1`` is ``down.0.res.1``, and the
attention that reads the prompt in ``up_blocks.2.attentions.0.transformer_blocks.0.attn2`` is
``up.2.attn.0.cross``. ``h`` is the output of a UNet's mid block (the h-space of Kwon et al. 2023,
arXiv 2210.10960)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from xhat.hooks.naming import nearest

_WORDS = {
    "down_blocks": "down",
    "up_blocks": "up",
    "mid_block": "mid",
    "resnets": "res",
    "attentions": "attn",
    "transformer_blocks": "block",
    "joint_transformer_blocks": "block",
    "single_transformer_blocks": "single",
    "layers": "block",
    "blocks": "block",
    "downsamplers": "down",
    "upsamplers": "up",
    "attn": "attn",
    "attn1": "self",
    "attn2": "cross",
    "attention": "attn",
    "ff": "ff",
    "feed_forward": "ff",
}
_ENDS = {
    "conv_in": "in",
    "pos_embed": "in",
    "x_embedder": "in",
    "conv_out": "out",
    "proj_out": "out",
    "time_embedding": "time",
}


@dataclass(frozen=True)
class Point:
    """A place to listen: ``alias`` and ``path`` in the denoiser, the module's class, and the shape
    of one sample's output with its bytes a step, which are None where they were not looked up."""

    alias: str
    path: str
    kind: str
    shape: tuple[int, ...] | None = None
    bytes: int | None = None


def denoiser_of(pipe: Any) -> nn.Module:
    """``pipe.unet`` or ``pipe.transformer``. Raises ValueError where there is neither, or no
    scheduler.
    """
    for name in ("unet", "transformer", "transformer_2"):
        module = getattr(pipe, name, None)
        if isinstance(module, nn.Module):
            if not hasattr(getattr(pipe, "scheduler", None), "step"):
                raise ValueError(
                    f"{type(pipe).__name__} has no scheduler with a step: there is no denoising "
                    "to trace"
                )
            return module
    raise ValueError(
        f"{type(pipe).__name__} has neither a unet nor a transformer: expected a diffusers "
        "text-to-image pipeline"
    )


def slot_of(pipe: Any) -> str:
    """``"unet"`` or ``"transformer"``: where the pipeline keeps its denoiser. Raises ValueError for
    anything else.
    """
    for name in ("unet", "transformer"):
        if isinstance(getattr(pipe, name, None), nn.Module) and hasattr(
            getattr(pipe, "scheduler", None), "step"
        ):
            return name
    raise ValueError(
        "expected a diffusers pipeline with a unet or a transformer, and a scheduler; got "
        f"{type(pipe).__name__}"
    )


def denoisers_of(pipe: Any) -> tuple[nn.Module, ...]:
    """All modules that a pipeline denoises with: that of :func:`denoiser_of`, and a second one that
    takes turns with it (Wan 2.2). Raises ValueError as that does.
    """
    listed = (denoiser_of(pipe), getattr(pipe, "transformer_2", None))
    return tuple({id(m): m for m in listed if isinstance(m, nn.Module)}.values())


Denoisers = nn.Module | tuple[nn.Module, ...]


def parts_of(denoiser: Denoisers) -> tuple[nn.Module, ...]:
    """The networks of a denoiser, or of several: itself, or each of ``xhat_parts`` where it routes
    between several.
    """
    if isinstance(denoiser, tuple):
        return tuple({id(m): m for each in denoiser for m in parts_of(each)}.values())
    parts = getattr(denoiser, "xhat_parts", None)
    if not parts:
        return (denoiser,)
    members = parts.values() if isinstance(parts, Mapping) else parts
    return tuple({id(m): m for m in members}.values())


def named_points(denoiser: Denoisers) -> tuple[Point, ...]:
    """Every module that has an alias, in the order of the model; of several parts, each name
    once.
    """
    found: dict[str, Point] = {}
    for part in parts_of(denoiser):
        single = _single_blocks(part)
        for path, module in part.named_modules():
            alias = alias_of(path, single)
            if path == "pos_embed" and hasattr(part, "x_embedder"):
                continue  # it embeds places alone; the picture comes in elsewhere
            if alias is not None and alias not in found and not isinstance(module, nn.ModuleList):
                found[alias] = Point(alias, path, type(module).__name__)
    return tuple(found.values())


def alias_of(path: str, single: frozenset[str] = frozenset()) -> str | None:
    """Alias of a module path, None where it has none. ``single``: lists of one block, whose number
    says nothing.

    >>> alias_of("up_blocks.2.attentions.0.transformer_blocks.0.attn2")
    'up.2.attn.0.block.0.cross'
    >>> [alias_of(f"mid_block{path}") for path in ("", ".resnets.0", ".resnets.0.norm1")]
    ['h', 'mid.res.0', None]
    """
    if path in _ENDS:
        return _ENDS[path]
    if path == "mid_block":
        return "h"
    words, at = [], ""
    for token in path.split("."):
        at = f"{at}.{token}" if at else token
        parent = at.rpartition(".")[0]
        if at in single or parent in single:
            continue
        if not token.isdigit() and token not in _WORDS:
            return None
        words.append(_WORDS.get(token, token))
    return ".".join(words) or None


def _single_blocks(denoiser: nn.Module) -> frozenset[str]:
    """Transformer block lists of length one inside a UNet's attentions."""
    return frozenset(
        path
        for path, module in denoiser.named_modules()
        if path.endswith(".transformer_blocks")
        and isinstance(module, nn.ModuleList)
        and len(module) == 1
    )


def find_points(candidates: Sequence[Point], pattern: str) -> list[Point]:
    """Points named by an alias, a path, or a glob over aliases, or over paths if it fits no alias.

    ``*`` stays within one word between dots, ``**`` does not. Raises ValueError, with the nearest
    names, where nothing fits."""
    exact = [p for p in candidates if pattern in (p.alias, p.path)]
    if exact:
        return exact
    if any(c in pattern for c in "*?["):
        regex = _glob(pattern)
        named = [p for p in candidates if p.alias != p.path and regex.fullmatch(p.alias)]
        matches = named or [p for p in candidates if regex.fullmatch(p.path)]
        if matches:
            return matches
    names = [p.alias for p in candidates] + [p.path for p in candidates]
    near = nearest(pattern, names, 4, cutoff=0.4) or names[:4]
    raise ValueError(
        f"no hook point is named {pattern!r}; nearest: {', '.join(near)}. xhat.points(pipe) lists "
        "all"
    )


def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", pattern)
    meaning = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    regex = "".join(
        p if p.startswith("[") and p.endswith("]") else meaning.get(p, re.escape(p)) for p in parts
    )
    try:
        return re.compile(regex)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no pattern: {error}") from error


def modules_at(denoiser: Denoisers, path: str) -> list[nn.Module]:
    """The module at ``path`` in each part of the denoiser that has it."""
    found = []
    for part in parts_of(denoiser):
        try:
            found.append(part.get_submodule(path))
        except AttributeError:
            continue
    return found
