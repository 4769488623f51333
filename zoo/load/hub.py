"""Files and models of the Hugging Face hub: from the local cache, else from the network; and one
message if neither.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


class NotFound(ValueError):
    """A checkpoint that is not at its place, or cannot be had from the hub."""


class NotOnHub(NotFound):
    """The hub was asked, and has no such repository or file."""


_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_name(text: str) -> bool:
    """Whether a text has the form of a hub repository: owner/name.

    >>> is_name("stabilityai/sdxl-turbo"), is_name("a/b/c"), is_name("/data/model")
    (True, False, False)
    """
    return _NAME.fullmatch(text) is not None


def fetch(repo: str, file: str) -> Path:
    """A file of a hub repository, from the cache or the network. Raises ValueError where it is not
    to be had.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file))
    except Exception as error:  # the hub raises its own, those of requests, and OSError
        raise not_to_be_had(repo, error, file) from error


def fetch_model(repo: str) -> Path:
    """The folder of a diffusers model at the top of a hub repository, from the cache or the
    network.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(repo, allow_patterns=["config.json", "diffusion_pytorch_model*"])
        )
    except Exception as error:
        raise not_to_be_had(repo, error) from error


def not_to_be_had(repo: str, error: BaseException, file: str | None = None) -> NotFound:
    """An error that says why a hub model could not be had, and what to do."""
    reason = type(error).__name__
    text = f"{reason} {error}"
    wanted = f"{repo} {file}" if file else repo
    page = f"https://huggingface.co/{repo}"
    if "Gated" in reason or "gated" in text:
        return NotFound(f"{wanted}: its licence must be accepted at {page}, then `hf auth login`")
    if "RepositoryNotFound" in text or ("EntryNotFound" in reason and "Local" not in reason):
        return NotOnHub(f"{wanted} is not on the hub: look at {page} for the right name")
    return NotFound(
        f"{wanted} is not in the local cache, and the hub cannot be reached ({reason}). Where "
        "there "
        f"is a network: `hf download {wanted}`, with HF_HUB_OFFLINE unset; or copy its folder "
        "under "
        "HF_HOME/hub"
    )


def cached(repo: str, file: str | None = None) -> bool:
    """Whether a file of a hub repository lies in the local cache; without ``file``, a pipeline or
    model with weights.

    A pipeline counts where every component that its ``model_index.json`` names has a folder there.
    """
    if file is not None:
        return in_cache(repo, file) is not None
    index, config = in_cache(repo, "model_index.json"), in_cache(repo, "config.json")
    if index is not None:
        return not missing_components(index.parent)
    return config is not None and any(config.parent.glob("diffusion_pytorch_model*"))


def in_cache(repo: str, file: str) -> Path | None:
    """Where a file of a hub repository lies in the local cache, None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, file)
    return Path(found) if isinstance(found, str) else None


def missing_components(folder: Path) -> list[str]:
    """Components that a pipeline's ``model_index.json`` names and whose folders are not there."""
    index: dict[str, Any] = json.loads((folder / "model_index.json").read_text())
    named = [
        name
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] is not None and not name.startswith("_")
    ]
    return [name for name in named if not (folder / name).is_dir()]
