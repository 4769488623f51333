"""How a run of prompts × seeds is cut into batches: rectangles, one chunk of every stored array
each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xhat.hooks.store.failures import COPY, DamagedTrace


@dataclass(frozen=True)
class Tile:
    """Prompts ``prompts.start … stop`` under seeds ``seeds.start … stop``, by position."""

    prompts: range
    seeds: range

    def __len__(self) -> int:
        return len(self.prompts) * len(self.seeds)

    def halves(self) -> tuple[Tile, Tile]:
        """Two tiles that together are this one: prompts first, so that a prompt is encoded once
        where it can be.
        """
        if len(self.prompts) > 1:
            middle = self.prompts.start + len(self.prompts) // 2
            return (
                Tile(range(self.prompts.start, middle), self.seeds),
                Tile(range(middle, self.prompts.stop), self.seeds),
            )
        middle = self.seeds.start + len(self.seeds) // 2
        return Tile(self.prompts, range(self.seeds.start, middle)), Tile(
            self.prompts, range(middle, self.seeds.stop)
        )


@dataclass(frozen=True)
class Tiling:
    """The tiles of a run of ``prompts`` × ``seeds`` samples, each ``height`` prompts by ``width``
    seeds.
    """

    prompts: int
    seeds: int
    height: int
    width: int

    @classmethod
    def of(cls, prompts: int, seeds: int, batch_size: int) -> Tiling:
        """Tiles of at most ``batch_size`` samples: as few of them as fill the batches, and with a
        prompt's seeds together where that costs no more than a quarter more calls.

        >>> Tiling.of(prompts=5, seeds=100, batch_size=16).shape
        (5, 7)
        >>> Tiling.of(prompts=5, seeds=4, batch_size=16)
        Tiling(prompts=5, seeds=4, height=4, width=4)
        >>> # 68 calls of 15; with 10 seeds a call, there were 100
        >>> Tiling.of(prompts=100, seeds=10, batch_size=16)
        Tiling(prompts=100, seeds=10, height=3, width=5)
        """
        widths = sorted(
            {-(-seeds // parts) for parts in range(-(-seeds // batch_size), seeds + 1)},
            reverse=True,
        )
        shapes = [(min(prompts, batch_size // width), width) for width in widths]
        calls = [-(-prompts // height) * -(-seeds // width) for height, width in shapes]
        tile = next(
            shape for shape, count in zip(shapes, calls, strict=True) if count <= 1.25 * min(calls)
        )
        return cls(prompts, seeds, *tile)

    @classmethod
    def read(cls, path: str, numbers: Any) -> Tiling:
        """From the attributes of a store at ``path``. Raises DamagedTrace for what is no tiling."""
        whole = isinstance(numbers, list) and len(numbers) == 4
        if not whole or not all(type(n) is int and n > 0 for n in numbers):
            raise DamagedTrace(f"{path} is damaged: its tiling is {numbers!r}. {COPY}")
        return cls(*numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """How many tiles there are along prompts and seeds."""
        return -(-self.prompts // self.height), -(-self.seeds // self.width)

    def __getitem__(self, index: tuple[int, int]) -> Tile:
        i, j = index[0] * self.height, index[1] * self.width
        return Tile(
            range(i, min(i + self.height, self.prompts)), range(j, min(j + self.width, self.seeds))
        )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rows, columns = self.shape
        return ((i, j) for i in range(rows) for j in range(columns))
