"""Values that several commands read from their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def seeds(text: str) -> list[int]:
    """``0:64`` is a range, ``1,2,5`` a list."""
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            return list(range(start, stop))
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range of seeds; expected 0:64 or 1,2,5"
        ) from None


def prompts(given: list[str], known: Sequence[str]) -> list[str]:
    """A single number N is the first N of the prompts ``known``; anything else is the prompts
    themselves.

    Raises ValueError for a number that there are not so many of.
    """
    if len(given) != 1 or not given[0].isdigit():
        return list(given)
    if not 1 <= int(given[0]) <= len(known):
        raise ValueError(
            f"--prompts {given[0]}: expected a number from 1 to {len(known)}, or the prompts themselves"
        )
    return list(known[: int(given[0])])
