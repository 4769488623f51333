"""Values that several commands read from their arguments."""

from __future__ import annotations

import argparse


def seeds(text: str) -> list[int]:
    """``0:64`` is a range, ``1,2,5`` a list."""
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            return list(range(start, stop))
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no range of seeds; expected 0:64 or 1,2,5") from None
