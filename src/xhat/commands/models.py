"""``xhat models``"""

from __future__ import annotations

import argparse

HELP = "list the embedded family and the published pairs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> None:
    from xhat import zoo

    zoo.list()
