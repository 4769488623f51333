"""The two factors of a change of a layer's weight, ΔW = B·A."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Factors:
    """ΔW = up·down of a layer, of rank r (LoRA, arXiv 2106.09685, Sec. 4.1, where they are B and
    A).

    Parameters
    ----------
    up
        (out, r), with alpha/r multiplied in.
    down
        (r, in), of a convolution (r, in·kh·kw).
    kernel
        (in, kh, kw) of a convolution, None of a linear layer.

    Examples
    --------
    >>> f = Factors(torch.ones(6, 2), torch.ones(2, 18), (2, 3, 3))
    >>> f.rank, tuple(f.change().shape)
    (2, (6, 2, 3, 3))
    """

    up: torch.Tensor
    down: torch.Tensor
    kernel: tuple[int, ...] | None = None

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    def norm(self) -> float:
        """‖ΔW‖ (Frobenius), from r × r products: ‖BA‖² = ⟨BᵀB, AAᵀ⟩."""
        return float(((self.up.T @ self.up) * (self.down @ self.down.T)).sum().clamp(min=0).sqrt())

    def change(self) -> torch.Tensor:
        """ΔW, in the shape of the layer's weight."""
        product = self.up @ self.down
        return product if self.kernel is None else product.reshape(-1, *self.kernel)

    def layers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(up, down) as weights of two layers, one behind the other: of a convolution, down has its
        kernel and up is 1 × 1.
        """
        if self.kernel is None:
            return self.up, self.down
        return self.up[..., None, None], self.down.reshape(-1, *self.kernel)
