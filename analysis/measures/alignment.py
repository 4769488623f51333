"""Whether two LoRAs are the same direction, by their weights.

Trained factors start from random projections, so two LoRAs that do the same may share no weight
direction: the cosine and the angles of weights say little, and stand here beside their random
baselines. What sliders *do* to a network is compared in
:mod:`xhat.analysis.traces.effect_alignment`, point by point and at equal noise levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from xhat.analysis.measures.lora_factors import lora_of, shared_layers
from xhat.hooks.factors import Factors

WEIGHTS_WARNING = (
    "Factors of separately trained LoRAs start from random projections: a low number here does "
    "not mean that they do "
    "different things"
)


def lora_cosine(a: Any, b: Any) -> xr.Dataset:
    """Cosine of the weight changes of two LoRAs, a layer, and over all layers at once.

    ⟨ΔWₐ, ΔW_b⟩/(‖ΔWₐ‖·‖ΔW_b‖), from the factors: ⟨BₐAₐ, B_bA_b⟩ = ⟨BₐᵀB_b, AₐA_bᵀ⟩, r × r products
    alone.

    Parameters
    ----------
    a, b
        Whatever :func:`xhat.analysis.measures.lora_factors.lora_of` reads.

    Returns
    -------
    Dataset
        ``cosine``, ``norm_a``, ``norm_b`` (layer); ``random`` (layer), the standard deviation
        1/√(out·in) of the cosine of independent Gaussian LoRAs; ``total``, the cosine of all shared
        layers as one vector. A layer that is zero in either has a NaN.

    Raises
    ------
    ValueError
        Where no layer is shared.

    Examples
    --------
    >>> lora = {"layer": Factors(torch.randn(6, 2).double(), torch.randn(2, 4).double())}
    >>> round(float(lora_cosine(lora, lora)["total"]), 6)
    1.0
    """
    a, b = lora_of(a), lora_of(b)
    names = shared_layers(a, b)
    inner = np.array([_inner(a[n], b[n]) for n in names])
    norms = [np.array([lora[n].norm() for n in names]) for lora in (a, b)]
    sizes = np.array([a[n].up.shape[0] * a[n].down.shape[1] for n in names])
    product, whole = norms[0] * norms[1], np.linalg.norm(norms[0]) * np.linalg.norm(norms[1])
    cosine = np.divide(inner, product, out=np.full(len(names), np.nan), where=product > 0)
    return xr.Dataset(
        {
            "cosine": ("layer", cosine),
            "norm_a": ("layer", norms[0]),
            "norm_b": ("layer", norms[1]),
            "random": ("layer", 1 / np.sqrt(sizes)),
            "total": float(inner.sum() / whole) if whole > 0 else np.nan,
        },
        coords={"layer": names},
        attrs={
            "random": "standard deviation of independent Gaussian LoRAs",
            "warning": WEIGHTS_WARNING,
        },
    )


def principal_angles(a: Any, b: Any) -> xr.Dataset:
    """Principal angles between what two LoRAs write (``left``, column spaces of ΔW) and read
    (``right``, row spaces).

    Spaces are those of BA, computed from the factors by QR and an r × r SVD.

    Parameters
    ----------
    a, b
        As in :func:`lora_cosine`.

    Returns
    -------
    Dataset
        ``left``, ``right`` (layer, component): radians, ascending, NaN beyond the smaller rank;
        ``left_overlap``, ``right_overlap`` (layer): mean cos² of them; ``left_random``,
        ``right_random`` (layer): its mean max(rₐ, r_b)/d for random subspaces of d dimensions (r/d
        at equal ranks).

    Raises
    ------
    ValueError
        As :func:`lora_cosine` does.

    References
    ----------
    Björck & Golub 1973, doi:10.2307/2005662.

    Examples
    --------
    >>> up, down = torch.eye(6, 2).double(), torch.eye(2, 4).double()
    >>> ours, theirs = Factors(up, down), Factors(-3 * up, down.flip(0))
    >>> same = principal_angles({"layer": ours}, {"layer": theirs})
    >>> [round(same[name].max().item(), 3) for name in ("left", "left_overlap", "left_random")]
    [0.0, 1.0, 0.333]
    """
    a, b = lora_of(a), lora_of(b)
    names = shared_layers(a, b)
    width = max(min(a[n].rank, b[n].rank) for n in names)
    found = {side: np.full((len(names), width), np.nan) for side in ("left", "right")}
    overlap, baseline = ({side: np.full(len(names), np.nan) for side in found} for _ in range(2))
    for i, name in enumerate(names):
        spaces = [dict(zip(found, _spaces(lora[name]), strict=True)) for lora in (a, b)]
        for side in found:
            one, other = (s[side] for s in spaces)
            if not one.shape[1] or not other.shape[1]:
                continue  # ΔW = 0 has no direction
            cosines = torch.linalg.svdvals(one.T @ other).clamp(max=1).numpy()
            found[side][i, : len(cosines)] = _angles(one, other)
            overlap[side][i] = float((cosines**2).mean())
            baseline[side][i] = max(one.shape[1], other.shape[1]) / one.shape[0]
    dims = ("layer", "component")
    variables: dict[str, Any] = {
        side: (dims, values, {"units": "radians"}) for side, values in found.items()
    }
    variables |= {f"{side}_overlap": ("layer", values) for side, values in overlap.items()}
    variables |= {f"{side}_random": ("layer", values) for side, values in baseline.items()}
    return xr.Dataset(variables, coords={"layer": names}, attrs={"warning": WEIGHTS_WARNING})


def _inner(a: Factors, b: Factors) -> float:
    return float(((a.up.T @ b.up) * (a.down @ b.down.T)).sum())


def _spaces(f: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal bases of the column and the row space of B·A."""
    q_up, r_up = torch.linalg.qr(f.up)
    q_down, r_down = torch.linalg.qr(f.down.T)
    u, s, vt = torch.linalg.svd(r_up @ r_down.T)
    kept = (
        int((s > s.max() * max(f.up.shape[0], f.down.shape[1]) * 1e-7).sum())
        if len(s) and s.max() > 0
        else 0
    )
    return q_up @ u[:, :kept], q_down @ vt[:kept].T


def _angles(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """Ascending principal angles of two orthonormal bases, exact where they are small, too."""
    from scipy.linalg import subspace_angles

    return subspace_angles(one.numpy(), other.numpy())[::-1]
