"""Where the weights of a plan's models lie, for scripts and workflows that load them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = ("pipeline", "denoiser", "weights", "lora")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's weights lie.

    Parameters
    ----------
    path
        A folder, or a hub name ``owner/name``.
    kind
        ``"pipeline"``: a diffusers pipeline; ``"denoiser"``: its network alone, with a config;
        ``"weights"``: a bare state dict of the first model's network; ``"lora"``: an adapter of it.
    file
        Which file of ``path``, for weights and LoRAs.
    scale
        Of a LoRA.

    Raises
    ------
    ValueError
        For another kind, and for weights or a LoRA without a file.
    """

    path: str
    kind: str = "pipeline"
    file: str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if self.kind not in SOURCES:
            raise ValueError(
                f"kind={self.kind!r} of a source: expected one of {', '.join(SOURCES)}"
            )
        if self.kind in ("weights", "lora") and self.file is None:
            raise ValueError(f"a source of kind {self.kind!r} names its file, got {self.path}")

    @property
    def file_text(self) -> str:
        """An expression that gives the path of the file."""
        if Path(self.path).is_dir():
            return repr(str(Path(self.path) / str(self.file)))
        return f"hf_hub_download({self.path!r}, {self.file!r})"


def sources_of(
    pipe: Any, networks: Mapping[str, Any], given: Mapping[str, ModelSource | str]
) -> dict[str, ModelSource]:
    """Model → where its weights lie: as given, else where they were loaded from.

    The first model's is its whole pipeline. Raises ValueError for a model that there is not, and
    where the source is not known: weights that were put into the base's network, adapters, and what
    was made in memory."""
    unknown = sorted(set(given) - set(networks))
    if unknown:
        raise ValueError(f"sources name {', '.join(unknown)}: the plan runs {', '.join(networks)}")
    first, *others = networks
    known = {name: s if isinstance(s, ModelSource) else ModelSource(s) for name, s in given.items()}
    if first not in known:
        known[first] = ModelSource(_folder(first, pipe.config.get("_name_or_path"), None))
    if known[first].kind != "pipeline":
        raise ValueError(f"the source of {first!r} is a whole pipeline, got {known[first]}")
    base = networks[first].config.get("_name_or_path")
    for name in (n for n in others if n not in known):
        network = networks[name]
        adapted = bool(getattr(network, "peft_config", None))
        path = None if adapted else network.config.get("_name_or_path")
        known[name] = ModelSource(_folder(name, path, base), "denoiser")
    return {name: known[name] for name in networks}


def _folder(name: str, path: Any, other: Any) -> str:
    if not path or path == other or not Path(path).is_dir():
        raise ValueError(
            f"where the weights of {name!r} lie is not known: pass sources={{{name!r}: "
            "Source(path, kind, file)}, or save them (save_pretrained) and name the folder"
        )
    return str(Path(path).absolute())


def loading(pipe: Any, slot: str, sources: Mapping[str, ModelSource]) -> list[str]:
    """Lines of Python that load the first model as ``pipe``, and all networks as ``networks``."""
    (first, source), *others = sources.items()
    lines = [
        f"pipe = diffusers.{type(pipe).__name__}.from_pretrained(",
        f"    {source.path!r}, dtype=DTYPE",
        ").to(DEVICE)",
        f"networks = {{{first!r}: pipe.{slot}}}",
    ]
    for name, other in others:
        lines += _network(name, other, slot)
    return lines


def _network(name: str, source: ModelSource, slot: str) -> list[str]:
    if source.kind in ("pipeline", "denoiser"):
        where = f", subfolder={slot!r}" if source.kind == "pipeline" else ""
        return [
            f"networks[{name!r}] = type(pipe.{slot}).from_pretrained(",
            f"    {source.path!r}{where}, dtype=DTYPE",
            ").to(DEVICE)",
        ]
    lines = [f"state = read({source.file_text})"]
    if source.kind == "weights":
        return [
            *lines,
            f"networks[{name!r}] = filled(pipe.{slot}, state)",
        ]
    return [
        *lines,
        f"networks[{name!r}] = copy.deepcopy(pipe.{slot})",
        f"other = type(pipe)(**{{**pipe.components, {slot!r}: networks[{name!r}]}})",
        'state = {k: v for k, v in state.items() if not k.startswith(("text_encoder", "lora_te"))}',
        f"other.load_lora_weights(state, adapter_name={name!r})",
        f"other.set_adapters({name!r}, {source.scale!r})",
    ]
