"""``xhat points``"""

from __future__ import annotations

import argparse

HELP = "list the hook points of a model"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="demo/base, a diffusers folder, or a hub name"
    )


def run(args: argparse.Namespace) -> None:
    from xhat.hooks.points.table import points
    from xhat.zoo.pairs import load_model

    print(points(load_model(args.model)))
