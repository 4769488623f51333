"""What of a pipeline changes its pictures beside its configuration: every weight, and what was set
on its modules, its scheduler and its tokenizers after they were loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from xhat.hooks.identity import SIMPLE, Unidentified, digest_of, identity

HOOKS = ("_forward_pre_hooks", "_forward_hooks")
CAPTURING = "transformers.utils.output_capturing"
"""Hooks from here are put on a model by transformers in its first call; they only listen."""
TABLES = ("alphas_cumprod", "final_alpha_cumprod", "betas")  # that no call of a scheduler changes


def state_of(pipe: Any) -> tuple[dict[str, str], list[str]]:
    """A digest by component, and what could not be identified: of modules, everything set on them
    (FreeU, scales, attention processors, forward hooks); of schedulers, their tables; of
    tokenizers, their vocabulary.
    """
    components = dict(getattr(pipe, "components", None) or {})
    parts = {id(pipe): "the pipeline"}
    for name, component in components.items():
        parts[id(component)] = f"the {name}"
        if isinstance(component, nn.Module):
            parts |= {id(m): f"{name}.{path}" for path, m in component.named_modules()}
    digests: dict[str, str] = {}
    unknown: list[str] = []
    for name, component in sorted(components.items()):
        try:
            digests[name] = _digest(list(_settings(name, component, parts)))
        except Unidentified as error:
            unknown.append(f"{name} ({error})")
    return digests, unknown


def weights_of(pipe: Any) -> str:
    """sha256 of every bit of every weight and buffer of a pipeline's modules. Raises Unidentified
    where the data of some are not there.
    """
    return digest_of(
        (f"{name}.{key}", tensor)
        for name, component in sorted((getattr(pipe, "components", None) or {}).items())
        if isinstance(component, nn.Module)
        for key, tensor in sorted(_tensors(component), key=lambda item: item[0])
    )


def _tensors(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name, with their data where accelerate has taken them away."""
    for path, module in network.named_modules():
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for name, tensor in own:
            if tensor.device.type == "meta":
                tensor = _offloaded(module, name, tensor)
            yield f"{path}.{name}", tensor


def _offloaded(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
    hook = getattr(module, "_hf_hook", None)
    for one in (hook, *getattr(hook, "hooks", ())):
        weights = getattr(one, "weights_map", None)
        if weights is not None and name in weights:
            return torch.as_tensor(weights[name])
    return tensor


def _settings(name: str, component: Any, parts: dict[int, str]) -> Iterator[tuple[str, Any]]:
    yield "class", identity(type(component), parts)
    if isinstance(component, nn.Module):
        for path, module in component.named_modules():
            yield from ((f"{path}.{k}", v) for k, v in _set_on(module, parts))
    for table in TABLES:
        if isinstance(value := getattr(component, table, None), torch.Tensor):
            yield table, identity(value)
    if hasattr(component, "get_vocab"):
        yield from _tokenizer(component)


def _set_on(module: nn.Module, parts: dict[int, str]) -> Iterator[tuple[str, Any]]:
    library = type(module).__module__.partition(".")[0]
    if library != "xhat":  # whose networks of several models keep count of their steps
        for key, value in vars(module).items():
            plain = value if isinstance(value, list | tuple) else [value]
            if not key.startswith("_") and all(isinstance(v, SIMPLE) for v in plain):
                yield key, identity(value)
    processor = vars(module).get("processor") or module._modules.get("processor")
    if processor is not None:
        rest = {i: n for i, n in parts.items() if i != id(processor)}
        yield "processor", _processor(processor, rest)
    for kind in HOOKS:
        for hook in getattr(module, kind).values():
            if getattr(hook, "__module__", None) != CAPTURING:
                yield kind, identity(hook, parts)
    if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
        yield "forward", identity(vars(module)["forward"], parts)


def _processor(processor: Any, parts: dict[int, str]) -> Any:
    """An attention processor: its class, and what is set on it; its weights are the module's."""
    public = {k: v for k, v in vars(processor).items() if not k.startswith("_")}
    return [identity(type(processor), parts), identity(public, parts)]


def _tokenizer(tokenizer: Any) -> Iterator[tuple[str, Any]]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = json.loads(backend.to_str()) if backend else tokenizer.get_vocab()
    # a call sets how texts are padded and cut
    yield "vocabulary", {k: v for k, v in vocabulary.items() if k not in ("padding", "truncation")}
    for name in ("model_max_length", "padding_side", "truncation_side", "special_tokens_map"):
        value = getattr(tokenizer, name, None)
        yield name, json.dumps(value, default=str, sort_keys=True)


def _digest(settings: list[tuple[str, Any]]) -> str:
    return str(identity(json.dumps(settings, sort_keys=True).encode()))
