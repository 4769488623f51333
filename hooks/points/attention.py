"""Attention probabilities, read beside the kernel that computes attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from einops import rearrange
from torch import nn
from torch.overrides import TorchFunctionMode

Sink = Callable[[torch.Tensor], None]

# processors of diffusers that attend to a prompt and to a picture apart, by what comes first
PROMPT_FIRST = ("CosmosAttnProcessor2_5", "WanAnimate2CrossAttnProcessor")
PICTURE_FIRST = ("WanAttnProcessor", "SkyReelsV2AttnProcessor")


class Attention(TorchFunctionMode):
    """Attention probabilities, made beside the fused kernel that runs untouched, and reduced head
    by head.

    softmax(q·kᵀ·scale + mask), (query, key) a head, of the very q and k that the kernel is given:
    after norms, rotary embeddings and whatever else the processor does. A processor that spells out
    its softmax is read there, in one piece or in slices. Of a module that attends to a prompt and
    to a picture apart (:func:`prompt_place`), the prompt's are read."""

    def __init__(self, reduction: Callable[[torch.Tensor], torch.Tensor], sink: Sink) -> None:
        super().__init__()
        self.reduction, self.sink = reduction, sink
        self.entered = False

    def enter(self, module: nn.Module, rows: int | None) -> None:
        """``module`` is called, with ``rows`` samples times branches."""
        self.module, self.rows, self.heads = module, rows, getattr(module, "heads", 1)
        self.place = prompt_place(module)
        self.parts: list[torch.Tensor] = []  # of the attention under way, each (row and head, …)
        self.size, self.complete = 0, 0  # how far that is; how many went before
        self.reduced: torch.Tensor | None = None
        self.entered = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.entered:
            return
        self.entered = False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if output is None:  # the module raised
            return
        if self.size:
            raise ValueError(
                f"{self._name()} has attention for {self.size / self.heads:g} of the {self.rows} "
                "rows it is given (a perturbed branch, say, has none): its probabilities are not "
                "read"
            )
        if self.reduced is None:
            raise ValueError(
                f"no attention probabilities were seen in {self._name()}: expected a processor of "
                "torch's attention"
            )
        self.sink(self.reduced)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            with torch._C.DisableTorchFunction():
                query = args[0] if args else kwargs["query"]
                self.heads = query.shape[1]
                self._see(query.shape[:2].numel(), lambda: self._probabilities(*args, **kwargs))
        elif getattr(func, "__name__", "") == "softmax" and result.ndim == 3:
            with torch._C.DisableTorchFunction():
                self._see(len(result), lambda: self.reduction(result.detach()))
        return result

    def _see(self, size: int, reduced: Callable[[], torch.Tensor]) -> None:
        """One call of the kernel, with ``size`` rows times heads: all of an attention, or a part
        of it.
        """
        if self.place != "first" or not self.complete:
            self.parts.append(reduced())
        self.size += size
        total = self.size if self.rows is None else self.rows * self.heads
        if self.size < total:
            return
        if self.size > total or (self.place == "only" and self.complete):
            raise ValueError(
                f"{self._name()} attends more than once in a call, to what cannot be told apart: "
                "its probabilities are not read"
            )
        if self.parts:
            flat = self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)
            self.reduced = rearrange(flat, "(row head) ... -> row head ...", head=self.heads)
        self.parts, self.size, self.complete = [], 0, self.complete + 1

    def _name(self) -> str:
        processor = type(getattr(self.module, "processor", None)).__name__
        return f"{type(self.module).__name__} with {processor}"

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
        heads = []
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
            heads.append(self.reduction(scores.softmax(-1)))
        return torch.stack(heads, dim=1).flatten(0, 1)


def prompt_place(module: nn.Module) -> Literal["only", "first", "last"]:
    """Which attention of a call is that to the prompt, where ``module`` may attend to a picture
    apart from it.

    An IP-Adapter (Ye et al. 2023, arXiv 2308.06721) attends to the prompt first, Wan to the
    picture."""
    processor = getattr(module, "processor", None)
    if hasattr(processor, "to_k_ip") or type(processor).__name__ in PROMPT_FIRST:
        return "first"
    return "last" if type(processor).__name__ in PICTURE_FIRST else "only"
