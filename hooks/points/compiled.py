"""Modules under ``torch.compile``, whose hooks may be skipped without a word."""

from __future__ import annotations

from torch import nn


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module`` itself is compiled: wrapped by ``torch.compile``, or in place."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def refuse_compiled(root: nn.Module, path: str = "") -> None:
    """Raises ValueError where ``root``, the module at ``path`` or one on the way to it is compiled.

    A compiled module runs as one graph, and the modules inside it are not called: their hooks
    never fire."""
    names = path.split(".") if path else []
    for count in range(len(names) + 1):
        place = ".".join(names[:count])
        module = root.get_submodule(place)
        if is_compiled(module):
            inside = f" ({place!r}, around {path!r})" if place and place != path else ""
            raise ValueError(
                f"{type(module).__name__}{inside} is compiled, and torch.compile may skip hooks in "
                "silence. Trace the pipeline before it is compiled, or without hooks for x̂₀ alone"
            )
