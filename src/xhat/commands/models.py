"""``xhat models``"""

from __future__ import annotations

import argparse

HELP = "list the embedded family and the published pairs"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cards", action="store_true", help="the model card of each, and what of it was read"
    )


def run(args: argparse.Namespace) -> None:
    from xhat import zoo

    zoo.list(cards=args.cards)
