"""Where a checkpoint lies, and in which of the published layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xhat.zoo.load.files import SUFFIXES, kind_of, names_in
from xhat.zoo.load.graft import LORA_FILE
from xhat.zoo.load.hub import NotFound, NotOnHub, fetch, in_cache, is_name, not_to_be_had

WORDS = {
    "pipeline": "a diffusers pipeline",
    "denoiser": "a diffusers model",
    "weights": "bare weights of a denoiser",
    "file": "one file with a whole model",
    "lora": "a LoRA",
}


@dataclass(frozen=True)
class Place:
    """``at``: a local path, or the name of a hub repository, which is left to diffusers; ``kind``
    of what lies there (:data:`xhat.zoo.load.entries.KINDS`); ``shown``: its name in messages."""

    at: Path | str
    kind: str
    shown: str


def locate(path: str | Path, expected: str | None = None) -> Place:
    """Where ``path`` leads: a file, a folder, ``owner/name`` of the hub or ``owner/name/file``.

    Raises
    ------
    NotFound
        Where there is nothing, or it cannot be had from the hub.
    ValueError
        For what is no checkpoint, or not of the ``expected`` kind.
    """
    shown = str(path)
    at = _place(path)
    kind = _kind_on_hub(at) if isinstance(at, str) else _kind_of_path(at, shown)
    if expected is not None and kind != expected:
        raise ValueError(
            f"{shown} is {WORDS[kind]}, not {WORDS[expected]}: "
            f"load it with kind={kind!r}, or without"
        )
    return Place(at, kind, shown)


def _place(path: str | Path) -> Path | str:
    if Path(path).exists():
        return Path(path)
    parts = str(path).split("/")
    repo = "/".join(parts[:2])
    if len(parts) > 2 and is_name(repo) and str(path).endswith(SUFFIXES):
        return fetch(repo, "/".join(parts[2:]))
    if is_name(str(path)):
        return str(path)
    raise NotFound(
        f"{path} is no file, no folder, and no hub name: "
        "a hub name is owner/name, or owner/name/file"
    )


def _kind_on_hub(repo: str) -> str:
    """Of a hub repository: a pipeline, unless it has a model's config at its top."""
    signs = {"model_index.json": "pipeline", "config.json": "denoiser"}
    cached = [kind for file, kind in signs.items() if in_cache(repo, file)]
    there = cached or [kind for file, kind in signs.items() if _has(repo, file)]
    return there[0] if there else "pipeline"


def _kind_of_path(path: Path, shown: str) -> str:
    if path.is_file():
        return kind_of(names_in(path))
    signs = {"model_index.json": "pipeline", "config.json": "denoiser", LORA_FILE: "lora"}
    for file, kind in signs.items():
        if (path / file).exists():
            return kind
    raise ValueError(
        f"{shown} is no checkpoint: it has no model_index.json (of a pipeline), config.json (of a "
        f"model) or {LORA_FILE}. Expected a folder written by save_pretrained, or one file of "
        "weights"
    )


def _has(repo: str, file: str) -> bool:
    """Whether a hub repository has a file. Raises NotFound where that cannot be told."""
    try:
        fetch(repo, file)
    except NotOnHub:
        return False
    except NotFound as error:
        raise not_to_be_had(repo, error.__cause__ or error) from error
    return True
