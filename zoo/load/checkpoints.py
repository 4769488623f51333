"""A checkpoint in any of the layouts in which it is published, as a pipeline ready to be called.

A pipeline's folder, a model's folder, a bare state dict, one file with the whole model, a LoRA: of
the last four only the denoiser is taken, and everything else is the base's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xhat.hooks.model import state
from xhat.hooks.points.names import denoiser_of
from xhat.zoo.load.entries import KINDS, Published, bases, find
from xhat.zoo.load.files import SUFFIXES, kind_of, names_in
from xhat.zoo.load.graft import LORA_FILE, graft
from xhat.zoo.load.hub import fetch, in_cache, is_name, not_to_be_had
from xhat.zoo.load.pipelines import load_pipeline

_WORDS = {
    "pipeline": "a diffusers pipeline",
    "denoiser": "a diffusers model",
    "weights": "bare weights of a denoiser",
    "file": "one file with a whole model",
    "lora": "a LoRA",
}

# what all models of a family have in common: channels of the latents, and the widths of their
# prompts
_WIDTHS = (
    "in_channels",
    "cross_attention_dim",
    "joint_attention_dim",
    "caption_channels",
    "addition_embed_type",
)


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
    """A checkpoint as a pipeline. ``path``: a file, a folder, a hub name ``owner/name`` or
    ``owner/name/file``.

    base
        the pipeline that it was distilled from, or a name for :func:`xhat.zoo.load_model`. A
        pipeline's folder needs
        none; of everything else it gives the VAE, the prompt encoders and the architecture.
    kind
        what the checkpoint is expected to be (:data:`xhat.zoo.load.entries.KINDS`); found out where
        it is left out.
    like
        a published checkpoint whose scheduler and call are to be used, for example ``"sdxl/dmd2"``.
    scheduler, scheduler_config, call
        class in diffusers, made from the base's configuration with these changes; and what belongs
        in the pipeline's
        call (steps, guidance), kept as its :func:`xhat.defaults`. Left out: the base's, or the
        folder's own.
    lora_scale
        weight of a LoRA. It shares the base's weights and stays switchable:
        ``pipe.set_adapters("student", weight)``.

    Raises ValueError for a file that is not whole or holds code, for a checkpoint that is not of
    the base's family, for a kind that is not the expected one, and for what cannot be found. Code
    of a repository is never run but where ``remote_code`` says so."""
    if like is not None:
        entry = find(like)
        scheduler, scheduler_config = (
            scheduler or entry.scheduler,
            scheduler_config or entry.scheduler_config,
        )
        call = {**entry.call, **(call or {})}
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
    place = _locate(path)
    found = _kind(place, str(path))
    _check_kind(str(path), found, kind)
    if found == "pipeline":
        pipe = load_pipeline(place, dtype=dtype, remote_code=remote_code)
        _check_class(str(path), pipe, base)
    else:
        pipe = graft(_base(base, path, found, dtype), place, found, str(path), lora_scale)
    return _set_up(pipe, scheduler, scheduler_config or {}, call)


def load_published(entry: Published, base: Any, *, dtype: torch.dtype = torch.float32) -> Any:
    """A published checkpoint on its base's pipeline, with the scheduler and the call that belong to
    it.
    """
    path = entry.repo if entry.file is None else f"{entry.repo}/{entry.file}"
    return load_checkpoint(
        path, base, kind=entry.kind, like=entry.name, lora_scale=entry.lora_scale, dtype=dtype
    )


def _locate(path: str | Path) -> Path | str:
    """A local path, a file of the hub, or the name of a hub repository, which is left to
    diffusers.
    """
    if Path(path).exists():
        return Path(path)
    parts = str(path).split("/")
    repo = "/".join(parts[:2])
    if len(parts) > 2 and is_name(repo) and str(path).endswith(SUFFIXES):
        return fetch(repo, "/".join(parts[2:]))
    if is_name(str(path)):
        return str(path)
    raise ValueError(
        f"{path} is no file, no folder, and no hub name: a hub name is owner/name, or "
        "owner/name/file"
    )


def _kind(place: Path | str, shown: str) -> str:
    """What lies at a place. Of a hub repository: a pipeline, unless it has a model's config at its
    top.
    """
    if isinstance(place, str):
        signs = {"model_index.json": "pipeline", "config.json": "denoiser"}
        here = [kind for file, kind in signs.items() if in_cache(place, file)]
        return (
            here or [kind for file, kind in signs.items() if _has(place, file)] or ["pipeline"]
        )[0]
    if place.is_file():
        return kind_of(names_in(place))
    if (place / "model_index.json").exists():
        return "pipeline"
    if (place / "config.json").exists():
        return "denoiser"
    if (place / LORA_FILE).exists():
        return "lora"
    raise ValueError(
        f"{shown} is no checkpoint: it has no model_index.json (of a pipeline), config.json (of a "
        "model) or "
        f"{LORA_FILE}. Expected a folder written by save_pretrained, or one file of weights"
    )


def _has(repo: str, file: str) -> bool:
    """Whether a hub repository has a file. Raises ValueError where that cannot be told."""
    try:
        fetch(repo, file)
    except ValueError as error:
        if "is not on the hub" in str(error):
            return False
        raise ValueError(not_to_be_had(repo, error.__cause__ or error)) from error
    return True


def _check_kind(shown: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ValueError(
            f"{shown} is {_WORDS[found]}, not {_WORDS[expected]}: load it with kind={found!r}, or "
            "without"
        )


def _base(base: Any, path: str | Path, kind: str, dtype: torch.dtype) -> Any:
    if base is None:
        raise ValueError(
            f"{path} is {_WORDS[kind]}: it needs the pipeline it belongs to. Pass base: a "
            "pipeline, a folder, a hub "
            f"name, or one of {', '.join(bases())}"
        )
    if isinstance(base, str | Path):
        from xhat.zoo.pairs import load_model  # which loads checkpoints by this module

        return load_model(base, dtype=dtype)
    return base


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
