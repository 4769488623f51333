"""Checkpoint pairs: a base, its students, and the sampling defaults that belong to each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"
DEMO = "demo"
BASE_DEFAULTS: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 3.0}
STUDENT_DEFAULTS: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 1.0}


@dataclass
class Pair:
    """A base and the students distilled from it. Pipelines are loaded on first use; ``student`` is the chosen one.

    Each pipeline carries ``xhat_defaults``, the steps and guidance that belong to it.
    """

    name: str
    folders: dict[str, Path] = field(repr=False)
    chosen: str

    @cached_property
    def base(self) -> Any:
        return load_pipeline(self.folders["base"])

    @cached_property
    def students(self) -> dict[str, Any]:
        """name → pipeline, every student of the family."""
        return {name: load_pipeline(folder) for name, folder in self.folders.items() if name != "base"}

    @property
    def student(self) -> Any:
        return self.students[self.chosen]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{d['num_inference_steps']}</td><td>{d['guidance_scale']}</td></tr>"
            for name, d in ((name, defaults_of(folder)) for name, folder in self.folders.items())
        )
        return f"<b>{self.name}</b><table><tr><th>model<th>steps<th>guidance</tr>{rows}</table>"


def load_pair(name: str = DEMO) -> Pair:
    """The embedded pair: ``"demo"`` (student ``dmd``) or ``"demo/<student>"``.

    Raises ValueError for any other name, with the nearest ones.
    """
    folders = embedded()
    family, _, chosen = name.partition("/")
    students = [n for n in folders if n != "base"]
    if family != DEMO or (chosen and chosen not in students):
        known = [DEMO, *(f"{DEMO}/{n}" for n in students)]
        near = difflib.get_close_matches(name, known, 1) or known
        raise ValueError(f"unknown pair {name!r}; did you mean {near[0]!r}? Known pairs: {', '.join(known)}")
    return Pair(name, folders, chosen or students[0])


def embedded() -> dict[str, Path]:
    """name → folder of every embedded pipeline, the base first."""
    order = ("base", "dmd", "lcm", "turbo", "paired")
    return {name: WEIGHTS / name for name in order if (WEIGHTS / name / "model_index.json").exists()}


def load_model(name: str) -> Any:
    """A pipeline by embedded name (``demo/base``, ``demo/dmd`` …), diffusers folder, or hub name.

    Raises ValueError for a name that is none of these, and for a folder that is no pipeline.
    """
    folders = embedded()
    family, _, member = name.partition("/")
    if family == DEMO:
        if (member or "base") not in folders:
            known = [f"{DEMO}/{n}" for n in folders]
            raise ValueError(f"unknown embedded model {name!r}; there are {', '.join(known)}")
        return load_pipeline(folders[member or "base"])
    path = Path(name)
    if path.exists():
        if not (path / "model_index.json").exists():
            raise ValueError(
                f"{name} is no diffusers pipeline: it has no model_index.json. "
                "Expected a folder written by pipe.save_pretrained(folder)"
            )
        return load_pipeline(path)
    return _from_hub(name)


def load_pipeline(folder: Path | str) -> Any:
    """A diffusers pipeline from a folder, in float32, quiet, with its ``xhat_defaults``."""
    import torch
    from diffusers import DiffusionPipeline

    with _quiet():
        try:
            pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} could not be loaded as a diffusers pipeline: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    pipe.xhat_defaults = defaults_of(Path(folder))
    return pipe


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no warnings while loading: diffusers warns of the AutoencoderTiny that it then runs."""
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


def defaults_of(folder: Path) -> dict[str, Any]:
    """Steps and guidance that belong to a checkpoint: from its ``xhat.json`` if it has one, else by its scheduler."""
    file = Path(folder) / "xhat.json"
    if file.exists():
        return json.loads(file.read_text())
    config = Path(folder) / "scheduler" / "scheduler_config.json"
    few = config.exists() and json.loads(config.read_text()).get("_class_name") in ("LCMScheduler", "TCDScheduler")
    return dict(STUDENT_DEFAULTS) if few else {}


def _from_hub(name: str) -> Any:
    """A pipeline of the Hugging Face hub, from the local cache or the network; never remote code."""
    try:
        return load_pipeline(name)
    except ValueError as error:
        known = [f"{DEMO}/{n}" for n in embedded()]
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown model {name!r}: no embedded model ({', '.join(known)}), no folder, and not to be had from the "
            f"hub.{hint}"
        ) from error
