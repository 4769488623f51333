"""A checkpoint's denoiser on its base's pipeline: the rest of the pipeline, and the base itself,
stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xhat.hooks.model import model_of, state
from xhat.hooks.points.names import denoiser_of
from xhat.hooks.sharing import sharing
from xhat.zoo.load.files import check_whole, family_in, kind_of, read_tensors
from xhat.zoo.load.hub import fetch_model
from xhat.zoo.load.pipelines import quietly

ADAPTER = "student"
LORA_FILE = "pytorch_lora_weights.safetensors"
_GUIDANCE = "time_embedding.cond_proj.weight"  # of a UNet that takes the guidance scale as an input


def graft(base: Any, place: Path | str, kind: str, shown: str, lora_scale: float = 1.0) -> Any:
    """The base's pipeline with the checkpoint's denoiser in the place of its own.

    ``kind`` is ``"denoiser"``, ``"weights"``, ``"file"`` or ``"lora"``; ``shown`` the name for
    messages. Raises ValueError for a checkpoint that does not fit the base."""
    network = denoiser_of(base)
    if kind == "denoiser":
        return _with_denoiser(base, _model(place, network, shown))
    file = place / LORA_FILE if isinstance(place, Path) and place.is_dir() else place
    assert isinstance(file, Path)
    state = read_tensors(file)
    if kind == "lora":
        return _with_lora(base, state, lora_scale, shown)
    state = _converted(network, state, shown) if kind == "file" else state
    return _with_denoiser(base, _filled(network, state, shown))


def _with_denoiser(base: Any, network: nn.Module) -> Any:
    pipe = state(copy.copy(base), model_of(base).stated, "base")
    slot = "unet" if denoiser_of(base) is getattr(base, "unet", None) else "transformer"
    pipe.register_modules(**{slot: network})
    return pipe


def _model(place: Path | str, network: nn.Module, shown: str) -> nn.Module:
    kind: Any = type(network)
    folder = fetch_model(place) if isinstance(place, str) else place
    for file in sorted(folder.glob("*.safetensors")):
        check_whole(file)
    with quietly():
        try:
            config = kind.load_config(folder)
            named = config.get("_class_name")
            if named != kind.__name__:
                raise ValueError(f"it is a {named}, the base's denoiser a {kind.__name__}")
            own = kind.from_pretrained(folder, torch_dtype=next(network.parameters()).dtype).to(
                _device(network)
            )
        except Exception as error:
            raise ValueError(
                f"{shown} is no denoiser for this base: {_first_line(error)}"
            ) from error
    _check_fit(network, {n: t for n, t in own.state_dict().items() if n != _GUIDANCE}, shown)
    return own


def _filled(network: Any, state: Mapping[str, torch.Tensor], shown: str) -> nn.Module:
    """A network like the base's with these weights. An input for the guidance scale is added where
    they have one.
    """
    cond = state.get(_GUIDANCE)
    if cond is not None and network.config.get("time_cond_proj_dim") != cond.shape[1]:
        own = type(network).from_config({**network.config, "time_cond_proj_dim": cond.shape[1]})
        own = own.to(_device(network), next(network.parameters()).dtype).eval()
    else:
        own = copy.deepcopy(network)
    _check_fit(own, state, shown)
    own.load_state_dict(state)
    return own


def _check_fit(network: nn.Module, state: Mapping[str, torch.Tensor], shown: str) -> None:
    """Raises ValueError unless names and shapes are those of the network."""
    ours = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    theirs = {n: tuple(t.shape) for n, t in state.items()}
    wrong = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if not wrong:
        return
    mine, other = family_in(state), family_in(network.state_dict())
    looks = f"it looks like {mine}, the base like {other}. " if mine and mine != other else ""
    absent = sum(n not in theirs for n in wrong)
    one = next((n for n in wrong if n in ours and n in theirs), wrong[0])
    raise ValueError(
        f"{shown} does not fit the base's {type(network).__name__}: {looks}{len(wrong)} of "
        f"{len(ours)} parameters "
        f"differ, {absent} of them missing; for example {one}: {theirs.get(one)} there, "
        f"{ours.get(one)} in the base"
    )


def _converted(
    network: Any, state: Mapping[str, torch.Tensor], shown: str
) -> dict[str, torch.Tensor]:
    """The denoiser in a file with a whole model, under diffusers' names."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known: Any = SINGLE_FILE_LOADABLE_CLASSES.get(type(network).__name__)
    if known is None:
        raise ValueError(
            f"{shown}: diffusers has no reading of such files for {type(network).__name__}"
        )
    try:
        return known["checkpoint_mapping_fn"](config=network.config, checkpoint=dict(state))
    except (KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{shown} does not hold a {type(network).__name__} in the layout that diffusers reads: "
            f"{type(error).__name__} {error}"
        ) from error


def _with_lora(base: Any, state: dict[str, torch.Tensor], scale: float, shown: str) -> Any:
    """The base's weights, shared, under an adapter of its own: two pipelines, and one copy of the
    weights.
    """
    if not hasattr(base, "load_lora_weights"):
        raise ValueError(f"{shown} is a LoRA, and {type(base).__name__} loads none")
    network: Any = denoiser_of(base)
    if getattr(network, "peft_config", None):
        raise ValueError(
            f"the base has adapters loaded already ({', '.join(network.peft_config)}): unload "
            "them first"
        )
    pipe = _with_denoiser(base, sharing(network))
    encoders = [
        n
        for n in ("text_encoder", "text_encoder_2")
        if isinstance(getattr(base, n, None), nn.Module)
    ]
    if any(name.startswith(("text_encoder", "lora_te")) for name in state):
        pipe.register_modules(**{name: sharing(getattr(base, name)) for name in encoders})
    factors = sum(kind_of([name]) == "lora" for name in state)
    with quietly():
        try:
            pipe.load_lora_weights(dict(state), adapter_name=ADAPTER)
        except Exception as error:
            raise ValueError(
                f"{shown} is a LoRA that does not fit the base: {_first_line(error)}"
            ) from error
    loaded = sum(
        f".{ADAPTER}." in n for m in _networks(pipe, encoders) for n, _ in m.named_parameters()
    )
    if loaded < factors:
        raise ValueError(
            f"{shown} is a LoRA that does not fit the base: {loaded} of its {factors} factors "
            "have a place in "
            f"{type(network).__name__}"
        )
    pipe.set_adapters(ADAPTER, scale)
    return pipe


def _networks(pipe: Any, encoders: list[str]) -> list[nn.Module]:
    return [denoiser_of(pipe), *(getattr(pipe, name) for name in encoders)]


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
