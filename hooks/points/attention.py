"""Attention probabilities, read beside the kernel that computes attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import nn
from torch.overrides import TorchFunctionMode

Sink = Callable[[torch.Tensor], None]


class Attention(TorchFunctionMode):
    """Attention probabilities, made beside the fused kernel that runs untouched, and reduced head
    by head.

    softmax(q·kᵀ·scale + mask), (query, key) a head, of the very q and k that the kernel is given:
    after norms, rotary embeddings and whatever else the processor does. A processor that spells out
    its softmax is read there."""

    def __init__(self, reduction: Callable[[torch.Tensor], torch.Tensor], sink: Sink) -> None:
        super().__init__()
        self.reduction, self.sink = reduction, sink
        self.reduced: torch.Tensor | None = None
        self.entered = False

    def enter(self, module: nn.Module, args: Any) -> None:
        self.reduced, self.heads, self.entered = None, getattr(module, "heads", 1), True
        self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.entered:
            return
        self.entered = False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if output is None:  # the module raised
            return
        if self.reduced is None:
            raise ValueError(
                f"no attention probabilities were seen in {type(module).__name__} with "
                f"{type(getattr(module, 'processor', None)).__name__}: expected a processor of "
                "torch's attention"
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
                heads = rearrange(
                    result.detach(), "(sample head) q k -> head sample q k", head=self.heads
                )
                self.reduced = torch.stack([self.reduction(p) for p in heads], dim=1)
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
