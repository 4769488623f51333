"""A name that is not known, and the nearest ones that are."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Up to ``count`` of the ``known`` names, the nearest first; none where none is near.

    >>> nearest("comitment", ["commitment", "diversity"])
    ['commitment']
    """
    return get_close_matches(str(name), [str(k) for k in known], count, cutoff)


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing where no name is near.

    >>> suggestion("comitment", ["commitment"]), suggestion("x", ["commitment"])
    ("; did you mean 'commitment'?", '')
    """
    near = nearest(name, known)
    return f"; did you mean {near[0]!r}?" if near else ""


class UnknownName(ValueError):
    """A name that none of the known ones has: what it was meant for, the nearest, and ``hint``."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = list(known)
        self.name, self.known = name, known
        near = suggestion(name, known)
        hint = hint or f"there are {', '.join(map(str, known))}"
        super().__init__(f"unknown {what} {name!r}{near or ';'} {hint}")
