"""Loading a diffusers pipeline: quietly, whole, and never with remote code unless asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from xhat.hooks.model import state, stated_in
from xhat.zoo.load.files import check_whole
from xhat.zoo.load.hub import cached, is_name, missing_components, not_to_be_had

BASE_DEFAULTS: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 3.0}
STUDENT_DEFAULTS: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 1.0}


def load_pipeline(
    folder: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    remote_code: bool = False,
    variant: str | None = None,
) -> Any:
    """A diffusers pipeline from a folder, or by a hub name, in the files' ``variant``; quiet, with
    the defaults that belong to it (:func:`xhat.defaults`).

    Raises ValueError for a folder that is no pipeline, lacks components or holds a file that is not
    whole, for a hub name that is not to be had, and for one that needs code of its repository where
    ``remote_code`` is False."""
    from diffusers import DiffusionPipeline

    local = Path(folder).exists()
    if local:
        _check_folder(Path(folder))
    with quietly():
        try:
            pipe = DiffusionPipeline.from_pretrained(
                folder, dtype=dtype, trust_remote_code=remote_code, variant=variant
            )
        except (
            Exception
        ) as error:  # libraries below raise whatever the content of a broken file leads them to
            if not local and is_name(str(folder)) and not cached(str(folder)):
                raise not_to_be_had(str(folder), error) from error
            raise ValueError(
                f"{folder} could not be loaded as a diffusers pipeline: {_short(error)}"
            ) from error
    pipe.set_progress_bar_config(disable=True)
    stated = defaults_of(Path(folder))
    return state(pipe, stated) if stated else pipe


def _check_folder(folder: Path) -> None:
    if not (folder / "model_index.json").exists():
        raise ValueError(
            f"{folder} is no diffusers pipeline: it has no model_index.json. "
            "Expected a folder written by pipe.save_pretrained(folder)"
        )
    try:
        missing = missing_components(folder)
    except (json.JSONDecodeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{folder} could not be loaded: its model_index.json is corrupt ({error})"
        ) from error
    if missing:
        raise ValueError(
            f"{folder} is not whole: its model_index.json names {', '.join(missing)}, and there "
            "is no such folder"
        )
    for file in sorted(folder.glob("*/*.safetensors")):
        check_whole(file)


def defaults_of(folder: Path) -> dict[str, Any]:
    """Steps and guidance that belong to a checkpoint: from its ``xhat.json`` if it has one, else by
    its scheduler.
    """
    file = Path(folder) / "xhat.json"
    if file.exists():
        return stated_in(file)
    config = Path(folder) / "scheduler" / "scheduler_config.json"
    few = config.exists() and json.loads(config.read_text()).get("_class_name") in (
        "LCMScheduler",
        "TCDScheduler",
    )
    return dict(STUDENT_DEFAULTS) if few else {}


@contextmanager
def quietly() -> Iterator[None]:
    """No bars and no warnings while loading: diffusers warns of the AutoencoderTiny that it then
    runs.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            library.enable_progress_bar()


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2])[:500].replace("trust_remote_code", "remote_code")  # as it is here
    return text or type(error).__name__
