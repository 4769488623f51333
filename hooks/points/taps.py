"""Two taps on a pipeline that is otherwise left alone: forward hooks on its denoiser, and its
scheduler's ``step``.

A tap only reads. What it puts on an object it takes off again, an exception included, and of nested
taps each removes its own alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from xhat.hooks.points.reductions import Reduction


class Listener(Protocol):
    """Called around a method: ``before`` with its arguments, ``after`` with its result too."""

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...
    def after(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None: ...


@contextmanager
def listening(owner: Any, method: str, listener: Listener) -> Iterator[None]:
    """Have ``listener`` hear every call of ``owner.method`` for as long as the block runs.

    All listeners of a method share one wrapper on the instance. It has the signature of the method,
    which pipelines inspect before they pass ``generator`` or ``eta``; the last listener takes it
    away."""
    wrapper = vars(owner).get(method)
    if not hasattr(wrapper, "xhat_listeners"):
        wrapper = _wrapper(owner, method)
        setattr(owner, method, wrapper)
    listeners = wrapper.xhat_listeners  # type: ignore[union-attr]
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)
        if not listeners:
            wrapper.xhat_restore()  # type: ignore[union-attr]


def _wrapper(owner: Any, method: str) -> Any:
    original, own = getattr(owner, method), method in vars(owner)
    listeners: list[Listener] = []

    @functools.wraps(original)
    def heard(*args: Any, **kwargs: Any) -> Any:
        for listener in listeners:
            listener.before(args, kwargs)
        result = original(*args, **kwargs)
        for listener in listeners:
            listener.after(args, kwargs, result)
        return result

    def restore() -> None:
        if own:
            setattr(owner, method, original)
        else:
            delattr(owner, method)

    heard.xhat_listeners = listeners  # type: ignore[attr-defined]
    heard.xhat_restore = restore  # type: ignore[attr-defined]
    return heard


@contextmanager
def quiet(pipe: Any) -> Iterator[None]:
    """The pipeline's own progress bar is off for as long as the block runs."""
    missing = object()
    before = getattr(pipe, "_progress_bar_config", missing)
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(
            **{**(before if isinstance(before, dict) else {}), "disable": True}
        )
    try:
        yield
    finally:
        if before is not missing:
            pipe._progress_bar_config = before
        elif hasattr(pipe, "_progress_bar_config"):
            del pipe._progress_bar_config


# Blocks of diffusers 0.42 that give (prompt stream, image stream); every other one gives the image
# first.
_IMAGE_LAST = {
    "JointTransformerBlock",
    "AuraFlowJointTransformerBlock",
    "ChromaTransformerBlock",
    "QwenImageTransformerBlock",
    "BriaFiboTransformerBlock",
    "Flux3SingleTransformerBlock",
    *(
        f"{family}{kind}"
        for family in ("Flux", "Flux2", "Bria", "LongCatImage", "OvisImage")
        for kind in ("TransformerBlock", "SingleTransformerBlock")
    ),
}


def pick_output(
    module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
) -> torch.Tensor | None:
    """The image stream among what a module gives: a tensor, or the one of a tuple or of a model
    output.
    """
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "sample"):
        return output.sample
    tensors = (
        [x for x in output if isinstance(x, torch.Tensor)]
        if isinstance(output, tuple | list)
        else []
    )
    if not tensors:
        return None
    return tensors[-1] if type(module).__name__ in _IMAGE_LAST else tensors[0]


def pick_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The image stream among what a module is given: ``hidden_states`` or ``sample``, or the first
    tensor.
    """
    for name in ("hidden_states", "sample"):
        if isinstance(kwargs.get(name), torch.Tensor):
            return kwargs[name]
    return next((x for x in args if isinstance(x, torch.Tensor)), None)


Sink = Callable[[torch.Tensor], None]


def attach(module: nn.Module, reading: str, reduction: Reduction, sink: Sink) -> list[Any]:
    """Hooks on ``module`` that give the reduced reading to ``sink`` at every call. Returns the
    handles to remove.
    """
    if reading == "output":
        return [module.register_forward_hook(_output_hook(reduction, sink))]
    if reading == "probs":
        seen = Attention(reduction, sink)
        return [
            module.register_forward_pre_hook(seen.enter),
            module.register_forward_hook(seen.leave, always_call=True),
        ]
    hook = _input_hook if reading == "input" else _delta_hook
    return [module.register_forward_hook(hook(reduction, sink), with_kwargs=True)]


def _output_hook(reduction: Reduction, sink: Sink) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensor = (
            output if isinstance(output, torch.Tensor) else pick_output(module, args, {}, output)
        )
        if tensor is not None:
            sink(reduction(tensor.detach()))

    return hook


def _input_hook(reduction: Reduction, sink: Sink) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensor = pick_input(args, kwargs)
        if tensor is not None:
            sink(reduction(tensor.detach()))

    return hook


def _delta_hook(reduction: Reduction, sink: Sink) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        after, before = pick_output(module, args, kwargs, output), pick_input(args, kwargs)
        if after is None or before is None or after.shape != before.shape:
            shapes = [None if t is None else tuple(t.shape) for t in (before, after)]
            raise ValueError(
                f"{type(module).__name__} has no residual delta: input {shapes[0]}, output {shapes[1]}; "
                "read its output instead"
            )
        sink(reduction((after - before).detach()))

    return hook


class Attention(TorchFunctionMode):
    """Attention probabilities, made beside the fused kernel that runs untouched, and reduced head
    by head.

    softmax(q·kᵀ·scale + mask), (query, key) a head, of the very q and k that the kernel is given:
    after norms, rotary embeddings and whatever else the processor does. A processor that spells out
    its softmax is read there."""

    def __init__(self, reduction: Reduction, sink: Sink) -> None:
        super().__init__()
        self.reduction, self.sink = reduction, sink
        self.reduced: torch.Tensor | None = None
        self.entered = False

    def enter(self, module: nn.Module, args: Any) -> None:
        self.reduced, self.heads, self.entered = None, getattr(module, "heads", 1), True
        self.__enter__()

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.entered:
            return
        self.entered = False
        self.__exit__(None, None, None)
        if output is None:  # the module raised
            return
        if self.reduced is None:
            raise ValueError(
                f"no attention probabilities were seen in {type(module).__name__} with "
                f"{type(getattr(module, 'processor', None)).__name__}: expected a processor of torch's attention"
            )
        self.sink(self.reduced)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            with torch._C.DisableTorchFunction():
                self.reduced = self._probabilities(*args, **kwargs)
        elif getattr(func, "__name__", "") == "softmax" and result.ndim == 3:
            with torch._C.DisableTorchFunction():
                heads = result.detach().unflatten(0, (-1, self.heads))
                self.reduced = torch.stack([self.reduction(p) for p in heads.unbind(1)], dim=1)
        return result

    def _probabilities(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if is_causal or enable_gqa or query.ndim != 4:
            raise ValueError(
                "attention probabilities of causal or grouped-query attention are not read"
            )
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        kept = []
        for head in range(query.shape[1]):
            scores = (
                query[:, head].detach() @ key[:, head].detach().transpose(1, 2)
            ).float() * scale
            if attn_mask is not None:
                mask = (
                    attn_mask[:, min(head, attn_mask.shape[1] - 1)]
                    if attn_mask.ndim == 4
                    else attn_mask
                )
                scores = (
                    scores.masked_fill(~mask, float("-inf"))
                    if mask.dtype == torch.bool
                    else scores + mask
                )
            kept.append(self.reduction(scores.softmax(-1)))
        return torch.stack(kept, dim=1)
