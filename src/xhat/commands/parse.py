"""Values that several commands read from their arguments."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)

MOST = 10**6  # seeds
LARGEST = 64 << 20  # bytes of a file of prompts


def seeds(text: str) -> list[int]:
    """``0:64`` is a range, ``1,2,5`` a list; whole numbers from 0 to 2⁶³−1, a million at most."""
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            listed: Sequence[int] = range(start, stop)
        else:
            listed = [int(part) for part in text.split(",")]
    except ValueError:
        listed = ()
    if not listed or len(listed) > MOST or min(listed) < 0 or max(listed) >= 2**63:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range of seeds; expected 0:64 or 1,2,5, from 0 to 2⁶³−1 and at most "
            f"{MOST} of them"
        )
    return list(listed)


def finite(text: str) -> float:
    """A number that is neither infinite nor none."""
    value = _number(float, text)
    if value is None or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a finite number")
    return value


def above_zero(text: str) -> float:
    """A finite number above 0."""
    value = finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def positive(text: str) -> int:
    """A whole number above 0."""
    value = _number(int, text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return value


def _number(kind: Callable[[str], Number], text: str) -> Number | None:
    try:
        return kind(text)
    except ValueError:
        return None


def prompts_in(file: Path) -> list[str]:
    """Prompts of a UTF-8 file, one a line, empty lines left out. Raises ValueError for what is no
    such file.
    """
    if not file.is_file():
        raise ValueError(f"{file} is no file of prompts")
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST >> 20} MiB: no file of prompts")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8, one prompt a line"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def texts(given: Sequence[str]) -> list[str]:
    """What was given as ``--prompts``. Raises ValueError where one of them is a file."""
    if files := [text for text in given if os.path.isfile(text)]:
        raise ValueError(f"--prompts takes texts, and {files[0]} is a file: give --prompts-file")
    return list(given)


def prompts(given: list[str], known: Sequence[str]) -> list[str]:
    """A single number N is the first N of the prompts ``known``; anything else is the prompts
    themselves.

    Raises ValueError for a number that there are not so many of.
    """
    if len(given) != 1 or not given[0].isdigit():
        return texts(given)
    if not 1 <= int(given[0]) <= len(known):
        raise ValueError(
            f"--prompts {given[0]}: expected a number from 1 to {len(known)}, or the prompts "
            "themselves"
        )
    return list(known[: int(given[0])])
