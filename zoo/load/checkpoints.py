"""A checkpoint in any of the layouts in which it is published, as a pipeline ready to be called.

A pipeline's folder, a model's folder, a bare state dict, one file with the whole model, a LoRA: of
the last four only the denoiser is taken, and everything else is the base's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xhat.hooks.model import state
from xhat.hooks.naming import nearest
from xhat.hooks.points.names import denoiser_of
from xhat.zoo.load.catalogue import bases, find_published, published
from xhat.zoo.load.embedded import DEMO, embedded, embedded_member, is_embedded, load_embedded
from xhat.zoo.load.entries import KINDS, Base, Published
from xhat.zoo.load.graft import graft
from xhat.zoo.load.hub import NotFound
from xhat.zoo.load.locate import WORDS, Place, locate
from xhat.zoo.load.pipelines import load_pipeline

# what all models of a family have in common: channels of the latents, and the widths of their
# prompts
_WIDTHS = (
    "in_channels",
    "cross_attention_dim",
    "joint_attention_dim",
    "caption_channels",
    "addition_embed_type",
)


def load_model(
    name: str | Path,
    base: Any = None,
    *,
    dtype: torch.dtype | None = None,
    **loading: Any,
) -> Any:
    """A pipeline by name.

    Parameters
    ----------
    name
        An embedded model (``demo/base``, ``demo/dmd`` …), a family (``sdxl``: its base), a
        published checkpoint (``sdxl/dmd2``), a folder, a file or a name on the hub.
    base
        For a checkpoint that is no whole pipeline: that of :func:`load_checkpoint`.
    dtype
        Of the weights; float32 where it is left out.
    **loading
        Further arguments of :func:`load_checkpoint`.

    Returns
    -------
    pipe
        A pipeline of diffusers, with its checkpoint's :func:`xhat.defaults`.

    Raises
    ------
    ValueError
        For a name that is none of these, and for what is no checkpoint.
    """
    name, dtype = str(name), dtype or torch.float32
    if is_embedded(name):
        return load_embedded(embedded_member(name), dtype)
    if name in bases():
        return _load_base(bases()[name], dtype)
    if name in published():
        return load_published(published()[name], base, dtype=dtype)
    try:
        return load_checkpoint(name, base, dtype=dtype, **loading)
    except NotFound as error:
        known = [*(f"{DEMO}/{n}" for n in embedded()), *published(), *bases()]
        near = nearest(name, known, cutoff=0.7)
        if not near:
            raise
        raise NotFound(f"unknown model {name!r}; did you mean {near[0]!r}? ({error})") from error


def load_checkpoint(
    path: str | Path,
    base: Any = None,
    *,
    kind: str | None = None,
    like: str | None = None,
    scheduler: str | None = None,
    scheduler_config: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
    lora_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    remote_code: bool = False,
) -> Any:
    """A checkpoint as a pipeline.

    Parameters
    ----------
    path
        A file, a folder, a hub name ``owner/name`` or ``owner/name/file``.
    base
        The pipeline that it was distilled from, or a name for :func:`load_model`. A pipeline's
        folder needs none; of everything else it gives the VAE, the prompt encoders and the
        architecture.
    kind
        What the checkpoint is expected to be (:data:`xhat.zoo.load.entries.KINDS`); recognised
        where it is left out.
    like
        A published checkpoint whose scheduler and call are to be used, for example ``"sdxl/dmd2"``.
    scheduler, scheduler_config
        Class in diffusers, made from the base's configuration with these changes. Left out: the
        base's, or the folder's own.
    call
        What belongs in the pipeline's call (steps, guidance), kept as its :func:`xhat.defaults`.
    lora_scale
        Weight of a LoRA. It shares the base's weights and stays switchable:
        ``pipe.set_adapters("student", weight)``.
    dtype
        Of the weights.
    remote_code
        Whether code of the repository may be run. Never otherwise.

    Returns
    -------
    pipe
        A pipeline of diffusers.

    Raises
    ------
    ValueError
        For a file that is not whole or holds code, for a checkpoint that is not of the base's
        family, for a kind that is not the expected one, and for what cannot be found.
    """
    if like is not None:
        entry = find_published(like)
        scheduler, scheduler_config = (
            scheduler or entry.scheduler,
            scheduler_config or entry.scheduler_config,
        )
        call = {**entry.call, **(call or {})}
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    place = locate(path, kind)
    if place.kind == "pipeline":
        pipe = load_pipeline(place.at, dtype=dtype, remote_code=remote_code)
        _check_class(place.shown, pipe, base)
    else:
        pipe = graft(_base(base, place, dtype), place.at, place.kind, place.shown, lora_scale)
    return _set_up(pipe, scheduler, scheduler_config or {}, call)


def load_published(
    entry: Published, base: Any = None, *, dtype: torch.dtype = torch.float32
) -> Any:
    """A published checkpoint on its base's pipeline (loaded by name where it is left out), with the
    scheduler and the call that belong to it.
    """
    path = entry.repo if entry.file is None else f"{entry.repo}/{entry.file}"
    return load_checkpoint(
        path,
        entry.base.name if base is None else base,
        kind=entry.kind,
        like=entry.name,
        lora_scale=entry.lora_scale,
        dtype=dtype,
    )


def _load_base(base: Base, dtype: torch.dtype) -> Any:
    """A family's base; in half precision from the files that are, where they are published."""
    half = dtype in (torch.float16, torch.bfloat16)
    pipe = load_pipeline(base.repo, variant=base.variant if half else None, dtype=dtype)
    return state(pipe, base.call)


def _base(base: Any, place: Place, dtype: torch.dtype) -> Any:
    """The pipeline onto which a checkpoint is put: as given, or by its name."""
    if base is None:
        raise ValueError(
            f"{place.shown} is {WORDS[place.kind]}: it needs the pipeline it belongs to. Pass "
            "base: a "
            f"pipeline, a folder, a hub name, or one of {', '.join(bases())}"
        )
    return load_model(base, dtype=dtype) if isinstance(base, str | Path) else base


def _check_class(shown: str, pipe: Any, base: Any) -> None:
    """Raises ValueError for a pipeline whose denoiser is not of the base's family. Other bases are
    looked at later.
    """
    if base is None or isinstance(base, str | Path):
        return
    networks: list[Any] = [denoiser_of(p) for p in (pipe, base)]
    mine, other = networks
    sizes = [{k: m.config.get(k) for k in _WIDTHS} for m in networks]
    if type(mine) is not type(other) or sizes[0] != sizes[1]:
        words = [
            ", ".join(f"{k} {v}" for k, v in s.items() if sizes[0][k] != sizes[1][k]) for s in sizes
        ]
        raise ValueError(
            f"{shown} is of another family than its base: its denoiser is a {type(mine).__name__} "
            f"({words[0]}), the "
            f"base's a {type(other).__name__} ({words[1]})"
        )


def _set_up(
    pipe: Any, scheduler: str | None, config: Mapping[str, Any], call: Mapping[str, Any] | None
) -> Any:
    if scheduler is not None:
        import diffusers

        kind = getattr(diffusers, scheduler, None)
        if kind is None or not hasattr(kind, "set_timesteps"):
            raise ValueError(f"scheduler={scheduler!r}: diffusers has no scheduler of that name")
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **config)
    if call is not None:
        state(pipe, call)
    return pipe
