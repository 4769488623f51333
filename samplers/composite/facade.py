"""A module that stands in front of others and answers for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

# Calls that change a network rather than ask it something: they must reach every network, or the
# halves would differ.
_CHANGES = (
    "set_",
    "load_",
    "enable_",
    "disable_",
    "add_",
    "delete_",
    "fuse_",
    "unfuse_",
    "unload_",
)
_ASKS = ("add_embedding", "add_time_proj")
_KEPT_OUT = ("save_", "push_to_hub")


class Facade(nn.Module):
    """Attributes that it lacks are those of the network in front; calls that change a network reach
    all of them.

    So a pipeline finds ``config``, ``dtype``, ``add_embedding`` or the attention processors as if
    the network itself were there, and an adapter is loaded into every network at once. Nothing is
    saved through it: what is behind it is more than one network."""

    def front(self) -> nn.Module:
        """The network that answers now."""
        raise TypeError(f"{type(self).__name__} has to say which network is in front")

    def networks(self) -> Sequence[nn.Module]:
        """All networks behind it, each once."""
        return (self.front(),)

    @property
    def xhat_parts(self) -> tuple[nn.Module, ...]:
        """The networks in which hook points are to be looked for."""
        parts = [
            part
            for network in self.networks()
            for part in getattr(network, "xhat_parts", (network,))
        ]
        return tuple({id(part): part for part in parts}.values())

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name.startswith(_KEPT_OUT) or not self._modules:
                raise
        found = getattr(self.front(), name)
        if callable(found) and name.startswith(_CHANGES) and name not in _ASKS:
            return self._on_all(name)
        return found

    def _on_all(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            answers = []
            for network in (
                self.networks()
            ):  # each with a dict of its own: diffusers empties those it is given
                given = [dict(a) if isinstance(a, dict) else a for a in args]
                named = {k: dict(a) if isinstance(a, dict) else a for k, a in kwargs.items()}
                answers.append(getattr(network, name)(*given, **named))
            return answers[0]

        return call
