"""A student as its base plus a low-rank difference that can be switched on: one copy of the weights
for both.

Weights of linear and convolution layers differ by ΔW ≈ B·A, the truncated SVD of ΔW, the best of
its rank in the Frobenius norm (Eckart & Young 1936). Biases, norms and whatever else differs is
kept as it is in the student."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from xhat.hooks.factors import Factors
from xhat.hooks.model import model_of, state
from xhat.hooks.points.names import slot_of
from xhat.samplers.composite.facade import Facade
from xhat.samplers.composite.fit import check_fit, check_same_shape


@dataclass(frozen=True)
class LowRank:
    """The difference of a student from its base.

    factors
        layer → B and A of ΔW ≈ B·A.
    exact
        parameter → the student's own values, of parameters that are not factored and differ.
    errors
        layer → ‖ΔW − B·A‖/‖ΔW‖ (Frobenius).
    error
        the same over all layers at once.
    """

    rank: int
    factors: Mapping[str, Factors]
    exact: Mapping[str, torch.Tensor]
    errors: Mapping[str, float]
    error: float

    @property
    def size(self) -> int:
        """How many numbers the difference holds."""
        return sum(f.up.numel() + f.down.numel() for f in self.factors.values()) + sum(
            e.numel() for e in self.exact.values()
        )

    def __str__(self) -> str:
        worst = sorted(self.errors.items(), key=lambda item: -item[1])[:3]
        layers = ", ".join(f"{name} {error:.3f}" for name, error in worst)
        return (
            f"rank {self.rank}: {len(self.factors)} layers, {len(self.exact)} parameters kept "
            f"exactly, {self.size:,} numbers; relative error {self.error:.4f}"
            + (f", largest in {layers}" if layers else "")
        )

    def student(self, base: Any, like: Any, strength: float = 1.0) -> Any:
        """The student as a pipeline that shares the base's weights; scheduler and defaults are
        those of ``like``.

        Given to :func:`xhat.hybrid` with the same base, the difference is switched on at the
        hand-over."""
        slot = slot_of(base)
        pipe = copy.copy(base)
        pipe.register_modules(
            **{
                slot: LowRankStudent(getattr(base, slot), self, strength),
                "scheduler": like.scheduler,
            }
        )
        return state(pipe, model_of(like).stated)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file."""
        from safetensors.torch import save_file

        tensors = {f"up/{n}": f.up.contiguous() for n, f in self.factors.items()}
        tensors |= {f"down/{n}": f.down.contiguous() for n, f in self.factors.items()}
        kernels = {n: f.kernel for n, f in self.factors.items() if f.kernel is not None}
        tensors |= {f"kernel/{n}": torch.tensor(kernel) for n, kernel in kernels.items()}
        tensors |= {f"exact/{n}": e.contiguous() for n, e in self.exact.items()}
        tensors |= {
            f"error/{n}": torch.tensor(e, dtype=torch.float64) for n, e in self.errors.items()
        }
        save_file(tensors, path, metadata={"rank": str(self.rank), "error": repr(self.error)})

    @classmethod
    def load(cls, path: str | Path) -> LowRank:
        """Read what :meth:`save` wrote. Raises ValueError for any other file."""
        from safetensors import SafetensorError, safe_open

        parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in _PARTS}
        try:
            with safe_open(path, framework="pt") as file:
                notes = file.metadata() or {}
                for key in list(file.keys()):  # safe_open is no mapping
                    part, _, name = key.partition("/")
                    parts[part][name] = file.get_tensor(key)
            rank, error = int(notes["rank"]), float(notes["error"])
            factors = {name: _factors(parts, name) for name in parts["up"]}
        except (SafetensorError, KeyError, ValueError) as problem:
            raise ValueError(
                f"{path} holds no low-rank difference ({problem}): expected a file that "
                "LowRank.save wrote"
            ) from problem
        errors = {name: float(value) for name, value in parts["error"].items()}
        return cls(rank, factors, parts["exact"], errors, error)


_PARTS = ("up", "down", "kernel", "exact", "error")


def _factors(parts: Mapping[str, Mapping[str, torch.Tensor]], name: str) -> Factors:
    kernel = parts["kernel"].get(name)
    shape = None if kernel is None else tuple(kernel.tolist())
    return Factors(parts["up"][name], parts["down"][name], shape)


def extract_lora(base: Any, student: Any, rank: int) -> LowRank:
    """The student's difference from its base, at the given rank in every linear and convolution
    layer.

    ``base`` and ``student`` are pipelines, or their denoisers. With ΔW = U·S·Vᵀ, B = U_r·S_r, A =
    V_rᵀ; the singular values are found in float64. Raises ValueError for networks that are not one
    architecture, and a rank below 1."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank={rank!r}: expected a whole number of 1 or more")
    ours, theirs = _denoisers(base, student)
    check_same_shape(ours, theirs)
    layers = {name: module for name, module in ours.named_modules() if factorable(module)}
    factors, errors, lost, total = {}, {}, 0.0, 0.0
    for name, module in layers.items():
        delta = (_weight(theirs, name) - _weight(ours, name)).flatten(1)
        norm = float(delta.norm())
        if norm == 0:
            continue
        up, down = truncated(delta, rank)
        residual = float((delta - up @ down).norm())
        kernel = tuple(module.weight.shape[1:]) if module.weight.ndim == 4 else None
        dtype = module.weight.dtype
        factors[name] = Factors(up.to(dtype), down.to(dtype), kernel)
        errors[name], lost, total = residual / norm, lost + residual**2, total + norm**2
    weights = {f"{name}.weight" for name in layers}
    differing = {n: p.detach().clone() for n, p in theirs.named_parameters() if n not in weights}
    values = dict(ours.named_parameters())
    exact = {n: p for n, p in differing.items() if not torch.equal(p, values[n].to(p))}
    return LowRank(rank, factors, exact, errors, (lost / total) ** 0.5 if total else 0.0)


def truncated(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, A) of the nearest matrix of a rank: B = U_r·S_r, A = V_rᵀ."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u[:, :rank] * s[:rank], vt[:rank]


def factorable(module: nn.Module) -> bool:
    """Whether a layer's difference can be added to its output: linear, or a plain convolution."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros"


def _weight(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_parameter(f"{name}.weight").detach().double()


def _denoisers(base: Any, student: Any) -> tuple[nn.Module, nn.Module]:
    if isinstance(base, nn.Module) and isinstance(student, nn.Module):
        return base, student
    check_fit({"base": base, "student": student})
    return getattr(base, slot_of(base)), getattr(student, slot_of(student))


class LowRankStudent(Facade):
    """The base's network with the difference switched on for as long as a call lasts.

    The base is left as it is outside of a call: the difference is added to the outputs of its
    layers by hooks that come first, so that whoever listens hears the student, and exact parameters
    are exchanged, not recomputed."""

    def __init__(self, model: nn.Module, difference: LowRank, strength: float = 1.0) -> None:
        super().__init__()
        self.model, self.difference, self.strength = model, difference, strength
        self.branches = nn.ModuleDict()
        device = next(model.parameters()).device
        for name, factors in difference.factors.items():
            self.branches[_key(name)] = Branch(model.get_submodule(name), factors, strength)
        own = dict(model.named_parameters())
        self.values = nn.Module()
        for name, value in difference.exact.items():
            dialed = (
                value.to(own[name])
                if strength == 1
                else torch.lerp(own[name].data, value.to(own[name]), strength)
            )
            self.values.register_buffer(_key(name), dialed.clone())
        self.branches.to(device)

    def front(self) -> nn.Module:
        return self.model

    def at_strength(self, strength: float) -> LowRankStudent:
        """The same network with weights base + s·B·A, and exact parameters at base + s·(student −
        base).
        """
        return LowRankStudent(self.model, self.difference, strength)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.switched_on():
            return self.model(*args, **kwargs)

    @contextmanager
    def switched_on(self) -> Iterator[nn.Module]:
        """Within the block, the base's network is the student."""
        layers, parameters = dict(self.model.named_modules()), dict(self.model.named_parameters())
        exchanged = [
            (_found(parameters, name), self.values.get_buffer(_key(name)))
            for name in self.difference.exact
        ]
        before = [parameter.data for parameter, _ in exchanged]
        handles = []
        try:
            for name in self.difference.factors:
                hook = self.branches[_key(name)].add
                handles.append(layers[name].register_forward_hook(hook, prepend=True))
            for parameter, value in exchanged:
                parameter.data = value
            yield self.model
        finally:
            for (parameter, _), data in zip(exchanged, before, strict=True):
                parameter.data = data
            for handle in handles:
                handle.remove()


class Branch(nn.Module):
    """B·A·x beside a layer's W·x: for a convolution, A with the layer's kernel, stride and padding,
    then B at 1 × 1.
    """

    up: torch.Tensor
    down: torch.Tensor

    def __init__(self, layer: nn.Module, factors: Factors, strength: float) -> None:
        super().__init__()
        weight: Any = layer.weight
        if weight.ndim == 4:
            factors = replace(factors, kernel=tuple(weight.shape[1:]))
        up, down = factors.layers()
        self.convolution: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            self.convolution = {
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
            }
        self.register_buffer("up", strength * up)
        self.register_buffer("down", down.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.convolution is None:
            return functional.linear(functional.linear(x, self.down), self.up)
        return functional.conv2d(functional.conv2d(x, self.down, **self.convolution), self.up)

    def add(self, layer: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output + self(args[0])


def _found(parameters: Mapping[str, nn.Parameter], name: str) -> nn.Parameter:
    """A parameter by its name, also where an adapter was loaded since and has put a layer into
    another.
    """
    layer, _, leaf = name.rpartition(".")
    return parameters[name] if name in parameters else parameters[f"{layer}.base_layer.{leaf}"]


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name holds no dot
